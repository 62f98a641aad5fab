package fsm

import (
	"math"
	"testing"
	"time"

	"companion/messages"
)

// P2, P3: one row per reason and per boundary, and the order of the reasons. at is Reuse before the decision.
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
		"memory alone":           {messages.ResourceLimits{ResidentBytes: 100}, obs{At: at, ResidentBytes: 100, GPUBytes: 1, CPUPercent: 100}, messages.ReasonOK},
		"gpu alone":              {messages.ResourceLimits{GPUBytes: 50}, obs{At: at, ResidentBytes: 1, GPUBytes: 50, CPUPercent: 100}, messages.ReasonOK},
		"cpu alone":              {messages.ResourceLimits{CPUPercent: 80}, obs{At: at, ResidentBytes: 1, GPUBytes: 1, CPUPercent: 80}, messages.ReasonOK},
		"cpu limit of 100":       {messages.ResourceLimits{CPUPercent: 100}, obs{At: at, CPUPercent: 100}, messages.ReasonOK},
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

// P2: an observation is used for half a second.
func TestReuse(t *testing.T) {
	if Reuse != 500*time.Millisecond {
		t.Errorf("Reuse: got %v, want 500ms", Reuse)
	}
}
