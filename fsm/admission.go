package fsm

import "companion/messages"

// Admission counts the requests in the runtime and in its queue, with their bounds (L6).
type Admission struct {
	InFlight, MaxInFlight int
	Queued, QueueBound    int
}

// Admit decides about one more request: ReasonOK if it may go to the runtime now, ReasonAtCapacity if it must
// queue, ReasonQueueFull if the queue is full. A request never overtakes a queued one. Impossible counts give
// ReasonMalformedAdmissionState.
func (a Admission) Admit() messages.Reason {
	switch {
	case !a.sane():
		return messages.ReasonMalformedAdmissionState
	case a.InFlight < a.MaxInFlight && a.Queued == 0:
		return messages.ReasonOK
	case a.Queued < a.QueueBound:
		return messages.ReasonAtCapacity
	default:
		return messages.ReasonQueueFull
	}
}

// Complete returns the counts after one request has left the runtime. If a request is queued, the caller must
// call Promote next: the free place belongs to the first in the queue.
func (a Admission) Complete() (Admission, messages.Reason) {
	switch {
	case !a.sane():
		return a, messages.ReasonMalformedAdmissionState
	case a.InFlight == 0:
		return a, messages.ReasonNoInFlightToComplete
	}
	a.InFlight--
	return a, messages.ReasonOK
}

// Promote moves the first queued request into the runtime and reports whether there was one and a place.
func (a Admission) Promote() (Admission, bool) {
	if !a.sane() || a.Queued == 0 || a.InFlight >= a.MaxInFlight {
		return a, false
	}
	a.Queued--
	a.InFlight++
	return a, true
}

func (a Admission) sane() bool {
	return a.MaxInFlight > 0 && a.QueueBound >= 0 &&
		a.InFlight >= 0 && a.InFlight <= a.MaxInFlight &&
		a.Queued >= 0 && a.Queued <= a.QueueBound
}
