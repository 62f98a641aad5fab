package openai

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"companion/messages"
)

// readBy reads a value by a rule and returns what the runtime gets, or the refusal.
func readBy(rule rule, value string) (string, *Error) {
	r := readers.New().(*reader)
	r.source = *bytes.NewBufferString(value)
	r.dec.Reset(&r.source, jsontext.AllowDuplicateNames(true))
	r.serving = serving
	r.schemas.reset()
	err := rule.read(r)
	return string(r.out), err
}

// formatOf is a request for an answer of a schema.
func formatOf(schema string) []byte {
	return []byte(`{` + hi + `,"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":` + schema + `}}}`)
}

// L6a: the largest accepted value of each bound, and the smallest refused one.
func TestBounds(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	fields := func(n int) string { return repeated("{"+hi+",", n, `"unknown%d":1`, "}") }
	dropping := serving
	dropping.DropUnknown = true
	chat := func(field string) []byte { return []byte(`{` + hi + `,` + field + `}`) }
	for name, c := range map[string]struct {
		last    int
		body    func(n int) []byte
		serving Serving
		fault   faultKind
	}{
		"members of the body":   {maxMembers - 1, func(n int) []byte { return []byte(fields(n)) }, dropping, faultTooMany},
		"bytes of a number":     {maxNumeral, func(n int) []byte { return chat(`"temperature":1.` + strings.Repeat("0", n-2)) }, serving, faultTooLong},
		"entries of logit_bias": {biases.max, func(n int) []byte { return chat(repeated(`"logit_bias":{`, n, `"%d":1`, `}`)) }, serving, faultTooMany},
		"token of logit_bias":   {1 << 20, func(n int) []byte { return chat(fmt.Sprintf(`"logit_bias":{"%d":1}`, n)) }, serving, faultUnknown},
		"top_logprobs":          {20, func(n int) []byte { return chat(fmt.Sprintf(`"logprobs":true,"top_logprobs":%d`, n)) }, serving, faultOutOfRange},
		"bytes of a schema":     {maxSchema, func(n int) []byte { return formatOf(`{"description":"` + x(n-17) + `"}`) }, serving, faultTooLong},
		"bytes of a keyword":    {maxPropertyName, func(n int) []byte { return formatOf(`{"` + x(n) + `":1}`) }, serving, faultTooLong},
		"bytes of a property":   {maxPropertyName, func(n int) []byte { return formatOf(`{"properties":{"` + x(n) + `":{}}}`) }, serving, faultTooLong},
		"bytes of a format":     {maxPropertyName, func(n int) []byte { return formatOf(`{"format":"` + x(n) + `"}`) }, serving, faultTooLong},
		"bytes of a reference": {maxPropertyName, func(n int) []byte {
			return formatOf(`{"$ref":"#/$defs/` + x(n-8) + `","$defs":{"` + x(n-8) + `":{}}}`)
		}, serving, faultTooLong},
		"required names": {maxProperties, func(n int) []byte { return formatOf(repeated(`{"required":[`, n, `"a%d"`, `]}`)) }, serving, faultTooMany},
		"items of all patterns": {maxPatternTotal, func(n int) []byte {
			pattern := func(n int) string { return `{"pattern":"^` + x(n) + `$"}` }
			return formatOf(repeated(`{"prefixItems":[`, n/maxPatternItems, pattern(maxPatternItems), `,`) + pattern(max(n%maxPatternItems, 0)) + `]}`)
		}, serving, faultTooManyItems},
		"cost of the grammar": {maxBuild, func(n int) []byte { return formatOf(`{"const":"` + x((n-buildSchema)/buildLiteral-2) + `"}`) }, serving, faultTooCostly},
	} {
		if _, _, err := Check(Chat, c.body(c.last), c.serving, nil); err != nil {
			t.Errorf("%s: got %v for %d, want it to pass", name, err, c.last)
		}
		over := c.last + 1
		if name == "cost of the grammar" {
			over = c.last + buildLiteral
		}
		if _, _, err := Check(Chat, c.body(over), c.serving, nil); err == nil || err.fault != c.fault {
			t.Errorf("%s: got %v for %d, want the fault %d", name, err, over, c.fault)
		}
	}
}

