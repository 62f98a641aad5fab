package supervisor

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/thejerf/suture/v4"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/messages"
)

// The times between the first availability and the releases: what the start needed, what sign-in, refresh and download after it
// needed, and from then on what rare work needs. Loading the pages that an idle daemon uses again takes about 2 ms.
const (
	settle      = 2 * time.Second
	settleAgain = time.Minute
	settleLater = 30 * time.Minute
)

// trimmer releases the memory that only the start of the daemon, and later rare work, needed: an idle daemon uses few of those
// pages. The kernel loads a page again when it is used.
type trimmer struct {
	snapshot *actorkit.Watch[messages.Snapshot]
	log      *zap.Logger
	drop     func() error // of the program's pages
}

func (t *trimmer) String() string { return "trimmer" }

func (t *trimmer) Serve(ctx context.Context) error {
	for {
		snapshot, changed := t.snapshot.Next()
		if snapshot.Available {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
	for pause := settle; ; pause = later(pause) {
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		debug.FreeOSMemory()
		if err := t.drop(); err != nil {
			t.log.Warn("memory that is not needed is not given back", zap.Error(err))
			return suture.ErrDoNotRestart
		}
	}
}

// later is the pause after a pause.
func later(pause time.Duration) time.Duration {
	if pause == settle {
		return settleAgain
	}
	return settleLater
}
