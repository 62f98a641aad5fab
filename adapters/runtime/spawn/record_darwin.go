package spawn

import (
	"context"
	"os"
	"time"
)

// end kills the recorded process and waits until it has ended. It polls, because macOS does not notify of the end of
// processes that are not children here.
func end(ctx context.Context, r record) (bool, error) {
	if !running(r) {
		return false, nil
	}
	p, err := os.FindProcess(r.PID)
	if err != nil {
		return false, nil
	}
	defer func() { _ = p.Release() }()
	if err := p.Kill(); err != nil {
		return false, pathless(err)
	}
	for deadline := time.Now().Add(killPatience); running(r); {
		if time.Now().After(deadline) {
			return false, ErrUnended
		}
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return true, nil
}
