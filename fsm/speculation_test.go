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

// mixed feeds two kinds of answers by turns: some without draft tokens, some with one rejected draft token for each token.
// Their steps take 10 ms, and each draft token more. It returns after how many Observe reports a loss; 0: never.
func mixed(s *Speculation, n, tokens int, draft float64) int {
	for i := range n {
		seen := messages.Speed{Tokens: tokens, Millis: 10 * float64(tokens)}
		if i%2 == 1 {
			seen.Drafted, seen.Millis = tokens, (10+draft)*float64(tokens)
		}
		if s.Observe(seen, true) {
			return i + 1
		}
	}
	return 0
}

// R12: the verdict comes with the evidence: not before thirty requests and 2 000 tokens, and only for a loss of more than 2 %.
func TestSpeculationEvidence(t *testing.T) {
	for _, tt := range []struct {
		name     string
		tokens   int
		draft    float64
		from, to int // of the answers
	}{
		// Sums decay by 2 % an answer: after n answers, thirty requests are left of n = 46.
		{"many tokens, large loss", 500, 5, 46, 48},
		// 2 000 tokens of answers of 60 are left after 55.
		{"few tokens, large loss", 60, 5, 54, 57},
		{"too few tokens for ever", 39, 5, 0, 0},
		{"loss of 2.5 %", 500, 0.51, 46, 60},
		{"loss of 1.5 %", 500, 0.3, 0, 0},
		{"a gain", 500, -1, 0, 0},
	} {
		var s Speculation
		if got := mixed(&s, 400, tt.tokens, tt.draft); got < tt.from || got > tt.to {
			t.Errorf("%s: got a verdict after %d answers, want %d to %d", tt.name, got, tt.from, tt.to)
		}
	}
}

// R12: numbers at the edge of what can be true are evidence: as many accepted tokens as draft tokens, or as all tokens, and the
// shortest answer that counts.
func TestSpeculationEdges(t *testing.T) {
	for name, seen := range map[string]messages.Speed{
		"all draft tokens accepted": {Tokens: 100, Millis: 10, Drafted: 40, Accepted: 40},
		"all tokens accepted":       {Tokens: 100, Millis: 10, Drafted: 120, Accepted: 100},
		"shortest":                  {Tokens: shortAnswer, Millis: 10, Drafted: 8},
		"a short time":              {Tokens: 100, Millis: 1e-9, Drafted: 8},
	} {
		var s Speculation
		s.Observe(seen, true)
		if s.alone.requests != 1 || s.shared.requests != 0 {
			t.Errorf("%s: got %v and %v requests counted, want 1 and 0", name, s.alone.requests, s.shared.requests)
		}
	}
	var s Speculation
	if s.Observe(messages.Speed{Tokens: 100, Drafted: 8}, true); s.alone.requests != 0 {
		t.Errorf("no time: got %v requests counted, want 0", s.alone.requests)
	}
}

// R12: what a verdict needs, at the bounds themselves.
func TestSpeculationBounds(t *testing.T) {
	loss := float64(speculationLoss)
	// A step takes 1 ms, and half of what was drafted was for nothing.
	losing := fit{ss: 1, gg: 1, st: 1, tokens: speculationTokens, millis: 2 * speculationTokens, requests: speculationRequests}
	for name, tt := range map[string]struct {
		change func(*fit)
		want   bool
	}{
		"enough of everything": {func(*fit) {}, true},
		"one request less":     {func(f *fit) { f.requests-- }, false},
		"one token less":       {func(f *fit) { f.tokens-- }, false},
		"a loss of 2 %":        {func(f *fit) { f.millis = (1 + loss) * f.tokens }, false},
		"more than 2 %":        {func(f *fit) { f.millis = (1+loss)*f.tokens + 1 }, true},
		"steps take no time":   {func(f *fit) { f.st = 0 }, false},
		"small sums":           {func(f *fit) { f.ss, f.gg, f.st = 0.01, 0.01, 0.01 }, true},
		// ss × gg − sg² is a thousandth of ss × gg.
		"one share of drafts": {func(f *fit) { f.ss, f.gg, f.sg, f.st, f.gt = 999, 1000, 999, 999, 999 }, false},
		"a little more":       {func(f *fit) { f.ss, f.gg, f.sg, f.st, f.gt = 999, 1000, 998.9, 999, 998.9 }, true},
	} {
		f := losing
		tt.change(&f)
		if got := f.loses(); got != tt.want {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}

// R12: the fit gives back the two times that the answers were made of.
func TestSpeculationFit(t *testing.T) {
	var f fit
	for i := range 100 {
		tokens, drafted := 100, i
		accepted := i / 3
		f.add(messages.Speed{Tokens: tokens, Drafted: drafted, Accepted: accepted, Millis: 7*float64(tokens-accepted) + 3*float64(drafted)})
	}
	determinant := f.ss*f.gg - f.sg*f.sg
	step, draft := (f.st*f.gg-f.gt*f.sg)/determinant, (f.gt*f.ss-f.st*f.sg)/determinant
	if step < 6.999 || step > 7.001 || draft < 2.999 || draft > 3.001 {
		t.Errorf("got %v ms a step and %v ms a draft token, want 7 and 3", step, draft)
	}
	if f.tokens < 4300 || f.tokens > 4350 || f.requests < 43 || f.requests > 43.5 { // (1 - 0.98^100) / 0.02 = 43.37
		t.Errorf("got %v tokens and %v requests, want 4337 and 43.37", f.tokens, f.requests)
	}
}