// L6a, T16: the costs of all schemas of a request add up, and the search for left recursion is bounded.
func TestSummedCosts(t *testing.T) {
	large := `{"properties":{"a":{"const":"` + strings.Repeat("x", 40_000) + `"}}}`
	second := strings.Replace(toolWith(large), `"name":"`, `"name":"second`, 1)
	for _, c := range []struct {
		name string
		body []byte
		want bool
	}{{"one tool", []byte(`{` + hi + `,"tools":[` + toolWith(large) + `]}`), false}, {"two tools", []byte(`{` + hi + `,"tools":[` + toolWith(large) + `,` + second + `]}`), true}} {
		_, _, err := Check(Chat, c.body, serving, nil)
		if got := err != nil && err.fault == faultTooCostly; got != c.want {
			t.Errorf("%s: got %v, want too costly %v", c.name, err, c.want)
		}
	}
	// 99 references to 1000 alternatives cost 99 × 1002 steps, each further alternative one.
	steps := func(more int) []byte {
		return formatOf(`{"$ref":"#/$defs/all","$defs":{"all":{"anyOf":[` + strings.Repeat(`{"$ref":"#/$defs/part"},`, 99) +
			repeated("", more, `{"type":"null"}`, "") + repeated(`]},"part":{"anyOf":[`, 1000, `{"type":"null"}`, `]}}}`))
	}
	for more, want := range map[int]faultKind{maxLeft - 1 - 99*1002: faultAmbiguous, maxLeft - 99*1002: faultTooCostly} {
		if _, _, err := Check(Chat, steps(more), serving, nil); err == nil || err.fault != want {
			t.Errorf("%d more alternatives: got %v, want the fault %d", more, err, want)
		}
	}
}

// L6a: alternatives that may read the same value, and ways to read one token.
func TestAmbiguousAlternatives(t *testing.T) {
	any := func(schemas ...string) string { return `{"anyOf":[` + strings.Join(schemas, ",") + `]}` }
	texts := func(n int) []string { return slices.Repeat([]string{`{"type":"string"}`}, n) }
	// As many paths as items: the first two may read the same character.
	paths := slices.Repeat([]string{`{"pattern":"^[ab]*b` + strings.Repeat("c", maxPatternItems-2) + `$"}`}, maxPaths/maxPatternItems)
	for _, c := range []struct {
		name, schema string
		accepted     bool
		fault        faultKind
	}{
		{"copies", any(texts(maxCopies)...), true, 0},
		{"one copy more", any(texts(maxCopies + 1)...), false, faultAmbiguous},
		{"paths", any(paths...), false, faultTooManyAlternatives},
		{"one path more", any(append(texts(1), paths...)...), false, faultAmbiguous},
	} {
		_, _, err := Check(Chat, formatOf(c.schema), serving, nil)
		if (err == nil) != c.accepted || err != nil && err.fault != c.fault {
			t.Errorf("%s: got %v, want accepted %v or the fault %d", c.name, err, c.accepted, c.fault)
		}
	}
}

// L6a: with several answers the error names the alternatives that each may have.
func TestAlternativesOfSeveralAnswers(t *testing.T) {
	body := bytes.Replace(formatOf(repeated(`{"enum":[`, 100, `"a%d"`, `]}`)), []byte("{"), []byte(`{"n":2,`), 1)
	if _, _, err := Check(Chat, body, serving, nil); err == nil || err.limit != fmt.Sprint(maxWidth/2) {
		t.Errorf("got %v, want the limit %d", err, maxWidth/2)
	}
}

