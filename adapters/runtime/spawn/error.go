package spawn

import (
	"errors"
	"io/fs"
	"os"
	"regexp"

	"companion/adapters/privatefs"
	"companion/messages"
)

// Error says why a runtime could not be started or does not answer. Its text contains neither path nor digest.
type Error struct {
	Reason messages.Reason
	Doing  string
	// Artifact is the manifest name of the artifact that differs from the verified one, else empty.
	Artifact string
	Err      error
}

// ErrIdentityChanged marks the Error of a model file or a pinned runtime that is not the verified one (M9, M10). The caller
// must hash it again.
var ErrIdentityChanged = errors.New("the file is not the one that was verified")

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Doing
	}
	return e.Doing + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// failed returns an Error with ReasonSpawnFailed, or ReasonNoSpace for a full disk.
func failed(doing string, err error) *Error {
	reason := messages.ReasonSpawnFailed
	if privatefs.Full(err) {
		reason = messages.ReasonNoSpace
	}
	return &Error{Reason: reason, Doing: doing, Err: pathless(err)}
}

// pathless removes the path from an error of package os.
func pathless(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	var link *os.LinkError
	if errors.As(err, &link) {
		return link.Err
	}
	return err
}

var localeName = regexp.MustCompile(`^[A-Za-z0-9_.@-]{1,64}$`)
