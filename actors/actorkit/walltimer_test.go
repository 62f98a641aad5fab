package actorkit

import (
	"testing"
	"testing/synctest"
	"time"
)

// M1: a timer of the wall clock is due at its time, or within a minute after the clock has jumped past it or was set back
// to before the timer was set. A correction of less than that is waited for.
func TestWallTimer(t *testing.T) {
	for name, c := range map[string]struct {
		jump     time.Duration // of the wall clock, after ten minutes
		min, max time.Duration // by the monotonic clock, until it is due
	}{
		"no jump":           {0, time.Hour, time.Hour},
		"asleep for a day":  {24 * time.Hour, 10 * time.Minute, 11 * time.Minute},
		"jump short of it":  {20 * time.Minute, 40 * time.Minute, 41 * time.Minute},
		"set back an hour":  {-time.Hour, 10 * time.Minute, 11 * time.Minute},
		"set back a little": {-9 * time.Minute, 69 * time.Minute, 70 * time.Minute},
		"jump to the point": {50 * time.Minute, 10 * time.Minute, 11 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				now := func() time.Time {
					n := time.Now()
					if n.Sub(began) >= 10*time.Minute {
						n = n.Add(c.jump)
					}
					return n
				}
				w := NewWallTimer(now)
				w.Set(began.Add(time.Hour))
				for {
					<-w.C()
					if w.Due() {
						break
					}
				}
				if took := time.Since(began); took < c.min || took > c.max {
					t.Errorf("due after %v, want %v to %v", took, c.min, c.max)
				}
			})
		})
	}
}

// A stopped timer is never due, also if it had fired already.
func TestWallTimerStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWallTimer(nil)
		w.Set(time.Now())
		<-w.C()
		w.Stop()
		if w.Due() {
			t.Error("a stopped timer is due, want it never due")
		}
		select {
		case <-w.C():
			t.Error("a stopped timer fired, want it silent")
		case <-time.After(time.Hour):
		}
	})
}
