package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// rendered is what a terminal gets when the text comes in pieces of size bytes. Styles are named, to be read.
func rendered(t interface{ Fatal(...any) }, text string, pieces func(rest string) int) string {
	var b strings.Builder
	m := &markdown{width: 60, out: func(s string) error { b.WriteString(s); return nil }}
	for text != "" {
		n := pieces(text)
		if err := m.Write(text[:n]); err != nil {
			t.Fatal(err)
		}
		text = text[n:]
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer(bold, "{b}", italic, "{i}", cyan, "{c}", dim, "{d}", underline, "{u}", reset, "{}").Replace(b.String())
}

func whole(rest string) int { return len(rest) }

// X6: what models write as Markdown is shown as what it means, and everything else as it is.
func TestMarkdown(t *testing.T) {
	for text, want := range map[string]string{
		"plain text\n":                           "plain text\n",
		"# Title\ntext":                          "{b}{u}Title{}\ntext",
		"### C# and F#\n":                        "{b}C# and F#{}\n",
		"#hashtag":                               "#hashtag",
		"a **bold** word":                        "a {b}bold{} word",
		"a *word* and _word_":                    "a {i}word{} and {i}word{}",
		"***both***":                             "{b}{i}both{}",
		"**a `b` c**":                            "{b}a {c}b{}{b} c{}",
		"# A **b** c":                            "{b}{u}A {b}b{}{b}{u} c{}",
		"use `x*y*z` here":                       "use {c}x*y*z{} here",
		"``a`b``":                                "{c}a`b{}",
		"2 * 3 * 4 and 2*3*4":                    "2 * 3 * 4 and 2*3*4",
		"snake_case_name __init__":               "snake_case_name {b}init{}",
		"f(**kwargs) is open":                    "f(**kwargs) is open",
		"an ` open one":                          "an ` open one",
		`\*not\* C:\Users \(x\)`:                 `*not* C:\Users \(x\)`,
		"- one\n  * two\n1. three":               "• one\n  • two\n1. three",
		"> said\n>> twice":                       "{d}│ {}said\n{d}│ │ {}twice",
		"a\n---\nb":                              "a\n{d}────────────────────────────────────────{}\nb",
		"-5 degrees\n--flag":                     "-5 degrees\n--flag",
		"```go\nx := **y\n# no\n```\n*a*":        "{d}```go{}\nx := **y\n# no\n{d}```{}\n{i}a{}",
		"   ```\n- x\n   ```\n- y":               "{d}```{}\n- x\n{d}```{}\n• y",
		"~~~\n```\n~~~\n":                        "{d}~~~{}\n```\n{d}~~~{}\n",
		"```\nnever closed **a**":                "{d}```{}\nnever closed **a**",
		"| a | long |\n|---|:-:|\n| **b** | c |": "{b}a{} │ {b}long{}\n{d}──┼─────{}\n{b}b{} │ c",
		"| a \\| b | c |\n|--|--|\nend":          "{b}a | b{} │ {b}c{}\n{d}──────┼──{}\nend",
		"| no | table |\ntext":                   "| no | table |\ntext",
		"| " + strings.Repeat("w", 70) + " |\n|--|\n| x |": "| " + strings.Repeat("w", 70) + " |\n|--|\n| x |",
		"|":            "|",
		"```":          "{d}```{}",
		"":             "",
		"\n\n":         "\n\n",
		"日本 **太字** です": "日本 {b}太字{} です",
	} {
		if got := rendered(t, text, whole); got != want {
			t.Errorf("%q:\ngot  %q\nwant %q", text, got, want)
		}
	}
}

// However the pieces of an answer arrive, the terminal gets the same; and an answer loses nothing but marks.
func TestMarkdownInPieces(t *testing.T) {
	word := rapid.SampledFrom([]string{"a", "bc", " ", "\n", "*", "**", "_", "`", "```", "#", "# ", "- ", "> ", "|", "|-|", "\\", "~~~", "\t", "é", "日", "1.", strings.Repeat("x", 200)})
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(word, 0, 40).Draw(t, "text"), "")
		want := rendered(t, text, whole)
		got := rendered(t, text, func(rest string) int {
			return len(string([]rune(rest)[:rapid.IntRange(1, utf8.RuneCountInString(rest)).Draw(t, "piece")]))
		})
		if got != want {
			t.Fatalf("in pieces: got %q, want %q", got, want)
		}
		letters := func(s string) string {
			return strings.Map(func(r rune) rune {
				if strings.ContainsRune("abcxé日1", r) {
					return r
				}
				return -1
			}, s)
		}
		shown := strings.NewReplacer("{b}", "", "{i}", "", "{c}", "", "{d}", "", "{u}", "", "{}", "").Replace(want)
		if letters(shown) != letters(text) {
			t.Fatalf("got the text %q, want all of %q", shown, text)
		}
	})
}

// What is held back is bounded: a mark that nothing closes does not stop the stream.
func TestMarkdownStreams(t *testing.T) {
	var b strings.Builder
	m := &markdown{width: 60, out: func(s string) error { b.WriteString(s); return nil }}
	text := "It is **open " + strings.Repeat("and goes on ", 60)
	if err := m.Write(text); err != nil {
		t.Fatal(err)
	}
	if b.String() != text {
		t.Errorf("got %d bytes before the end of the line, want all %d", b.Len(), len(text))
	}
	if err := m.Write("Next: `x"); err != nil {
		t.Fatal(err)
	}
	if got := b.String()[len(text):]; got != "Next: " {
		t.Errorf("got %q, want the text before an open span", got)
	}
}
