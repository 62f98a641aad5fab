package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"companion/adapters/door/controlsock"
	"companion/messages"
)

// errAvailable ends a watch.
var errAvailable = errors.New("available")

// startsWithin is how long a wait believes that a daemon which does not run is about to: it was started in the line before, or
// the service manager restarts it.
const startsWithin = 3 * time.Second

// awaitAvailable waits until local inference is available, at most for timeout unless that is 0. It gives up at once when
// the runtime is held: then nothing happens without the user.
func awaitAvailable(ctx context.Context, client *controlsock.Client, timeout time.Duration) (messages.Status, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	var last messages.Status
	away := time.Now()
	watch := func() error {
		return client.WatchEvery(ctx, time.Second, func(status messages.Status) error {
			last, away = status, time.Time{}
			if status.CompanionAvailable || status.Runtime.Held {
				return errAvailable
			}
			return nil
		})
	}
	err := watch()
	for errors.Is(err, controlsock.ErrNotRunning) {
		if away.IsZero() {
			away = time.Now()
		}
		if time.Since(away) > startsWithin {
			break
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
			continue
		case <-time.After(50 * time.Millisecond):
		}
		err = watch()
	}
	switch {
	case errors.Is(err, errAvailable) && last.CompanionAvailable:
		return last, nil
	case errors.Is(err, errAvailable):
		return last, &failure{code: string(last.Reason), message: "local inference is not available: " + explain(last.Reason), hint: next(last), exit: exitUnavailable}
	case errors.Is(err, context.DeadlineExceeded):
		return last, &failure{code: "timeout", message: fmt.Sprintf("not available within %v: %s", timeout, stage(last)), hint: next(last), exit: exitUnavailable}
	}
	return last, err
}
