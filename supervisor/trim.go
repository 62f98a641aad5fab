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

// settle is the time from the first availability to the release of the memory of the start.
const settle = 2 * time.Second

// trimmer releases once the memory that only the start of the daemon needed: an idle daemon uses few of those
// pages. The kernel loads a page again when it is used.
type trimmer struct {
	snapshot *actorkit.Watch[messages.Snapshot]
	log      *zap.Logger
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
	timer := time.NewTimer(settle)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	debug.FreeOSMemory()
	if err := dropProgramPages(); err != nil {
		t.log.Warn("memory of the start not given back", zap.Error(err))
	}
	return suture.ErrDoNotRestart
}
