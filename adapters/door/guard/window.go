package guard

// Window is a sliding-window rate limiter: it admits at most max events in any span of length nanoseconds.
// Its memory is bounded by max. It is not safe for concurrent use. The zero Window refuses every event.
type Window struct {
	max    int
	length int64
	times  []int64 // ring of the last max admitted events
	next   int     // index of the next event; once the ring is full, the oldest event is there
}

// NewWindow returns a window of max events in length nanoseconds. If either is not positive, the window
// refuses every event.
func NewWindow(max int, length int64) *Window {
	if max < 1 || length < 1 {
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

// take counts an event at now if there is room for it.
func (w *Window) take(now int64) rate {
	if w == nil || w.length < 1 || len(w.times) > w.max || w.next < 0 || w.next >= w.max {
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

// after keeps the ring in order when two requests read the clock in one order and take the lock in the other order.
func (w *Window) after(now int64) int64 {
	if len(w.times) == 0 {
		return now
	}
	last := w.times[(w.next+len(w.times)-1)%len(w.times)]
	return max(now, last)
}
