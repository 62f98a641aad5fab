package openai

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

func (p *patternParser) escape() (fragment, error) {
	if len(p.rest) < 2 {
		return fragment{}, patternUnanchored // the final $ is escaped
	}
	if strings.IndexByte(`^$.[]()|{}*+?`, p.rest[1]) >= 0 {
		c := rune(p.rest[1])
		p.take(2)
		return p.item(setOf(c, c), 1)
	}
	c, n := codePoint(p.rest)
	switch {
	case n == 0 && strings.IndexByte(`\"tnrfv0`, p.rest[1]) >= 0, n > 0 && !inJSON(c):
		return fragment{}, patternJSON
	case n == 0:
		return fragment{}, patternEscape
	}
	// Written as a class: before a quantifier the runtime takes a run of characters apart, and would split an escape.
	p.out = append(append(append(p.out, '['), p.rest[:n]...), ']')
	p.rest = p.rest[n:]
	return p.item(setOf(c, c), 1)
}

// codePoint reads \xHH or \uHHHH and returns its length, or 0 if there is neither.
func codePoint(text []byte) (rune, int) {
	digits := 0
	if len(text) > 1 && text[0] == '\\' {
		digits = map[byte]int{'x': 2, 'u': 4}[text[1]]
	}
	if digits == 0 || len(text) < 2+digits {
		return 0, 0
	}
	x, err := strconv.ParseUint(string(text[2:2+digits]), 16, 32)
	if err != nil || !utf8.ValidRune(rune(x)) {
		return 0, 0
	}
	return rune(x), 2 + digits
}

type runeRange struct{ low, high rune }

// class reads a class. Its ranges stay on the stack.
func (p *patternParser) class() (fragment, error) {
	start := len(p.out)
	p.take(1)
	negated := p.peek() == '^'
	if negated {
		p.take(1)
	}
	var space [maxClassRanges + len(specials)]runeRange
	ranges := space[:0]
	for p.peek() != ']' {
		if len(ranges) == maxClassRanges {
			return fragment{}, patternLong
		}
		low, err := p.classChar(negated)
		if err != nil {
			return fragment{}, err
		}
		high := low
		if len(p.rest) > 1 && p.rest[0] == '-' && p.rest[1] != ']' {
			p.take(1)
			if high, err = p.classChar(negated); err != nil {
				return fragment{}, err
			}
		}
		if high < low {
			return fragment{}, patternRange
		}
		ranges = append(ranges, runeRange{low, high})
	}
	if len(ranges) == 0 {
		return fragment{}, patternEmptyClass
	}
	var outside [maxClassRanges + len(specials)]runeRange
	var set charSet
	for _, r := range ranges {
		set = set.or(setOf(r.low, r.high))
	}
	if negated {
		set = set.not()
		if !excludesSpecials(ranges) {
			if last := len(p.out) - 1; p.out[last] == '-' { // a literal one, which must not begin a range
				p.out = append(p.out[:last], `\x2D`...)
			}
			p.out = append(p.out, jsonSpecials...)
		}
		set = set.and(jsonSafe)
		if !excludesAll(ranges) {
			set[2] |= 1 // something outside ASCII is left
		}
	} else if kept := withoutSpecials(ranges, &outside); !slices.Equal(kept, ranges) {
		p.out = append(p.out[:start], '[')
		for _, r := range kept {
			p.out = appendClassChar(p.out, r.low)
			if r.high > r.low {
				p.out = appendClassChar(append(p.out, '-'), r.high)
			}
		}
		set, ranges = set.and(jsonSafe), kept
		if len(kept) == 0 {
			return fragment{}, patternJSON
		}
	}
	if set == (charSet{}) {
		return fragment{}, patternEmptyClass
	}
	p.take(1)
	return p.item(set, len(ranges))
}

// classChar reads one character of a class; the bracket that ends the class is not one.
func (p *patternParser) classChar(negated bool) (rune, error) {
	if len(p.rest) == 0 {
		return 0, patternBracket
	}
	if p.rest[0] != '\\' {
		c, size := utf8.DecodeRune(p.rest)
		p.take(size)
		return c, nil
	}
	c, n := codePoint(p.rest)
	if n == 0 {
		if len(p.rest) < 2 {
			return 0, patternBracket
		}
		c, n = rune(p.rest[1]), 2
		if c != '[' && c != ']' && (c != '\\' && c != '"' || !negated) {
			if c == '\\' || c == '"' {
				return 0, patternJSON
			}
			return 0, patternClassEscape
		}
	}
	p.take(n)
	return c, nil
}

func appendClassChar(out []byte, c rune) []byte {
	if strings.ContainsRune(`^-[]\"`, c) {
		return append(append(out, `\x`...), strings.ToUpper(strconv.FormatInt(int64(c), 16))...)
	}
	return utf8.AppendRune(out, c)
}

// jsonSpecials are the characters that JSON strings hold only as escapes, and DEL, as in the runtime's
// own rule for strings.
const jsonSpecials = `"\\\x7F\x00-\x1F`

var specials = [...]runeRange{{0, 0x1f}, {'"', '"'}, {'\\', '\\'}, {0x7f, 0x7f}}

func inJSON(c rune) bool {
	return !slices.ContainsFunc(specials[:], func(s runeRange) bool { return s.low <= c && c <= s.high })
}

// withoutSpecials returns ranges without the special characters. space is the memory for the result.
func withoutSpecials(ranges []runeRange, space *[maxClassRanges + len(specials)]runeRange) []runeRange {
	kept := space[:0]
	for _, r := range ranges {
		for _, s := range specials {
			if s.high < r.low || r.high < s.low {
				continue
			}
			if r.low < s.low {
				kept = append(kept, runeRange{r.low, s.low - 1})
			}
			r.low = s.high + 1
			if r.low > r.high {
				break
			}
		}
		if r.low <= r.high {
			kept = append(kept, r)
		}
	}
	return kept
}

func excludesSpecials(ranges []runeRange) bool {
	for _, s := range specials {
		if !slices.ContainsFunc(ranges, func(r runeRange) bool { return r.low <= s.low && s.high <= r.high }) {
			return false
		}
	}
	return true
}

// excludesAll reports whether ranges hold everything outside ASCII.
func excludesAll(ranges []runeRange) bool {
	return slices.ContainsFunc(ranges, func(r runeRange) bool { return r.low <= 0x80 && r.high >= utf8.MaxRune })
}

// charSet is a set of characters: 128 bits for ASCII, and one for all others together.
type charSet [3]uint64

var jsonSafe = func() (s charSet) {
	for c := rune(0); c < 128; c++ {
		if inJSON(c) {
			s[c/64] |= 1 << (c % 64)
		}
	}
	s[2] = 1
	return s
}()

func setOf(low, high rune) (s charSet) {
	for c := low; c <= min(high, 127); c++ {
		s[c/64] |= 1 << (c % 64)
	}
	if high > 127 {
		s[2] = 1
	}
	return s
}

func (s charSet) or(o charSet) charSet    { return charSet{s[0] | o[0], s[1] | o[1], s[2] | o[2]} }
func (s charSet) and(o charSet) charSet   { return charSet{s[0] & o[0], s[1] & o[1], s[2] & o[2]} }
func (s charSet) not() charSet            { return charSet{^s[0], ^s[1], ^s[2] & 1} }
func (s charSet) has(c int) bool          { return s[c/64]>>(c%64)&1 != 0 }
func (s charSet) overlaps(o charSet) bool { return s.and(o) != charSet{} }
