package frontdoor

import (
	"container/list"
	"sync"

	"companion/fsm"
	"companion/messages"
)

// admission hands out the places in the runtime, first in first out (L6). The counts are decided by
// fsm.Admission; no mailbox is on the path of a request.
type admission struct {
	mu      sync.Mutex
	counts  fsm.Admission
	waiting list.List // of *ticket
	drained []chan struct{}
}

// ticket is one waiting request; ready is closed when it has its place.
type ticket struct {
	ready chan struct{}
	place *list.Element // nil once it has left the queue
}

// enter takes a place (ReasonOK, nil ticket), or a ticket to wait by (ReasonAtCapacity), or neither.
func (a *admission) enter() (*ticket, messages.Reason) {
	a.mu.Lock()
	defer a.mu.Unlock()
	reason := a.counts.Admit()
	switch reason {
	case messages.ReasonOK:
		a.counts.InFlight++
	case messages.ReasonAtCapacity:
		a.counts.Queued++
		t := &ticket{ready: make(chan struct{})}
		t.place = a.waiting.PushBack(t)
		return t, reason
	}
	return nil, reason
}

// leave gives a place back, and the first one waiting takes it.
func (a *admission) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leaveLocked()
}

func (a *admission) leaveLocked() {
	counts, reason := a.counts.Complete()
	if reason != messages.ReasonOK {
		return // more left than entered; the counts stay as they were
	}
	a.counts = counts
	if promoted, some := a.counts.Promote(); some {
		a.counts = promoted
		t := a.waiting.Remove(a.waiting.Front()).(*ticket)
		t.place = nil
		close(t.ready)
	}
	if a.counts.InFlight == 0 {
		for _, c := range a.drained {
			close(c)
		}
		a.drained = nil
	}
}

// giveUp leaves the queue. When the place came at the same moment, it is given back.
func (a *admission) giveUp(t *ticket) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t.place == nil {
		a.leaveLocked()
		return
	}
	a.waiting.Remove(t.place)
	t.place = nil
	a.counts.Queued--
}

func (a *admission) now() fsm.Admission {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counts
}

// empty returns a channel that is closed when no request is in the runtime.
func (a *admission) empty() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := make(chan struct{})
	if a.counts.InFlight == 0 {
		close(c)
	} else {
		a.drained = append(a.drained, c)
	}
	return c
}
