package actorkit

import "time"

// wallCheck bounds how late a WallTimer is after the machine was asleep or the clock was set.
const wallCheck = time.Minute

// WallTimer waits for a time of the wall clock. A time.Timer follows the monotonic clock, which stops while
// the machine sleeps and ignores changes of the wall clock; this one looks at the wall clock at least every
// minute. A clock that is set back to before the call of Set makes it due at once: the time was computed from a clock
// that was wrong, and may lie years ahead. Its owner selects on
//
//	case <-w.C():
//		if w.Due() { … }
//
// and is the only one to use it.
type WallTimer struct {
	now   func() time.Time
	timer *time.Timer
	at    time.Time // zero: stopped
	set   time.Time // the wall clock at Set
}

// NewWallTimer returns a stopped timer. now reads the wall clock; nil means time.Now.
func NewWallTimer(now func() time.Time) *WallTimer {
	if now == nil {
		now = time.Now
	}
	w := &WallTimer{now: now, timer: time.NewTimer(time.Hour)}
	w.timer.Stop()
	return w
}

// Set makes the timer due at that time, which may have passed.
func (w *WallTimer) Set(at time.Time) {
	w.at, w.set = at.Round(0), w.now().Round(0)
	w.arm()
}

// Stop makes the timer due never.
func (w *WallTimer) Stop() {
	w.at = time.Time{}
	w.timer.Stop()
}

// At returns when the timer is due; zero: never.
func (w *WallTimer) At() time.Time { return w.at }

// C delivers when it is time to call Due.
func (w *WallTimer) C() <-chan time.Time { return w.timer.C }

// Due reports whether the time has come, and then stops the timer. Otherwise the timer goes on.
func (w *WallTimer) Due() bool {
	if w.at.IsZero() {
		return false
	}
	now := w.now().Round(0)
	setBack := now.Before(w.set.Add(-wallCheck))
	if now.Before(w.at) && !setBack {
		w.arm()
		return false
	}
	w.Stop()
	return true
}

func (w *WallTimer) arm() {
	w.timer.Reset(min(max(w.at.Sub(w.now().Round(0)), 0), wallCheck))
}
