package fsm

import "companion/messages"

// Admission is the count of requests in the runtime and waiting for it, with their bounds (L6).
type Admission struct {
	InFlight, MaxInFlight int
	Queued, QueueBound    int
}

// Admit decides about one more request: ReasonOK when it may go to the runtime now,
// ReasonAtCapacity when it must wait its turn, ReasonQueueFull when it cannot wait. A request never
// overtakes one that waits. Counts that cannot be are refused (ReasonMalformedAdmissionState).
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

// Complete returns the counts after one request left the runtime. With ReasonOK and a waiting
// request, the freed place is the first one's: the caller moves it by Promote.
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

// Promote moves the first waiting request into the runtime, and reports whether it did.
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
