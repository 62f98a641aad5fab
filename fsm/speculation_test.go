package fsm

import (
	"math/rand/v2"
	"testing"

	"companion/messages"
)

// answers feeds n answers whose steps take step ms, and each draft token draft ms more, with noise of a tenth, and
// returns after how many Observe reports a loss; 0: never.
func answers(s *Speculation, n int, step, draft, accepted float64, alone bool) int {
	random := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		tokens := 40 + random.IntN(160)
		drafted := int(float64(tokens) * random.Float64() * 0.6)
		right := int(float64(drafted) * accepted)
		millis := (step*float64(tokens-right) + draft*float64(drafted)) * (0.9 + 0.2*random.Float64())
		if s.Observe(messages.Speed{Tokens: tokens, Millis: millis, Drafted: drafted, Accepted: right}, alone) {
			return i + 1
		}
	}
	return 0
}

// R12: speculation is judged to lose only where rejected draft tokens cost more than accepted ones save, after enough
// answers.
func TestSpeculationLoses(t *testing.T) {
	for _, tt := range []struct {
		name                  string
		step, draft, accepted float64
		loses                 bool
	}{
		{"cheap drafts, most accepted", 10, 1, 0.8, false},
		{"cheap drafts, most rejected", 10, 1, 0.2, false},
		{"drafts as expensive as steps, most accepted", 10, 5, 0.8, false},
		{"drafts as expensive as steps, most rejected", 10, 8, 0.2, true},
		{"drafts that are never accepted", 10, 3, 0, true},
	} {
		for _, alone := range []bool{true, false} {
			var s Speculation
			at := answers(&s, 200, tt.step, tt.draft, tt.accepted, alone)
			if (at != 0) != tt.loses {
				t.Errorf("%s, alone %v: got a loss after %d answers, want one: %v", tt.name, alone, at, tt.loses)
			}
			if at != 0 && at < speculationRequests {
				t.Errorf("%s: got a loss after %d answers, want at least %d", tt.name, at, speculationRequests)
			}
		}
	}
}

// R12: answers that cannot be judged decide nothing: short ones, impossible numbers, and answers without draft
// tokens.
func TestSpeculationWithoutEvidence(t *testing.T) {
	for name, seen := range map[string]messages.Speed{
		"short":                 {Tokens: shortAnswer - 1, Millis: 1e6, Drafted: 15},
		"no time":               {Tokens: 100, Drafted: 90},
		"accepted over drafted": {Tokens: 100, Millis: 1e6, Drafted: 1, Accepted: 2},
		"accepted over tokens":  {Tokens: 20, Millis: 1e6, Drafted: 90, Accepted: 80},
		"no drafts":             {Tokens: 100, Millis: 1e3},
		"one share of drafts":   {Tokens: 100, Millis: 1e6, Drafted: 50},
	} {
		var s Speculation
		for range 200 {
			if s.Observe(seen, true) {
				t.Errorf("%s: got a loss, want no verdict", name)
				break
			}
		}
	}
}
