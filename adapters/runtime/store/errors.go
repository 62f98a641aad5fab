package store

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"companion/adapters/privatefs"
	"companion/messages"
)

// storing returns the Error for a failed write: no_space for a full disk.
func storing(err error) error {
	if own := (*Error)(nil); errors.As(err, &own) {
		return own
	}
	if full(err) {
		return &Error{messages.ReasonNoSpace, "writing an artifact", bare(err)}
	}
	return &Error{messages.ReasonTransferFailed, "writing an artifact", bare(err)}
}

// unreadable returns the Error for a failed read.
func unreadable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &Error{messages.ReasonInvalidModelPath, "reading an artifact", bare(err)}
}

// bare returns the system's error without the path, which contains a digest.
func bare(err error) error {
	var errno syscall.Errno
	var open *privatefs.Error
	switch {
	case errors.As(err, &errno):
		return errno
	case errors.As(err, &open):
		return fmt.Errorf("found %s, want %s", open.Found, open.Want)
	}
	return fmt.Errorf("unexpected %T", err)
}
