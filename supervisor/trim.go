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

// settle is how long after the first availability the start is taken to be over.
const settle = 2 * time.Second

// trimmer gives back, once, what only the start needed: a daemon idles for days on a handful of
// the pages that its start touched. What is needed again comes back by itself.
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
