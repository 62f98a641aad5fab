package fsm

import (
	"time"

	"companion/messages"
)

// GateRequest is what the gate knows when a request asks for the runtime. Snapshot is nil when
// nobody has published one.
type GateRequest struct {
	Snapshot  *messages.Snapshot
	Admission Admission
	Limits    messages.ResourceLimits
	Seen      messages.Observation
	Now       time.Time
}

// Gate decides whether a request may start (A6): lifecycle ready, then admission, then resources.
// ReasonAtCapacity means that it may wait its turn; after that it asks again.
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

// GateLifecycle is the gate's first question alone: a request that has its place asks it once
// more, so that no change of state lets one through.
func GateLifecycle(s messages.State) messages.Reason {
	switch s {
	case messages.StateReady:
		return messages.ReasonOK
	case messages.StateStopped, messages.StateStarting, messages.StateDraining:
		return messages.ReasonNotReady
	}
	return messages.ReasonUnknownState
}
