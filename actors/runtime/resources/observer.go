package resources

import (
	"context"
	"errors"
	"time"

	"companion/messages"
)

// errStuck is the error of an observation that does not return.
var errStuck = errors.New("the probe does not answer")

// observer runs a probe in a goroutine, one observation at a time: a hanging GPU driver cannot be interrupted
// and must not block the actor.
type observer struct {
	probe   Prober
	answers chan answer
	asked   bool // an observation is running
}

type answer struct {
	seen     messages.Observation
	err      error
	panicked any
}

func newObserver(p Prober) *observer { return &observer{probe: p, answers: make(chan answer, 1)} }

// observe starts an observation and waits for it for a bounded time. While an earlier one runs, no new one
// starts; the late result is dropped because it is old. A panic of the probe is raised again here, in the
// actor's loop, so that the supervisor handles it.
func (o *observer) observe(ctx context.Context, pid int) (messages.Observation, error) {
	if o.asked {
		select {
		case late := <-o.answers:
			o.asked = false
			late.raise()
		default:
			return messages.Observation{}, errStuck
		}
	}
	once, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	o.asked = true
	go func() {
		var a answer
		defer func() {
			a.panicked = recover()
			o.answers <- a
		}()
		a.seen, a.err = o.probe.Observe(once, pid, time.Now())
	}()
	select {
	case a := <-o.answers:
		o.asked = false
		a.raise()
		return a.seen, a.err
	case <-once.Done():
		return messages.Observation{}, errStuck
	}
}

func (a answer) raise() {
	if a.panicked != nil {
		panic(a.panicked)
	}
}

// close closes the probe, unless it still hangs: then the hanging call uses it, and it is leaked.
func (o *observer) close() {
	if o.asked {
		select {
		case <-o.answers:
		case <-time.After(patience):
			return
		}
	}
	o.probe.Close()
}
