package openai

import (
	"unicode/utf8"
)

// This file defines the subset of regular expressions that may reach llama.cpp.
//
// llama.cpp (common/json-schema-to-grammar.cpp, _visit_pattern) copies most of a pattern into a GBNF
// grammar without parsing it. A quantifier with nothing before it ends the process, an unescaped "]" or
// "}" or a reversed repetition never returns, and several escapes change their meaning. parsePattern
// therefore accepts only what builds b10068 to b10434 convert into a grammar with the same meaning:
//
//   - ^ at the start and $ at the end, and nowhere else
//   - characters; the escapes \^ \$ \. \[ \] \( \) \| \{ \} \* \+ \?; \xHH and \uHHHH
//   - . and classes, in which ranges, \[ \], \xHH and \uHHHH may stand
//   - groups ( ) and (?: ), and alternatives
//   - the quantifiers * + ? {n} {n,} {n,m}, of something that is never empty
//
// The grammar writes characters into a JSON string as they are. So a pattern cannot ask for a double
// quote, a backslash or a control character, and those are taken out of "." and of classes.

const (
	maxPattern      = 4096 // bytes of one pattern
	maxPatternItems = 256  // characters, classes and dots of one pattern
	maxClassRanges  = 128  // characters and ranges of one class
	maxRepetition   = 1999 // the grammar parser refuses 2000, and takes more as unlimited
)

// pattern says what an accepted pattern costs.
type pattern struct {
	text  []byte // what the runtime is given
	items int
	cost  patternCost
}

// patternError is an unsupported construct. It never holds text of the pattern.
type patternError string

func (e patternError) Error() string { return string(e) }

const (
	patternUnanchored    patternError = "a pattern that does not begin with ^ and end with an unescaped $; write ^.*…$ or ^…$"
	patternAnchor        patternError = "^ or $ inside a pattern; escape it"
	patternLookaround    patternError = "a group that begins with (?, except (?:"
	patternUnbalanced    patternError = "an unbalanced parenthesis; escape it"
	patternBracket       patternError = "an unescaped ] or } or an unbalanced [; escape it"
	patternBrace         patternError = "a { that begins no {n}, {n,} or {n,m}; escape it"
	patternNothing       patternError = "a quantifier with nothing before it"
	patternTwice         patternError = "a lazy, possessive or repeated quantifier"
	patternReversed      patternError = "a repetition whose upper bound is below the lower one"
	patternMany          patternError = "a repetition of more than 1999"
	patternEscape        patternError = "an escape of other characters than ^ $ . [ ] ( ) | { } * + ?, \\xHH and \\uHHHH; write \\d as [0-9], \\w as [A-Za-z0-9_], \\s as [ ]"
	patternClassEscape   patternError = "an escape in a class other than \\[ \\] \\xHH and \\uHHHH; write \\d as 0-9, \\w as A-Za-z0-9_, and - first or last"
	patternJSON          patternError = "a double quote, a backslash or a control character, which the runtime would write into JSON without an escape"
	patternEmptyClass    patternError = "a class without characters"
	patternRange         patternError = "a range whose end is before its start"
	patternEmptyRepeated patternError = "a repetition of something that may be empty, or that holds too many repetitions itself"
	patternLong          patternError = "a pattern of more than 4096 bytes or 256 characters, classes and dots, or a class of more than 128 ranges, or groups nested deeper than 32"
	patternAmbiguous     patternError = "alternatives or neighbours that can read the same text in too many ways"
)

// parsePattern checks a pattern and returns the form that the runtime is given. It is the same except for
// classes and dots, from which JSON's special characters are taken out, and for characters before a
// quantifier, which become a class where the runtime would repeat more or less than them.
func parsePattern(source []byte) (pattern, error) {
	n := len(source)
	if n > maxPattern {
		return pattern{}, patternLong
	}
	if n < 2 || source[0] != '^' || source[n-1] != '$' {
		return pattern{}, patternUnanchored
	}
	p := patternParser{rest: source[1 : n-1], out: append(make([]byte, 0, n+16), '^')}
	whole, err := p.alternatives(0)
	switch {
	case err != nil:
		return pattern{}, err
	case len(p.rest) > 0: // only a closing parenthesis ends the outermost alternatives
		return pattern{}, patternUnbalanced
	}
	cost, err := p.weigh(whole)
	return pattern{append(p.out, '$'), p.written, cost}, err
}

// patternParser is a recursive-descent parser. Its depth is bounded by maxPattern.
type patternParser struct {
	rest  []byte
	out   []byte
	items []patternItem
	edges int

	written int // items without those that stand for further repetitions
}

// patternItem is a character, a class or a dot: one place in the pattern that reads one character.
type patternItem struct {
	set     charSet
	entries int     // what the runtime compares a character with
	follow  []int16 // the items that may come next, once for each way to get there
}

// fragment is a parsed part of a pattern.
type fragment struct {
	first, last []int16
	nullable    bool
	unrolled    int // items, with those in repetitions counted as often as the grammar repeats them
	counted     int // rules that the grammar parser makes for repetitions inside
}

