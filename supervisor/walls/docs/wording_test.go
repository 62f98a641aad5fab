package docs

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// mannered are words that plain technical English does not need: name the person, the part or the thing instead, and
// say "no longer" and "forever".
var mannered = regexp.MustCompile(`(?i)\b(any more|any longer|for ever|whoever|whomever|nobody|somebody|anybody|everybody|anew|beside|that of|a word from|of its own accord)\b`)

// Comments and documents are in plain English.
func TestWording(t *testing.T) {
	s := load(t)
	for _, l := range slices.Concat(s.comments, prose(s.docs)) {
		if strings.HasPrefix(l.file, "supervisor/walls/docs/") {
			continue // has the list of the words
		}
		text := strings.ReplaceAll(l.text, "nobody is signed in", "") // the program says that
		if word := mannered.FindString(text); word != "" {
			t.Errorf("%s:%d says %q; use plain English: %s", l.file, l.number, word, strings.TrimSpace(l.text))
		}
	}
}

// prose returns the lines of documents that are not code.
func prose(docs []line) []line {
	var lines []line
	code := false
	for _, l := range docs {
		fence := strings.HasPrefix(strings.TrimSpace(l.text), "```")
		if l.number == 1 {
			code = false
		}
		if fence {
			code = !code
		}
		if !code && !fence {
			lines = append(lines, l)
		}
	}
	return lines
}

// columns is where the lines of documents wrap.
const columns = 110

// Lines of documents wrap at 110 columns, except tables, code and links, which cannot.
func TestLinesOfDocuments(t *testing.T) {
	for _, l := range prose(load(t).docs) {
		free := strings.HasPrefix(l.text, "|") || strings.Contains(l.text, "](") || strings.Contains(l.text, "://")
		if n := utf8.RuneCountInString(l.text); n > columns && !free {
			t.Errorf("%s:%d has %d columns, want at most %d", l.file, l.number, n, columns)
		}
	}
}
