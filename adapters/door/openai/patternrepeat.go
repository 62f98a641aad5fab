package openai

import (
	"slices"
	"strconv"
	"strings"
)

// maxUnrolled bounds the items of a pattern with those that stand for further repetitions of others.
const maxUnrolled = 128

// unroll makes items for each repetition, so that weigh can tell them apart.
func (p *patternParser) unroll(f fragment, source []byte, depth, low, high int) (fragment, error) {
	all, last := f, f.last
	if low > 1 {
		all.last = nil
	}
	rest, out, written := p.rest, p.out, p.written
	for i := 2; i <= max(low, high); i++ {
		p.rest = source
		next, err := p.atom(depth)
		if err == nil {
			err = p.connect(last, next.first)
		}
		if err != nil {
			return fragment{}, err
		}
		if last = next.last; i >= low {
			all.last = append(slices.Clone(all.last), last...)
		}
		f.first = next.first
	}
	p.rest, p.out, p.written = rest, out, written
	if high == unlimited {
		if err := p.connect(last, f.first); err != nil {
			return fragment{}, err
		}
	}
	return p.repeated(all, low, high)
}

// unlimited is the upper bound of *, + and {n,}.
const unlimited = -1

func (p *patternParser) repeat(f fragment, low, high int) (fragment, error) {
	if high != 0 && high != 1 {
		if f.nullable {
			return fragment{}, patternEmptyRepeated
		}
		if err := p.connect(f.last, f.first); err != nil {
			return fragment{}, err
		}
	}
	if high == 0 {
		return fragment{nullable: true}, nil
	}
	return p.repeated(f, low, high)
}

// repeated counts what a repetition costs.
func (p *patternParser) repeated(f fragment, low, high int) (fragment, error) {
	times := high
	if high == unlimited {
		times = low + 1
	}
	// The grammar parser multiplies the rules of a group by its repetitions and refuses 2000.
	if high == unlimited && f.counted >= maxRepetition-maxPatternItems {
		return fragment{}, patternEmptyRepeated
	}
	f.nullable = f.nullable || low == 0
	f.unrolled = min(f.unrolled*times, 1<<20)
	f.counted = min(f.counted+times, 1<<20)
	return f, nil
}

// quantifier reads a quantifier and returns its bounds and its length, which is 0 if there is none.
func (p *patternParser) quantifier() (low, high, n int, err error) {
	switch p.peek() {
	case '*':
		return 0, unlimited, 1, nil
	case '+':
		return 1, unlimited, 1, nil
	case '?':
		return 0, 1, 1, nil
	case '{':
	default:
		return 0, 0, 0, nil
	}
	end := slices.Index(p.rest, '}')
	if end < 0 {
		return 0, 0, 0, patternBrace
	}
	from, to, open := strings.Cut(string(p.rest[1:end]), ",")
	if low, err = repetition(from); err != nil {
		return 0, 0, 0, err
	}
	switch {
	case !open:
		high = low
	case to == "":
		high = unlimited
	default:
		if high, err = repetition(to); err != nil {
			return 0, 0, 0, err
		}
		if high < low {
			return 0, 0, 0, patternReversed
		}
	}
	return low, high, end + 1, nil
}

func repetition(digits string) (int, error) {
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, patternBrace
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n > maxRepetition {
		return 0, patternMany
	}
	return n, nil
}
