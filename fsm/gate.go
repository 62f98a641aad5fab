package fsm

import (
	"time"

	"companion/messages"
)

// GateRequest is the input of Gate for one request. Snapshot is nil if none has been published.
type GateRequest struct {
	Snapshot  *messages.Snapshot
	Admission Admission
	Limits    messages.ResourceLimits
	Seen      messages.Observation
	Now       time.Time
}

// Gate decides whether a request may start (A6): lifecycle ready, then admission, then resources.
// ReasonAtCapacity means that it may queue, and must pass the gate again when it leaves the queue.
func Gate(r GateRequest) messages.Reason {
	if r.Snapshot == nil {
		return messages.ReasonMalformedRequestParams
	}
	if reason := GateLifecycle(r.Snapshot.State); reason != messages.ReasonOK {
		return reason
	}
	admitted := r.Admission.Admit()
	if admitted != messages.ReasonOK && admitted != messages.ReasonAtCapacity {
		return admitted
	}
	if reason := Resources(r.Limits, r.Seen, r.Now); reason != messages.ReasonOK {
		return reason
	}
	return admitted
}

// GateLifecycle is the lifecycle check of Gate. A request that has been admitted repeats it, because the state
// may have changed since.
func GateLifecycle(s messages.State) messages.Reason {
	switch s {
	case messages.StateReady:
		return messages.ReasonOK
	case messages.StateStopped, messages.StateStarting, messages.StateDraining:
		return messages.ReasonNotReady
	}
	return messages.ReasonUnknownState
}
