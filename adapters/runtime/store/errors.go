package store

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/dustin/go-humanize"

	"companion/adapters/privatefs"
	"companion/messages"
)

// storing returns the Error for a failed write: no_space for a full disk.
func storing(err error) error {
	if own := (*Error)(nil); errors.As(err, &own) {
		return own
	}
	if privatefs.Full(err) {
		return &Error{messages.ReasonNoSpace, "writing an artifact", bare(err)}
	}
	return &Error{messages.ReasonTransferFailed, "writing an artifact", bare(err)}
}

// noSpace returns the Error for a disk on which an artifact does not fit.
func noSpace(need int64, free uint64) error {
	return &Error{Reason: messages.ReasonNoSpace, what: fmt.Sprintf("the disk of the data folder has %s free, the artifact needs %s",
		humanize.IBytes(free), humanize.IBytes(uint64(max(0, need))))}
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

func changing() error {
	return &Error{Reason: messages.ReasonTransferFailed, what: "the file changed while it was read"}
}
