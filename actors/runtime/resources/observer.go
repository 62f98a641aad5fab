package resources

import (
	"context"
	"errors"
	"time"

	"companion/messages"
)

// errStuck is the failure of an observation that has not come back.
var errStuck = errors.New("the probe does not answer")

// observer asks a probe beside the loop, one question at a time: a GPU driver that hangs cannot be
// interrupted, and must not take the actor with it.
type observer struct {
	probe   Prober
	answers chan answer
	asked   bool // an answer is to come
}

type answer struct {
	seen     messages.Observation
	err      error
	panicked any
}

func newObserver(p Prober) *observer { return &observer{probe: p, answers: make(chan answer, 1)} }

// observe waits for an answer for a bounded time. While an earlier question is open no new one is
// asked; its late answer, being old, is dropped. A panic of the probe is raised again here, in the
// actor's loop, where the supervisor contains it.
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

// close gives the probe back, unless it is stuck still: what hangs in it uses it, and is left behind.
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
