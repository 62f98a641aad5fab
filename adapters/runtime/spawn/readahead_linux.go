package spawn

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"companion/messages"
)

// readAheadStep is how much is requested at once: a request may block while the device's queue is full.
const readAheadStep = 16 << 20

// ReadAhead asks the kernel to read the files of the model into its cache, up to most bytes in all, so that they are read while
// the runtime is verified, confined and loaded. It returns when ctx ends or all is requested. A failure has no effect: the
// runtime then reads the file itself, and OpenModel says what is wrong with it.
func ReadAhead(ctx context.Context, m messages.VerifiedModel, most int64) {
	f, err := OpenModel(m)
	if err != nil {
		return
	}
	most -= readAhead(ctx, f, min(m.Identity.Size, most))
	for _, p := range m.Parts {
		if p.Role == messages.RoleDraft {
			continue // it may not be used
		}
		if f, err = OpenPart(m, p); err != nil {
			return
		}
		most -= readAhead(ctx, f, min(p.Identity.Size, most))
	}
}

// readAhead requests the first bytes of a file, closes it, and returns their number.
func readAhead(ctx context.Context, f *os.File, bytes int64) int64 {
	defer func() { _ = f.Close() }()
	for at := int64(0); at < bytes && ctx.Err() == nil; at += readAheadStep {
		if unix.Fadvise(int(f.Fd()), at, readAheadStep, unix.FADV_WILLNEED) != nil {
			break
		}
	}
	return bytes
}
