package openai

import (
	"fmt"
)

// samplers is the order of the samplers. The runtime makes one for each name, so each name may come once.
type samplers struct {
	infill bool // the sampler for filling in the middle may be there
}

var samplerName = oneOf("dry", "top_k", "typ_p", "top_p", "top_n_sigma", "min_p", "xtc", "temperature", "penalties")

func (s samplers) names() choice {
	name := samplerName
	if s.infill {
		name.words = append(append([]string{}, name.words...), "infill")
	}
	return name
}

func (s samplers) describe() string {
	return "an array of different names: " + s.names().describe()
}

func (s samplers) read(r *reader) *Error {
	if err := r.open('[', "an array"); err != nil {
		return err
	}
	there := map[string]bool{}
	for n := 0; r.dec.PeekKind() != ']'; n++ {
		r.comma()
		name := s.names()
		twice := false
		name.note = func(_ *seen, w string) { twice, there[w] = there[w], true }
		if err := name.read(r); err != nil {
			return err.index(n)
		}
		if twice {
			return fault(faultTwice, "").index(n)
		}
	}
	return r.close()
}

// breakers is dry_sequence_breakers. The runtime looks for each in all tokens of the vocabulary before each answer.
// That takes it about 0.2 s for a breaker and a vocabulary of 262144 tokens.
type breakers struct{}

const (
	maxBreakers     = 4 // as many as the runtime's own
	maxBreakerBytes = 16
	ownBreakers     = 4
	// maxBreakerScans bounds the breakers of all answers of a request.
	maxBreakerScans = 8
)

var breakerList = list{of: text{min: 1, max: maxBreakerBytes}, min: 1, max: maxBreakers}

func (breakers) describe() string { return breakerList.describe() }

func (breakers) read(r *reader) *Error {
	if err := r.open('[', "an array"); err != nil {
		return err
	}
	r.seen.breakers = 0
	counted := breakerList
	counted.of = countedBreaker{}
	return counted.rest(r)
}

type countedBreaker struct{}

func (countedBreaker) describe() string { return breakerList.of.describe() }

func (countedBreaker) read(r *reader) *Error {
	r.seen.breakers++
	return breakerList.of.read(r)
}

// checkDry bounds what the runtime prepares for dry before the first token.
func (r *reader) checkDry() *Error {
	if !r.seen.dry {
		return nil
	}
	each := r.seen.breakers
	if each == noBound {
		each = ownBreakers
	}
	if scans := each * r.seen.sequences(); scans > maxBreakerScans {
		return fault(faultRefused, fmt.Sprintf("%d breakers for %d answers are %d, and one request may have %d; send one request for each answer, or fewer dry_sequence_breakers",
			each, r.seen.sequences(), scans, maxBreakerScans)).at("dry_multiplier")
	}
	return nil
}

// sequences is how many answers the runtime makes for the request: one in each slot.
func (s *seen) sequences() int { return max(1, s.answers) * max(1, s.prompts) }
