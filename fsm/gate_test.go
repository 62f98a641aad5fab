package fsm

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"companion/messages"
)

// L6, A6: both limits are exact, and a new request never overtakes a waiting one.
func TestAdmit(t *testing.T) {
	for _, c := range []struct {
		a    Admission
		want messages.Reason
	}{
		{Admission{0, 1, 0, 0}, messages.ReasonOK},
		{Admission{1, 2, 0, 4}, messages.ReasonOK},
		{Admission{2, 2, 0, 4}, messages.ReasonAtCapacity},
		{Admission{2, 2, 3, 4}, messages.ReasonAtCapacity},
		{Admission{2, 2, 4, 4}, messages.ReasonQueueFull},
		{Admission{1, 1, 0, 0}, messages.ReasonQueueFull},
		{Admission{1, 2, 1, 4}, messages.ReasonAtCapacity}, // a free place belongs to the waiting request
		{Admission{1, 2, 4, 4}, messages.ReasonQueueFull},
		{Admission{}, messages.ReasonMalformedAdmissionState},
		{Admission{0, -1, 0, 0}, messages.ReasonMalformedAdmissionState},
		{Admission{-1, 1, 0, 0}, messages.ReasonMalformedAdmissionState},
		{Admission{2, 1, 0, 0}, messages.ReasonMalformedAdmissionState},
		{Admission{0, 1, -1, 0}, messages.ReasonMalformedAdmissionState},
		{Admission{0, 1, 1, 0}, messages.ReasonMalformedAdmissionState},
		{Admission{0, 1, 0, -1}, messages.ReasonMalformedAdmissionState},
	} {
		if got := c.a.Admit(); got != c.want {
			t.Errorf("%+v: got %s, want %s", c.a, got, c.want)
		}
	}
}

// L6: Complete without a running request is refused and changes nothing.
func TestComplete(t *testing.T) {
	for _, c := range []struct {
		in, out Admission
		want    messages.Reason
	}{
		{Admission{1, 1, 0, 0}, Admission{0, 1, 0, 0}, messages.ReasonOK},
		{Admission{0, 1, 0, 0}, Admission{0, 1, 0, 0}, messages.ReasonNoInFlightToComplete},
		{Admission{3, 1, 0, 0}, Admission{3, 1, 0, 0}, messages.ReasonMalformedAdmissionState},
	} {
		if out, got := c.in.Complete(); got != c.want || out != c.out {
			t.Errorf("%+v: got %+v %s, want %+v %s", c.in, out, got, c.out, c.want)
		}
	}
}

// L6: a waiting request is promoted only if there is one and a place is free.
func TestPromote(t *testing.T) {
	for _, c := range []struct {
		in, out Admission
		want    bool
	}{
		{Admission{0, 1, 1, 4}, Admission{1, 1, 0, 4}, true},
		{Admission{1, 2, 4, 4}, Admission{2, 2, 3, 4}, true},
		{Admission{1, 1, 1, 4}, Admission{1, 1, 1, 4}, false},
		{Admission{0, 1, 0, 4}, Admission{0, 1, 0, 4}, false},
		{Admission{3, 1, 1, 4}, Admission{3, 1, 1, 4}, false},
		{Admission{0, 0, 1, 4}, Admission{0, 0, 1, 4}, false},
	} {
		if out, got := c.in.Promote(); got != c.want || out != c.out {
			t.Errorf("%+v: got %+v %t, want %+v %t", c.in, out, got, c.out, c.want)
		}
	}
}

// L6: for any sequence of arrivals and completions the bounds hold, and no request waits while a place is
// free.
func TestAdmissionKeepsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := Admission{MaxInFlight: rapid.IntRange(1, 4).Draw(t, "max"), QueueBound: rapid.IntRange(0, 4).Draw(t, "bound")}
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "arrives") {
				switch a.Admit() {
				case messages.ReasonOK:
					a.InFlight++
				case messages.ReasonAtCapacity:
					a.Queued++
				}
			} else {
				a, _ = a.Complete()
				a, _ = a.Promote()
			}
			if !a.sane() || a.Queued > 0 && a.InFlight < a.MaxInFlight {
				t.Fatalf("got %+v, want counts within their bounds and no waiting request while a place is free", a)
			}
		}
	})
}

// A6: the gate checks lifecycle first, then admission, then resources.
func TestGate(t *testing.T) {
	failed := messages.Observation{Failed: true}
	full := Admission{1, 1, 0, 0}
	at := func(s messages.State) *messages.Snapshot { return &messages.Snapshot{State: s} }
	for name, c := range map[string]struct {
		r    GateRequest
		want messages.Reason
	}{
		"nothing":           {GateRequest{}, messages.ReasonMalformedRequestParams},
		"stopped":           {GateRequest{at(messages.StateStopped), full, messages.ResourceLimits{}, failed, time.Time{}}, messages.ReasonNotReady},
		"starting":          {GateRequest{at(messages.StateStarting), full, messages.ResourceLimits{}, failed, time.Time{}}, messages.ReasonNotReady},
		"draining":          {GateRequest{at(messages.StateDraining), full, messages.ResourceLimits{}, failed, time.Time{}}, messages.ReasonNotReady},
		"no state":          {GateRequest{Snapshot: at("odd")}, messages.ReasonUnknownState},
		"full":              {GateRequest{at(messages.StateReady), full, messages.ResourceLimits{}, failed, time.Time{}}, messages.ReasonQueueFull},
		"broken counts":     {GateRequest{Snapshot: at(messages.StateReady)}, messages.ReasonMalformedAdmissionState},
		"failed, may wait":  {GateRequest{at(messages.StateReady), Admission{1, 1, 0, 1}, messages.ResourceLimits{}, failed, time.Time{}}, messages.ReasonProbeFailed},
		"may wait":          {GateRequest{at(messages.StateReady), Admission{1, 1, 0, 1}, messages.ResourceLimits{}, messages.Observation{}, time.Time{}}, messages.ReasonAtCapacity},
		"may go":            {GateRequest{at(messages.StateReady), Admission{0, 1, 0, 1}, messages.ResourceLimits{}, messages.Observation{}, time.Time{}}, messages.ReasonOK},
		"may go, but load ": {GateRequest{at(messages.StateReady), Admission{0, 1, 0, 1}, messages.ResourceLimits{}, failed, time.Time{}}, messages.ReasonProbeFailed},
	} {
		if got := Gate(c.r); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}