// L6a, R10: brackets of arguments that are not JSON are counted outside of strings.
func TestNesting(t *testing.T) {
	for text, want := range map[string]int{
		``: 0, `[]`: 1, `[{}]`: 2, `[][][`: 1, `{}{}{`: 1, `]][`: 1, `}}{{`: 2, `[}[`: 1, `"[["`: 0, `"\"[["[`: 1, `"\\"[[`: 2, `a\"[`: 0, `\[`: 1, `["]["[`: 2,
	} {
		if got := nesting([]byte(text)); got != want {
			t.Errorf("nesting(%q) = %d, want %d", text, got, want)
		}
	}
	for n, want := range map[int]bool{maxDepth: true, maxDepth + 1: false} {
		_, _, err := Check(Chat, []byte(callsWith("x" + strings.Repeat("[", n))[Chat]), serving, nil)
		if got := err == nil; got != want {
			t.Errorf("%d levels: got %v, want accepted %v", n, err, want)
		}
	}
}

// L10: an error shows the printable characters of a name, and the field with its place.
func TestErrorNames(t *testing.T) {
	for name, want := range map[string]string{" ~": " ~", "\x1f\x7f": "??", "é": "?", strings.Repeat("a", maxShown+1): strings.Repeat("a", maxShown)} {
		if got := shown(name); got != want {
			t.Errorf("shown(%q) = %q, want %q", name, got, want)
		}
	}
	for param, want := range map[string]string{"": "The body", "a": "`a`", "a.b": "`b` in a", ".a": "`.a`", "a.": "`a.`", "a.b.c": "`c` in a.b"} {
		if got := (&Error{Param: param}).field(); got != want {
			t.Errorf("the field of %q: got %q, want %q", param, got, want)
		}
	}
}

// L6a: bytes that are letters or digits.
func TestAlphanumeric(t *testing.T) {
	const all = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	for c := range 256 {
		if got, want := alphanumeric(byte(c)), strings.IndexByte(all, byte(c)) >= 0; got != want {
			t.Errorf("alphanumeric(%q) = %v, want %v", rune(c), got, want)
		}
	}
	for name, want := range map[string]bool{"a_.$@:/ ,9": true, "a-b": false, "ä": false, "": true} {
		if got := plainName(name); got != want {
			t.Errorf("plainName(%q) = %v, want %v", name, got, want)
		}
	}
}

// L6a: values at the ends of ranges, and the forms of numbers.
func TestReadValues(t *testing.T) {
	for _, c := range []struct {
		rule        rule
		value, want string
		refused     bool
	}{
		{number{-2, 2}, "-2", "-2", false}, {number{-2, 2}, "2.0", "2", false}, {number{-2, 2}, "-2.01", "", true}, {number{-2, 2}, "2.01", "", true},
		{text{max: 3}, `"abc"`, `"abc"`, false}, {text{max: 3}, `"abcd"`, "", true},
		{only{"0", "why"}, "0.0", "", false}, {only{"0", "why"}, "1", "", true}, {only{"9", "why"}, "9.0", "", false}, {only{"9", "why"}, "0", "", true},
		{only{"{}", "why"}, "{ }", "", false}, {only{`"ab"`, "why"}, `"a b"`, "", true}, {only{`"ab"`, "why"}, `"ab"`, "", false},
	} {
		got, err := readBy(c.rule, c.value)
		if got != c.want && !c.refused || (err != nil) != c.refused {
			t.Errorf("%T reads %s as %q, %v, want %q, refused %v", c.rule, c.value, got, err, c.want, c.refused)
		}
	}
	for x, want := range map[float64]string{9_999_999: "9999999", 1e7: "1e+07", -9_999_999: "-9999999", -1e7: "-1e+07", 2.5: "2.5"} {
		if got := string(appendNumber(nil, x)); got != want {
			t.Errorf("appendNumber(%v) = %s, want %s", x, got, want)
		}
	}
	if got, want := (number{-2.25, 1.125}).describe(), "a number from -2.25 to 1.125"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for bits, want := range map[uint64]uint32{1<<32 - 1: 1<<32 - 1, 1 << 32: 1, 1<<32 - 2: 1<<32 - 2} {
		if got := foldSeed(bits); got != want {
			t.Errorf("foldSeed(%d) = %d, want %d", bits, got, want)
		}
	}
	for _, c := range []struct {
		json, value string
		want        bool
	}{{"{ }", "{}", true}, {"{}x", "{}", false}, {"{", "{}", false}} {
		if got := sameJSON([]byte(c.json), c.value); got != c.want {
			t.Errorf("sameJSON(%q, %q) = %v, want %v", c.json, c.value, got, c.want)
		}
	}
}

