package spawn

import (
	"context"

	"golang.org/x/sys/unix"

	"companion/messages"
)

// readAheadStep is how much is requested at once: a request may block while the device's queue is full.
const readAheadStep = 16 << 20

// ReadAhead asks the kernel to read the model's file into its cache, up to most bytes, so that it is read while the
// runtime is verified, confined and loaded. It returns when ctx ends or all is requested. A failure has no effect: the
// runtime then reads the file itself, and OpenModel says what is wrong with it.
func ReadAhead(ctx context.Context, m messages.VerifiedModel, most int64) {
	f, err := OpenModel(m)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	for at := int64(0); at < min(m.Identity.Size, most) && ctx.Err() == nil; at += readAheadStep {
		if unix.Fadvise(int(f.Fd()), at, readAheadStep, unix.FADV_WILLNEED) != nil {
			return
		}
	}
}
