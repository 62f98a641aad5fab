package frontdoor

import (
	"testing"
	"time"

	"companion/adapters/door/relay"
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

// X11: tokens, the time to the first token of streams and the time of generation. Progress counts events as they
// come, and the tokens of an answer that is not a stream at its end.
func TestTokens(t *testing.T) {
	var s stats
	began := time.Unix(1700000000, 0)
	s.heard(3)
	s.heard(0)
	s.answered(relay.Tokens{Prompt: 10, Completion: 4}, began, began.Add(time.Second), began.Add(3*time.Second))
	s.answered(relay.Tokens{Prompt: 1, Completion: 5}, began, time.Time{}, began.Add(2*time.Second))
	s.answered(relay.Tokens{Prompt: 7}, began, time.Time{}, began.Add(time.Hour)) // an embedding
	var v messages.DoorView
	s.fill(&v)
	if v.PromptTokens != 18 || v.CompletionTokens != 9 || v.Generating != 4*time.Second || v.Progress != 3+5 {
		t.Errorf("got %d and %d tokens in %v, progress %d; want 18, 9, 4s, 8", v.PromptTokens, v.CompletionTokens, v.Generating, v.Progress)
	}
	if v.FirstCount != 1 || v.FirstSum != time.Second {
		t.Errorf("got %d times to the first token, %v in all; want 1, 1s", v.FirstCount, v.FirstSum)
	}
}
