package frontdoor

import (
	"container/list"
	"sync"

	"companion/fsm"
	"companion/messages"
)

// admission hands out the slots of the runtime, first in first out (L6). fsm.Admission decides about the
// counts. A request that must run alone (R11) gets its slot when no other request has one, and until it
// leaves, all others wait behind it. A request with several answers takes one slot for each at once, and at most
// all slots: the runtime makes the answers in parallel.
type admission struct {
	mu      sync.Mutex
	counts  fsm.Admission
	alone   bool      // the one request in the runtime must be alone
	waiting list.List // of *ticket
	drained []chan struct{}
}

// ticket is one waiting request. Ready is closed when it has its slot.
type ticket struct {
	ready chan struct{}
	need
	place *list.Element // in the queue; nil once it has left
}

// need is what a request takes of the runtime.
type need struct {
	alone bool
	slots int // at least 1
}

// enter takes its slots (ReasonOK and no ticket), or joins the queue (ReasonAtCapacity and a ticket), or does
// neither.
func (a *admission) enter(n need) (*ticket, messages.Reason) {
	a.mu.Lock()
	defer a.mu.Unlock()
	reason := a.counts.Admit()
	if reason == messages.ReasonOK && !a.fitsLocked(n) {
		reason = messages.ReasonAtCapacity
		if a.counts.Queued >= a.counts.QueueBound {
			reason = messages.ReasonQueueFull
		}
	}
	switch reason {
	case messages.ReasonOK:
		a.counts.InFlight += a.slotsLocked(n)
		a.alone = n.alone
	case messages.ReasonAtCapacity:
		a.counts.Queued++
		t := &ticket{ready: make(chan struct{}), need: n}
		t.place = a.waiting.PushBack(t)
		return t, reason
	}
	return nil, reason
}

// fitsLocked reports whether a request may run together with those that have a slot.
func (a *admission) fitsLocked(n need) bool {
	return a.counts.InFlight == 0 || !n.alone && !a.alone && a.counts.InFlight+a.slotsLocked(n) <= a.counts.MaxInFlight
}

// slotsLocked is how many slots a request gets.
func (a *admission) slotsLocked(n need) int { return max(1, min(n.slots, a.counts.MaxInFlight)) }

// leave gives the slots of a request back. The first requests in the queue that fit take theirs.
func (a *admission) leave(n need) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leaveLocked(n)
}

func (a *admission) leaveLocked(n need) {
	for range a.slotsLocked(n) {
		counts, reason := a.counts.Complete()
		if reason != messages.ReasonOK {
			return // more requests left than entered; the counts stay as they are
		}
		a.counts = counts
	}
	a.promoteLocked()
	if a.counts.InFlight == 0 {
		for _, c := range a.drained {
			close(c)
		}
		a.drained = nil
	}
}

func (a *admission) promoteLocked() {
	for front := a.waiting.Front(); front != nil; front = a.waiting.Front() {
		t := front.Value.(*ticket)
		promoted, free := a.counts.Promote()
		if !free || !a.fitsLocked(t.need) {
			return
		}
		promoted.InFlight += a.slotsLocked(t.need) - 1
		a.counts, a.alone = promoted, t.alone
		a.waiting.Remove(front)
		t.place = nil
		close(t.ready)
	}
}

// giveUp leaves the queue. If the slots came at the same moment, they are given back.
func (a *admission) giveUp(t *ticket) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t.place == nil {
		a.leaveLocked(t.need)
		return
	}
	a.waiting.Remove(t.place)
	t.place = nil
	a.counts.Queued--
	a.promoteLocked() // a request that had to be alone may have held up the ones behind it
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
