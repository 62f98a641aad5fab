package frontdoor

import (
	"testing"
	"time"

	"companion/messages"
)

// Issue 4: the histogram counts every request, also those over its last bound, and has their sum.
func TestLatency(t *testing.T) {
	var s stats
	for _, took := range []time.Duration{0, time.Millisecond, time.Millisecond + 1, 5 * time.Minute, time.Hour} {
		s.took(took)
	}
	var v messages.DoorView
	s.fill(&v)
	if v.LatencyCount != 5 || v.LatencySum != time.Hour+5*time.Minute+2*time.Millisecond+1 || len(v.Latency) != len(bucketBounds) {
		t.Errorf("got %+v, want five requests, their exact sum and every bound", v)
	}
	for upTo, want := range map[time.Duration]int64{time.Millisecond: 2, 2 * time.Millisecond: 3, time.Minute: 3, 5 * time.Minute: 4} {
		for _, b := range v.Latency {
			if b.UpTo == upTo && b.Count != want {
				t.Errorf("up to %v: %d, want %d", upTo, b.Count, want)
			}
		}
	}
}