func (p *patternParser) peek() byte {
	if len(p.rest) == 0 {
		return 0
	}
	return p.rest[0]
}

func (p *patternParser) take(n int) {
	p.out = append(p.out, p.rest[:n]...)
	p.rest = p.rest[n:]
}

func (p *patternParser) alternatives(depth int) (fragment, error) {
	all, err := p.sequence(depth)
	for err == nil && p.peek() == '|' {
		p.take(1)
		var f fragment
		if f, err = p.sequence(depth); err == nil {
			all.first, all.last = append(all.first, f.first...), append(all.last, f.last...)
			all.nullable = all.nullable || f.nullable
			all.unrolled += f.unrolled
			all.counted += f.counted
		}
	}
	return all, err
}

func (p *patternParser) sequence(depth int) (fragment, error) {
	all := fragment{nullable: true}
	for len(p.rest) > 0 && p.rest[0] != '|' && p.rest[0] != ')' {
		f, err := p.quantified(depth)
		if err == nil {
			err = p.connect(all.last, f.first)
		}
		if err != nil {
			return fragment{}, err
		}
		if all.nullable {
			all.first = append(all.first, f.first...)
		}
		if f.nullable {
			all.last = append(all.last, f.last...)
		} else {
			all.last = f.last
		}
		all.nullable = all.nullable && f.nullable
		all.unrolled += f.unrolled
		all.counted += f.counted
	}
	return all, nil
}

// maxEdges bounds the memory of one pattern's follow lists.
const maxEdges = 1 << 11

func (p *patternParser) connect(from, to []int16) error {
	if p.edges += len(from) * len(to); p.edges > maxEdges {
		return patternAmbiguous
	}
	for _, i := range from {
		p.items[i].follow = append(p.items[i].follow, to...)
	}
	return nil
}

func (p *patternParser) quantified(depth int) (fragment, error) {
	start, single, source, items := len(p.out), p.peek() != '(', p.rest, len(p.items)
	f, err := p.atom(depth)
	if err != nil {
		return fragment{}, err
	}
	source, items = source[:len(source)-len(p.rest)], len(p.items)-items
	low, high, n, err := p.quantifier()
	if err != nil || n == 0 {
		return f, err
	}
	if single {
		p.isolate(start)
	}
	p.take(n)
	if _, _, again, err := p.quantifier(); err != nil || again > 0 {
		return fragment{}, patternTwice
	}
	if copies := max(low, high); copies > 1 && !f.nullable && len(p.items)+(copies-1)*items <= maxUnrolled {
		return p.unroll(f, source, depth, low, high)
	}
	return p.repeat(f, low, high)
}

// isolate rewrites the character that was just written at start, if the runtime would repeat another
// text than it: the whole run of characters before an escape, or the last byte of a character outside ASCII.
func (p *patternParser) isolate(start int) {
	text := p.out[start:]
	if len(text) == 1 || text[0] == '[' {
		return
	}
	class := make([]byte, 0, 16)
	class = append(class, '[')
	if text[0] == '\\' && text[1] != 'x' && text[1] != 'u' {
		class = appendClassChar(class, rune(text[1]))
	} else {
		class = append(class, text...)
	}
	p.out = append(append(p.out[:start], class...), ']')
}

func (p *patternParser) atom(depth int) (fragment, error) {
	switch c := p.rest[0]; c {
	case '(':
		return p.group(depth)
	case '[':
		return p.class()
	case '.':
		p.rest = p.rest[1:]
		p.out = append(append(p.out, "[^"...), jsonSpecials...)
		p.out = append(p.out, ']')
		return p.item(jsonSafe, 4)
	case '*', '+', '?':
		return fragment{}, patternNothing
	case '{':
		if _, _, n, err := p.quantifier(); err == nil && n > 0 {
			return fragment{}, patternNothing
		}
		return fragment{}, patternBrace
	case ']', '}':
		return fragment{}, patternBracket
	case '^', '$':
		return fragment{}, patternAnchor
	case '\\':
		return p.escape()
	}
	c, size := utf8.DecodeRune(p.rest)
	if !inJSON(c) {
		return fragment{}, patternJSON
	}
	p.take(size)
	return p.item(setOf(c, c), 1)
}

func (p *patternParser) item(set charSet, entries int) (fragment, error) {
	if len(p.items) == maxPatternItems {
		return fragment{}, patternLong
	}
	p.written++
	at := []int16{int16(len(p.items))}
	p.items = append(p.items, patternItem{set: set, entries: entries})
	return fragment{first: at, last: at, unrolled: 1}, nil
}

// maxGroups bounds how deep groups are nested.
const maxGroups = 32

func (p *patternParser) group(depth int) (fragment, error) {
	p.take(1)
	if p.peek() == '?' {
		if len(p.rest) < 2 || p.rest[1] != ':' {
			return fragment{}, patternLookaround
		}
		p.take(2)
	}
	if depth == maxGroups {
		return fragment{}, patternLong
	}
	f, err := p.alternatives(depth + 1)
	if err != nil {
		return fragment{}, err
	}
	if p.peek() != ')' {
		return fragment{}, patternUnbalanced
	}
	p.take(1)
	return f, nil
}
