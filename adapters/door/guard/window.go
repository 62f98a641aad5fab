package guard

// Window is a sliding rate window: at most max events in any span of length nanoseconds. Its
// memory is bounded by max. Not safe for concurrent use. The zero Window is broken and refuses.
type Window struct {
	max    int
	length int64
	times  []int64 // ring of the last max events that were let in
	next   int     // where the next event goes; the oldest one once the ring is full
}

// NewWindow makes a window of max events in length nanoseconds. Numbers that are not positive make
// a window that refuses everything.
func NewWindow(max int, length int64) *Window {
	if max <= 0 || length <= 0 {
		return new(Window)
	}
	return &Window{max: max, length: length, times: make([]int64, 0, max)}
}

type rate uint8

const (
	free rate = iota
	full
	broken
)

// take counts one event at now, if there is room.
func (w *Window) take(now int64) rate {
	if w == nil || w.max <= 0 || w.length <= 0 || len(w.times) > w.max || w.next < 0 || w.next >= w.max {
		return broken
	}
	if len(w.times) < w.max {
		w.times = append(w.times, w.after(now))
		w.next = len(w.times) % w.max
		return free
	}
	now = w.after(now)
	if now-w.times[w.next] < w.length {
		return full
	}
	w.times[w.next] = now
	w.next = (w.next + 1) % w.max
	return free
}

// after keeps the ring ordered when requests read the clock and took the lock in different orders.
func (w *Window) after(now int64) int64 {
	if len(w.times) == 0 {
		return now
	}
	last := w.times[(w.next+len(w.times)-1)%len(w.times)]
	return max(now, last)
}
