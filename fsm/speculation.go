package fsm

import "companion/messages"

// Evidence that Speculation needs before it decides, and how fast it forgets older requests.
const (
	speculationRequests = 30
	speculationTokens   = 2000
	speculationMemory   = 0.98
	// speculationLoss is the largest loss that is accepted.
	speculationLoss = 0.02
	// shortAnswer is the number of tokens below which an answer says little about speed.
	shortAnswer = 16
)

// Speculation judges whether speculative decoding makes a runtime slower. The zero value is ready; it is not safe for
// concurrent use.
//
// An answer takes one step for each token that is not an accepted draft token, and each draft token makes its step
// longer:
//
//	time = step × (tokens − accepted) + draft × drafted
//
// A least-squares fit over the answers, weighted by their length, gives step. Without drafts the answers would have
// taken step × tokens. Requests that ran alone and those that shared the runtime have separate fits, because a step
// that computes for several requests takes longer.
type Speculation struct{ alone, shared fit }

// fit holds the sums of one least-squares fit, which decay with each answer.
type fit struct {
	ss, sg, gg, st, gt float64 // of steps, drafted and time, each per token
	tokens, millis     float64
	requests           float64
}

// Observe adds one answer, and reports whether speculative decoding has lost more than 2 % of the time.
func (s *Speculation) Observe(seen messages.Speed, alone bool) (loses bool) {
	if seen.Tokens < shortAnswer || seen.Accepted > seen.Drafted || seen.Accepted > seen.Tokens || seen.Millis <= 0 {
		return false
	}
	f := &s.shared
	if alone {
		f = &s.alone
	}
	f.add(seen)
	return f.loses()
}

func (f *fit) add(seen messages.Speed) {
	for _, sum := range []*float64{&f.ss, &f.sg, &f.gg, &f.st, &f.gt, &f.tokens, &f.millis, &f.requests} {
		*sum *= speculationMemory
	}
	tokens := float64(seen.Tokens)
	steps, drafted, millis := (tokens-float64(seen.Accepted))/tokens, float64(seen.Drafted)/tokens, seen.Millis/tokens
	f.ss += steps * steps
	f.sg += steps * drafted
	f.gg += drafted * drafted
	f.st += steps * millis
	f.gt += drafted * millis
	f.tokens += tokens
	f.millis += seen.Millis
	f.requests++
}

func (f *fit) loses() bool {
	// With forgetting, the sum of requests approaches 1 / (1 - speculationMemory) = 50.
	if f.requests < speculationRequests || f.tokens < speculationTokens {
		return false
	}
	// If all answers have the same share of draft tokens, the fit cannot separate the two times.
	determinant := f.ss*f.gg - f.sg*f.sg
	if determinant <= 1e-3*f.ss*f.gg {
		return false
	}
	step := (f.st*f.gg - f.gt*f.sg) / determinant
	return step > 0 && f.millis > (1+speculationLoss)*step*f.tokens
}
