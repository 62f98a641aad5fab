package health

import (
	"context"
	"time"

	"companion/messages"
)

// sleepPatience bounds the wait of a round for the answer whether the model sleeps. A runtime whose model wakes answers when
// that is done.
const sleepPatience = time.Second

// sleep is what is known of the sleep of the target's model (R14). It belongs to the loop.
type sleep struct {
	asked  *question // the last question; it may be unanswered
	asleep bool      // the last answer
	// since is when a client's request was first seen that may have to wake the model. Zero: no such request.
	since time.Time
}

// question asks the runtime once whether its model sleeps. An unanswered question occupies a thread of the runtime, so there
// is one at a time.
type question struct {
	stop   context.CancelFunc
	done   chan struct{} // closed when the fields below are set
	asleep bool
	err    error
}

// forget drops what is known, and ends the question.
func (s *sleep) forget() {
	if s.asked != nil {
		s.asked.stop()
	}
	*s = sleep{}
}

// answered reports whether the question has ended.
func (q *question) answered() bool {
	select {
	case <-q.done:
		return true
	default:
		return false
	}
}

// wait returns the answer, if it comes soon.
func (q *question) wait(ctx context.Context) (known, asleep bool) {
	late := time.NewTimer(sleepPatience)
	defer late.Stop()
	select {
	case <-q.done:
		return q.err == nil, q.err == nil && q.asleep
	case <-late.C:
	case <-ctx.Done():
	}
	return false, false
}

// askAboutSleep asks the runtime whether its model sleeps, or returns the question that it has not answered yet. It returns
// nil if the model cannot sleep. MayWake reports that no answer is no fault of the runtime: a client's request may be waking
// the model, for no longer than a start may take.
func (l *loop) askAboutSleep(ctx context.Context, of target, r *round) (q *question, mayWake bool) {
	if !of.sleeps || r.starting && !r.adopted {
		return nil, false
	}
	s, door := &l.sleep, l.deps.Door()
	ask, busy := s.asked == nil || s.asked.answered(), door.InFlight+door.Queued > 0
	switch {
	case ask && !busy: // it sleeps, or has been awake without a request
		s.since = time.Time{}
	case busy && s.since.IsZero() && (s.asleep || l.idleSince(door) >= l.deps.ProbeIdle):
		s.since = time.Now()
	}
	if ask {
		within, stop := context.WithTimeout(context.WithoutCancel(ctx), l.deps.StartDeadline)
		q := &question{stop: stop, done: make(chan struct{})}
		l.tasks.Go(func() {
			defer stop()
			defer close(q.done)
			q.asleep, q.err = l.deps.Prober.Asleep(within, of.backEnd)
		})
		s.asked = q
	}
	return s.asked, !s.since.IsZero() && time.Since(s.since) < l.deps.StartDeadline
}

// learn takes over the answer of a round.
func (s *sleep) learn() {
	if s.asked == nil || !s.asked.answered() || s.asked.err != nil {
		return
	}
	s.asleep = s.asked.asleep
	if !s.asleep {
		s.since = time.Time{}
	}
}

// idleSince is how long the runtime has sent no client anything.
func (l *loop) idleSince(door messages.DoorView) time.Duration {
	last := l.since
	if door.LastActivity.After(last) {
		last = door.LastActivity
	}
	return time.Since(last)
}
