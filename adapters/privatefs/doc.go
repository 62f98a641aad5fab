// Package privatefs creates and checks files and folders that only their owner may access (modes 0600 and
// 0700): the state, data, trust and runtime folders (T17, M7, X2, L2). It refuses what another user owns or
// could enter, and symbolic links, with an Error that says what was found and what would be right. It never
// repairs permissions: a folder that was open may already contain files of another user.
package privatefs

import "fmt"

// Error says why a folder or file is not private. Path is one of the companion's own folders, never the path
// of a model or binary.
type Error struct {
	Path  string
	Found string
	Want  string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s is not private: found %s, want %s", e.Path, e.Found, e.Want)
}
