package openai

import (
	"errors"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// L6a: each construct that llama.cpp cannot read is refused by its name. Found with its source and by sending
// patterns to builds b10092 and b10434: the first group ends the process, the second never returns, the third
// is refused by the runtime without a place, and the fourth is read with another meaning.
func TestPatternsRefused(t *testing.T) {
	for want, patterns := range map[patternError][]string{
		patternNothing: {`^*$`, `^+$`, `^?$`, `^{2}$`, `^(*a)$`, `^(?:+)$`, `^a|*$`, `^(|?)$`},

		patternReversed:   {`^a{3,2}$`, `^(ab){1,0}$`},
		patternBracket:    {`^}$`, `^]$`, `^a}$`, `^[[:alpha:]]$`, `^[a-z&&[b]]$`, `^[a$`, `^[a\$`, `^[$`},
		patternEmptyClass: {`^[]$`, `^[^]$`, `^[]a]$`, `^[^]a]$`},

		patternUnanchored:    {``, `^`, `$`, `a`, `^a`, `a$`, `^a\$`, `^\$`},
		patternMany:          {`^a{2000}$`, `^a{0,3000}$`, `^a{99999999999999999999}$`},
		patternBrace:         {`^a{$`, `^a{}$`, `^a{,}$`, `^a{,3}$`, `^a{x}$`, `^a{1,2,3}$`, `^a{-1}$`, `^a{ 2 }$`, `^{$`, `^a{1,x}$`},
		patternEscape:        {`^\d$`, `^\w+$`, `^\s$`, `^\b$`, `^\/$`, `^\-$`, `^\1$`, `^\p{L}$`, `^\xZZ$`, `^\u12$`, `^\ud800$`, `^\'$`},
		patternClassEscape:   {`^[\d]$`, `^[\w]$`, `^[\.]$`, `^[\-]$`, `^[\^]$`, `^[a-\d]$`},
		patternEmptyRepeated: {`^(a*)*$`, `^()*$`, `^(a?b?)+$`, `^(a|){2}$`, `^(a{0,5}){3,}$`},

		patternTwice:      {`^a*?$`, `^a+?$`, `^a??$`, `^a++$`, `^a**$`, `^a{2}{3}$`, `^a{2}?$`, `^a*{2}$`},
		patternAnchor:     {`^a^b$`, `^a$b$`, `^(^a)$`, `^(a$)$`, `^$$`},
		patternLookaround: {`^(?=a)a$`, `^(?!a)b$`, `^(?<=a)b$`, `^(?i)a$`, `^(?P<n>a)$`, `^(?<n>a)$`, `^(?$`},
		patternUnbalanced: {`^(a$`, `^a)$`, `^a)b$`, `^((a)$`, `^(a))$`, `^($`, `^)$`},
		patternJSON:       {`^"$`, `^a"b$`, `^\\$`, `^\"$`, `^\n$`, `^\t$`, "^\n$", "^a\x00b$", "^\x7f$", `^["]$`, `^[\\]$`, `^[\"]$`, "^[\x01-\x1f]$", `^\x22$`, `^\u005c$`, `^\x0a$`},
		patternRange:      {`^[z-a]$`, `^[\x42-A]$`},
		patternAmbiguous: {`^(a+)+$`, `^(=|==)*x$`, `^( | )*$`, `^(-|-){0,20}x$`, `^(a|a){9,}$`, `^([a-z]+[a-z0-9]+)+$`, `^(.*a.*b)*$`,
			`^` + strings.Repeat(`a?`, 120) + `$`, `^` + strings.Repeat(`.*`, 12) + `x$`},
		patternLong: {`^` + strings.Repeat(`a`, maxPatternItems+1) + `$`, `^` + strings.Repeat(`(`, maxGroups+1) + strings.Repeat(`)`, maxGroups+1) + `$`,
			`^[` + strings.Repeat(`ab`, maxClassRanges) + `]$`, `^[` + strings.Repeat(`a`, maxPattern) + `]$`},
	} {
		for _, p := range patterns {
			if got, err := parsePattern([]byte(p)); !errors.Is(err, want) {
				t.Errorf("%.80q: got %q, %v; want %v", p, got.text, err, want)
			}
		}
	}
}

// L6a: a pattern that the runtime reads correctly is passed on unchanged; another in a form that it reads correctly.
func TestPatternsAccepted(t *testing.T) {
	const dot = `[^"\\\x7F\x00-\x1F]`
	for p, want := range map[string]string{
		`^$`: `^$`, `^abc$`: `^abc$`, `^(a|)$`: `^(a|)$`, `^()$`: `^()$`, `^a|b$`: `^a|b$`, `^[a-z]{2,5}$`: `^[a-z]{2,5}$`, `^a{0}$`: `^a{0}$`, `^a{1999}$`: `^a{1999}$`,
		`^[0-9]{4}-[0-9]{2}-[0-9]{2}$`: `^[0-9]{4}-[0-9]{2}-[0-9]{2}$`, `^(\([0-9]{3}\))?[0-9]{3}-[0-9]{4}$`: `^(\([0-9]{3}\))?[0-9]{3}-[0-9]{4}$`,
		`^[a-z0-9]+(-[a-z0-9]+)*$`: `^[a-z0-9]+(-[a-z0-9]+)*$`, `^#[0-9a-fA-F]{6}$`: `^#[0-9a-fA-F]{6}$`, `^(?:foo|foobar|fo)$`: `^(?:foo|foobar|fo)$`,
		`^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$`: `^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$`,
		`^.$`: `^` + dot + `$`, `^.*foo.*$`: `^` + dot + `*foo` + dot + `*$`, `^[^@]+@.+$`: `^[^@"\\\x7F\x00-\x1F]+@` + dot + `+$`,
		`^[ -~]*$`: `^[ -!#-\x5B\x5D-~]*$`, `^["a]$`: `^[a]$`, `^[a-]$`: `^[a-]$`, `^[-a]$`: `^[-a]$`, `^[\]\[]$`: `^[\]\[]$`,
		`^\.\.+$`: `^\.[.]+$`, `^a\.*$`: `^a[.]*$`, `^\^{2}$`: `^[\x5E]{2}$`, `^\x41\u00e9*$`: `^[\x41][\u00e9]*$`, `^aé*b😀+$`: `^a[é]*b[😀]+$`, `^é(a)é$`: `^é(a)é$`,
		`^[à-ü]$`: `^[à-ü]$`, `^a#b::=<c>;/-$`: `^a#b::=<c>;/-$`,
	} {
		got, err := parsePattern([]byte(p))
		if err != nil || string(got.text) != want {
			t.Errorf("%s: got %s, %v; want %s", p, got.text, err, want)
		}
	}
}

// FuzzPattern compares with Go's regexp: what is accepted is a regular expression, its form for the runtime
// matches the same texts except those that need an escape in JSON, and that form is accepted unchanged.
func FuzzPattern(f *testing.F) {
	for _, p := range []string{`^(a|b.)*[^c]{2,3}$`, `^[ -~]é+\.*\x41?$`, `^(?:a{0}b|)\u00e9[\]-a]$`, `^a|$`, `^[^\x00-a-z"\\]+$`} {
		f.Add(p, uint64(1))
	}
	f.Fuzz(func(t *testing.T, source string, seed uint64) {
		if !utf8.ValidString(source) {
			return // JSON strings hold none
		}
		p, err := parsePattern([]byte(source))
		if err != nil {
			if construct := patternError(""); !errors.As(err, &construct) || construct == "" {
				t.Fatalf("%q: got %v, want a construct", source, err)
			}
			return
		}
		again, err := parsePattern(p.text)
		if err != nil || string(again.text) != string(p.text) {
			t.Fatalf("%q became %q, and that %q, %v, want the same text again", source, p.text, again.text, err)
		}
		before, after := goPattern(t, source), goPattern(t, string(p.text))
		if before == nil || after == nil {
			return
		}
		r := rand.New(rand.NewPCG(seed, 0))
		alphabet := []rune(source + "aé\"\\\n z")
		for range 50 {
			text := make([]rune, r.IntN(6))
			for i := range text {
				text[i] = alphabet[r.IntN(len(alphabet))]
			}
			s := string(text)
			safe := !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == '"' || c == '\\' || c == 0x7f })
			if want := safe && before.MatchString(s); after.MatchString(s) != want {
				t.Fatalf("%q became %q, which matches %q: %v, want %v", source, p.text, s, !want, want)
			}
		}
	})
}

// goPattern is a pattern as Go reads it, or nil if Go's syntax has no such pattern.
func goPattern(t *testing.T, source string) *regexp.Regexp {
	source = regexp.MustCompile(`\\u([0-9a-fA-F]{4})`).ReplaceAllString(source, `\x{$1}`)
	// Go takes no more than 1000 repetitions, and reads [ in a class and -- differently.
	compiled, err := regexp.Compile(`^(?s:` + source[1:len(source)-1] + `)$`)
	if err != nil {
		if regexp.MustCompile(`\{[0-9,]*[0-9]{3,}|\[[^\]]*\[:|\[.*--|too|large`).MatchString(source) || strings.Contains(err.Error(), "repeat") || strings.Contains(err.Error(), "bad range") {
			return nil
		}
		t.Fatalf("%q is accepted, want it refused: it is not a regular expression: %v", source, err)
	}
	return compiled
}
