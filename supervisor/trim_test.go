package supervisor

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/messages"
)

// Memory is released only after the first availability, soon after it, a minute later and then rarely, until the daemon ends.
func TestTrimmer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		snapshot := actorkit.NewWatch(messages.Snapshot{})
		began := time.Now()
		var at []time.Duration
		trim := &trimmer{snapshot, zap.NewNop(), func() error { at = append(at, time.Since(began)); return nil }}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		time.AfterFunc(time.Hour, func() { snapshot.Set(messages.Snapshot{Available: true}) })
		if err := trim.Serve(ctx); err == nil {
			t.Error("got no error at the end, want the context's")
		}
		want := []time.Duration{time.Hour + settle, time.Hour + settle + settleAgain, time.Hour + settle + settleAgain + settleLater}
		if !slices.Equal(at, want) {
			t.Errorf("got releases at %v, want %v", at, want)
		}
	})
}