// L6a: whole numbers up to 2^53 are seeds in any form; top_logprobs 0 needs no logprobs; a model without a known context
// refuses no prompt.
func TestReadRequests(t *testing.T) {
	unknown := serving
	unknown.Model = messages.Model{}
	for body, c := range map[string]struct {
		serving Serving
		refused bool
	}{
		`{` + hi + `,"seed":9007199254740992.0}`: {serving, false},
		`{` + hi + `,"seed":9007199254740994.0}`: {serving, true},
		`{` + hi + `,"top_logprobs":0}`:          {serving, false},
		`{` + hi + `,"top_logprobs":1}`:          {serving, true},
	} {
		if _, _, err := Check(Chat, []byte(body), c.serving, nil); (err != nil) != c.refused {
			t.Errorf("%s: got %v, want refused %v", body, err, c.refused)
		}
	}
	r := &reader{serving: unknown, seen: seen{pieces: 5, textBytes: 5000}}
	if err := r.checkFit(); err != nil {
		t.Errorf("without a known context: got %v, want no refusal", err)
	}
}

// L6a: patterns at the bounds of their length and of the memory of their edges, and ones that end too early. A pattern
// is read within its slice.
func TestPatternBounds(t *testing.T) {
	escapes := func(n int) string { return `[` + strings.Repeat(`\u0041`, n) + `]` }
	longest := `^` + strings.Repeat(escapes(40), 16) + escapes(36) + `aaaa$`
	if len(longest) != maxPattern {
		t.Fatalf("got a pattern of %d bytes, want %d", len(longest), maxPattern)
	}
	group := func(first byte) string {
		var all []string
		for c := range byte(32) {
			all = append(all, fmt.Sprintf(`[\x%X]`, first+c))
		}
		return `(` + strings.Join(all, "|") + `)`
	}
	edges := `^` + group('@') + group('`'-1) + group('@')
	for pattern, want := range map[string]error{
		longest: nil, strings.Replace(longest, "aaaa", "aaaaa", 1): patternLong,
		`^[a-$`: patternBracket, `^[\d$`: patternClassEscape, `^\u$`: patternEscape, `^\x$`: patternEscape, `^[\u$`: patternClassEscape,
		strings.ReplaceAll(strings.ReplaceAll(edges, `[\x5C]`, `x`), `[\x7F]`, `y`) + `$`:  nil,
		strings.ReplaceAll(strings.ReplaceAll(edges, `[\x5C]`, `x`), `[\x7F]`, `y`) + `z$`: patternAmbiguous,
	} {
		if _, err := parsePattern(slices.Clip([]byte(pattern))); !errors.Is(err, want) {
			t.Errorf("%.60q: got %v, want %v", pattern, err, want)
		}
	}
}

// L9: the memory for a text in quotes is counted exactly, with a control character in its longest form.
func TestQuotedSize(t *testing.T) {
	for text, want := range map[string]int{"": 2, "a": 3, " ": 3, `"`: 4, `\`: 4, "!#[]": 6, "\x00": 8, "\x1f\x1f": 14} {
		if got := quotedSize([]byte(text)); got != want {
			t.Errorf("quotedSize(%q) = %d, want %d", text, got, want)
		}
	}
}
