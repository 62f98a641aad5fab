package docs

import (
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// mannered are words that plain technical English does not need: name the person, the part or the thing instead.
var mannered = regexp.MustCompile(`(?i)\b(whoever|whomever|nobody|somebody|anew|beside|that of|a word from|of its own accord)\b`)

// notRewritten are the folders, and the documents, whose comments are not in plain English yet. Remove an entry when its
// folder is rewritten: the test fails for an entry that has no mannered word left. Never add one.
var notRewritten = map[string]bool{
	"actors/door/frontdoor": true,
	"adapters/door/openai":  true,
	"cmd/companion":         true,
	"docs/api.md":           true,
}

// Comments and documents are in plain English.
func TestWording(t *testing.T) {
	s, found := load(t), map[string]bool{}
	for _, l := range slices.Concat(s.comments, prose(s.docs)) {
		place := path.Dir(l.file)
		if strings.HasSuffix(l.file, ".md") {
			place = l.file
		}
		if place == "supervisor/walls/docs" {
			continue // has the list of the words
		}
		word := mannered.FindString(strings.ReplaceAll(l.text, "nobody is signed in", "")) // the program says that
		if word == "" {
			continue
		}
		found[place] = true
		if !notRewritten[place] {
			t.Errorf("%s:%d says %q; use plain English: %s", l.file, l.number, word, strings.TrimSpace(l.text))
		}
	}
	for _, place := range slices.Sorted(maps.Keys(notRewritten)) {
		if !found[place] {
			t.Errorf("%s has no mannered word: remove it from notRewritten", place)
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

// notWrapped are the documents with longer lines. Remove an entry when its document is wrapped. Never add one.
var notWrapped = map[string]bool{
	"docs/api.md": true,
}

// Lines of documents wrap at 110 columns, except tables, code and links, which cannot.
func TestLinesOfDocuments(t *testing.T) {
	found := map[string]bool{}
	for _, l := range prose(load(t).docs) {
		free := strings.HasPrefix(l.text, "|") || strings.Contains(l.text, "](") || strings.Contains(l.text, "://")
		if free || utf8.RuneCountInString(l.text) <= columns {
			continue
		}
		found[l.file] = true
		if !notWrapped[l.file] {
			t.Errorf("%s:%d has %d columns, want at most %d", l.file, l.number, utf8.RuneCountInString(l.text), columns)
		}
	}
	for _, file := range slices.Sorted(maps.Keys(notWrapped)) {
		if !found[file] {
			t.Errorf("%s is wrapped: remove it from notWrapped", file)
		}
	}
}
