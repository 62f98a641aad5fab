package openai

import (
	"fmt"
	"math"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// Rules of values that mean something else than what they say: sentinels of several families of programs, and
// values that say what holds anyway (L12).

// noBound is a client's "no limit of mine".
const noBound = -1

// tokenBound is a bound on the answer's tokens, in the field by. More than the context is lowered to it.
type tokenBound struct{ by string }

func (tokenBound) describe() string {
	return "a whole number of at least 1; more than the context is lowered to it; -1 is no limit"
}

func (b tokenBound) read(r *reader) *Error {
	x, err := r.number(b.describe())
	if err != nil {
		return err
	}
	return b.take(r, x, 1, b.describe())
}

// take notes a bound of at least least, as want says.
func (b tokenBound) take(r *reader, x, least float64, want string) *Error {
	if x != math.Trunc(x) || x < least && x != noBound {
		return fault(faultOutOfRange, want)
	}
	limit := int64(min(x, maxWhole))
	if by := r.seen.maxTokensBy; by != "" && limit != r.seen.maxTokens {
		return fault(faultConflict, "another value of "+by)
	}
	r.seen.maxTokens, r.seen.maxTokensBy = limit, b.by
	r.out = strconv.AppendInt(r.out, limit, 10)
	return nil
}

// maxWhole is the largest number up to which a float64 holds every whole number.
const maxWhole = 1 << 53

// seed is a seed of 64 bits. The runtime's has 32: a longer one is folded, so that the same seed still gives the
// same text. -1 is a random one, as when there is none.
type seed struct{}

func (seed) describe() string {
	return "a whole number of 64 bits, of which the runtime gets 32; -1 is a random seed"
}

func (s seed) read(r *reader) *Error {
	numeral, err := r.numeral(s.describe())
	if err != nil {
		return err
	}
	bits, signed := uint64(0), int64(0)
	if unsigned, bad := strconv.ParseUint(string(numeral), 10, 64); bad == nil {
		bits = unsigned
	} else if signed, bad = strconv.ParseInt(string(numeral), 10, 64); bad == nil {
		bits = uint64(signed)
	} else {
		x, err := asFloat(numeral, s.describe())
		if err != nil {
			return err
		}
		if x != math.Trunc(x) || math.Abs(x) > maxWhole {
			return fault(faultOutOfRange, s.describe())
		}
		bits = uint64(int64(x))
	}
	if bits == math.MaxUint64 && numeral[0] == '-' {
		r.omit = true
		return nil
	}
	r.seen.seeded = true
	r.out = strconv.AppendUint(r.out, uint64(foldSeed(bits)), 10)
	return nil
}

// foldSeed makes 32 bits of 64. The runtime takes the largest number for a random seed, so none becomes it.
func foldSeed(bits uint64) uint32 {
	if bits <= math.MaxUint32 {
		return uint32(bits)
	}
	return min(uint32(bits)^uint32(bits>>32), math.MaxUint32-1)
}

// topK is top_k; -1 turns it off in vLLM, 0 in llama.cpp.
type topK struct{}

var topKRange = integer{min: -1, max: 1 << 20}

func (topK) describe() string { return topKRange.describe() }

func (topK) read(r *reader) *Error {
	x, err := topKRange.value(r)
	if err != nil {
		return err
	}
	topKRange.write(r, max(x, 0))
	return nil
}

// window is a number of last tokens; -1 is the context, which the runtime wants as a number.
type window struct{}

func (window) describe() string {
	return "a whole number from -1 to 65536, or to the context"
}

func (w window) read(r *reader) *Error {
	context := int64(r.serving.Model.Context)
	n := integer{min: -1, max: max(1<<16, context)}
	x, err := n.value(r)
	if err != nil {
		return err
	}
	if x == -1 {
		x = context
	}
	n.write(r, x)
	return nil
}

// stop is where the answer ends. An empty text ends nothing and is left out.
type stop struct{}

const maxStops = 32

var (
	stopText = text{max: 256}
	stopList = list{of: stopElement{}, max: maxStops}
)

func (stop) describe() string {
	return stopText.describe() + ", or an array of at most " + strconv.Itoa(maxStops) + "; an empty one is left out"
}

func (s stop) read(r *reader) *Error {
	return either{'"': stopElement{}, '[': stopList}.read(r)
}

type stopElement struct{}

func (stopElement) describe() string { return stopText.describe() }

func (stopElement) read(r *reader) *Error {
	mark := len(r.out)
	if err := stopText.read(r); err != nil {
		return err
	}
	r.omit = len(r.out)-mark == len(`""`)
	return nil
}

// only accepts one value, which says what holds anyway, and leaves it out. why is the reason for which all others
// are refused.
type only struct{ value, why string }

func (o only) describe() string { return "only `" + o.value + "`, which is left out" }

func (o only) read(r *reader) *Error {
	kind := jsontext.Kind(o.value[0])
	number := o.value[0] >= '0' && o.value[0] <= '9'
	if number {
		kind = '0'
	}
	got := r.dec.PeekKind()
	if got == invalid {
		return notJSON()
	}
	if got != kind {
		return fault(faultRefused, o.why)
	}
	raw, err := r.dec.ReadValue()
	if err != nil {
		return notJSON()
	}
	if number {
		x, bad := strconv.ParseFloat(string(raw[:min(len(raw), maxNumeral)]), 64)
		want, _ := strconv.ParseFloat(o.value, 64)
		if bad != nil || x != want {
			return fault(faultRefused, o.why)
		}
	} else if !sameJSON(raw, o.value) || kind == '"' && string(raw) != o.value {
		return fault(faultRefused, o.why)
	}
	r.omit = true
	return nil
}

// sameJSON compares a value with a short one, without spaces.
func sameJSON(raw []byte, want string) bool {
	at := 0
	for _, c := range raw {
		if c == ' ' || c == '\t' || c == '\n' || c == '\r' {
			continue
		}
		if at >= len(want) || want[at] != c {
			return false
		}
		at++
	}
	return at == len(want)
}

// orEmpty leaves an empty array out, and reads others by the rule.
type orEmpty struct{ rule list }

func (o orEmpty) describe() string { return o.rule.describe() }

func (o orEmpty) read(r *reader) *Error {
	if err := r.open('[', "an array"); err != nil {
		return err
	}
	if r.dec.PeekKind() == ']' {
		r.omit = true
		return r.close()
	}
	return o.rule.rest(r)
}

// content is a text, or parts. An empty array counts as an empty text; seen.message.empty records that it was one.
type content struct{ parts list }

func (c content) describe() string {
	return fmt.Sprintf("%s, or %s", text{}.describe(), c.parts.describe())
}

func (c content) read(r *reader) *Error {
	mark := len(r.out)
	switch r.dec.PeekKind() {
	case '"':
		return text{prompt: true}.read(r)
	case '[':
		if err := r.open('[', "an array"); err != nil {
			return err
		}
		if r.dec.PeekKind() != ']' {
			if err := c.parts.rest(r); err != nil || len(r.out)-mark > len("[]") {
				return err
			}
		} else if err := r.close(); err != nil {
			return err
		}
		r.out = append(r.out[:mark], `""`...) // there is none, or each is left out
		r.seen.message.empty = true
		return nil
	}
	if err := r.syntax(); err != nil {
		return err
	}
	return fault(faultWrongType, c.describe())
}
