package fsm

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"companion/messages"
)

// L6, A6: exact limits, first in first out.
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
		{Admission{1, 2, 1, 4}, messages.ReasonAtCapacity}, // never overtake
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

// L6: completing more than was admitted is told, and changes nothing.
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

// L6: whatever comes and goes, the bounds hold and a free place never stays empty while one waits.
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
				t.Fatalf("reached %+v", a)
			}
		}
	})
}

// P2, P3: one row per reason and edge, and the order between them, half a second after the first moment.
func TestResources(t *testing.T) {
	at := time.Unix(1, 0)
	type obs = messages.Observation
	all := messages.ResourceLimits{ResidentBytes: 100, GPUBytes: 50, CPUPercent: 80}
	for name, c := range map[string]struct {
		limits messages.ResourceLimits
		seen   obs
		want   messages.Reason
	}{
		"old":                    {all, obs{At: at.Add(-1)}, messages.ReasonProbeFailed},
		"old, no limits":         {messages.ResourceLimits{}, obs{At: at.Add(-time.Hour)}, messages.ReasonOK},
		"from the future":        {all, obs{At: at.Add(Reuse + 1)}, messages.ReasonProbeFailed},
		"within":                 {all, obs{At: at, ResidentBytes: 100, GPUBytes: 50, CPUPercent: 80}, messages.ReasonOK},
		"memory":                 {all, obs{At: at, ResidentBytes: 101, GPUBytes: 51, CPUPercent: 81}, messages.ReasonRAMOverLimit},
		"gpu":                    {all, obs{At: at, ResidentBytes: 100, GPUBytes: 51, CPUPercent: 81}, messages.ReasonVRAMOverLimit},
		"cpu":                    {all, obs{At: at, CPUPercent: 80.1}, messages.ReasonCPUOverLimit},
		"failed probe":           {all, obs{At: at, Failed: true}, messages.ReasonProbeFailed},
		"failed, no limits":      {messages.ResourceLimits{}, obs{At: at, Failed: true}, messages.ReasonProbeFailed},
		"never seen":             {all, obs{}, messages.ReasonMalformedObservation},
		"never seen, no limits":  {messages.ResourceLimits{}, obs{}, messages.ReasonOK},
		"negative memory":        {all, obs{At: at, ResidentBytes: -1}, messages.ReasonMalformedObservation},
		"negative gpu":           {all, obs{At: at, GPUBytes: -1}, messages.ReasonMalformedObservation},
		"negative cpu":           {all, obs{At: at, CPUPercent: -1}, messages.ReasonMalformedObservation},
		"cpu not a number":       {messages.ResourceLimits{}, obs{At: at, CPUPercent: math.NaN()}, messages.ReasonMalformedObservation},
		"cpu infinite":           {all, obs{At: at, CPUPercent: math.Inf(1)}, messages.ReasonMalformedObservation},
		"limit negative":         {messages.ResourceLimits{ResidentBytes: -1}, obs{At: at}, messages.ReasonMalformedLimits},
		"gpu limit negative":     {messages.ResourceLimits{GPUBytes: -1}, obs{At: at}, messages.ReasonMalformedLimits},
		"cpu limit over 100":     {messages.ResourceLimits{CPUPercent: 100.5}, obs{At: at}, messages.ReasonMalformedLimits},
		"cpu limit not a number": {messages.ResourceLimits{CPUPercent: math.NaN()}, obs{At: at, Failed: true}, messages.ReasonMalformedLimits},
	} {
		if got := Resources(c.limits, c.seen, at.Add(Reuse)); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

// A6: lifecycle before admission before resources.
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
