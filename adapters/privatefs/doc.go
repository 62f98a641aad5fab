// Package privatefs makes and checks the folders and files that belong to one user alone: the state,
// data, trust and run-time folders (T17, M7, X2, L2). What another user owns, could enter, or has
// replaced by a link is refused with an Error that says what was found and what would be right;
// nothing is repaired silently, because a folder that was open may already hold somebody else's
// files.
package privatefs

import "fmt"

// Error says why a folder or file is not private. Path is one of the companion's own places, never
// that of a model or binary.
type Error struct {
	Path  string
	Found string
	Want  string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s is not private: found %s, want %s", e.Path, e.Found, e.Want)
}
