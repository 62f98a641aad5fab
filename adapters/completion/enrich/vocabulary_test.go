package enrich

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"companion/adapters/completion"
)

// written is a note with a block of enrich, whose tags are "garden" and "a: b".
func written(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "note.md")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	must(t, FrontMatter{}.Put(resultFor(t, path)))
	data, err := os.ReadFile(path)
	must(t, err)
	return string(data)
}

// E6: the vocabulary of a folder is the tags of its notes, the most frequent first, without blocks that enrich wrote and
// tags that a result cannot hold.
func TestVocabulary(t *testing.T) {
	dir := t.TempDir()
	for i, text := range []string{
		"---\ntags: [garden, work/plan]\n---\nA\n",
		"---\nTags:\n  - garden\n  - \"#home\"\n---\nB\n",
		"---\ntags: garden, home\n---\nC\n",
		"---\ntags: [\"" + strings.Repeat("x", longestTag+1) + "\", \"http://x\", \"\"]\n---\nD\n",
		written(t, "---\ntitle: E\n---\nE\n"),
		"---\nSubject: prose\n---\nF\n",
		"G\n",
	} {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.md", i)), []byte(text), 0o600))
	}
	got, left, err := ReadVocabulary(t.Context(), dir)
	if want := []string{"garden", "home", "work/plan"}; err != nil || !slices.Equal(got, want) || left != 2 {
		t.Errorf("got %q, %d left out, %v, want %q, 2", got, left, err, want)
	}
	file := filepath.Join(dir, "tags.txt")
	must(t, os.WriteFile(file, []byte("#b\n a \n\nb\n"), 0o600))
	if got, _, err := ReadVocabulary(t.Context(), file); err != nil || !slices.Equal(got, []string{"b", "a"}) {
		t.Errorf("got %q, %v, want b and a", got, err)
	}
	must(t, os.WriteFile(file, []byte("\n"), 0o600))
	if _, _, err := ReadVocabulary(t.Context(), file); err == nil || !strings.Contains(err.Error(), "has no tags") {
		t.Errorf("got %v, want an error that says what is needed", err)
	}
}

// E6: with a vocabulary the request allows its tags only, and an answer with others keeps none of them.
func TestVocabularyBindsTheAnswer(t *testing.T) {
	f := &fake{answer: func(context.Context, int) (completion.Answer, error) {
		return completion.Answer{Text: `{"summary":"x","tags":["garden","other","garden"],"open_questions":[]}`}, nil
	}}
	e := enricher(f)
	e.Vocabulary = []string{"garden", "home"}
	r, err := e.Note(t.Context(), note(t, "Move the tomatoes."))
	if err != nil || !slices.Equal(r.Tags, []string{"garden"}) || r.Provenance.PromptVersion == PromptVersion {
		t.Errorf("got tags %q, prompt %s, %v, want garden once and a prompt version of its own", r.Tags, r.Provenance.PromptVersion, err)
	}
	schema, err := json.Marshal(f.options[0].Schema)
	if err != nil || !strings.Contains(string(schema), `"enum":["garden","home"]`) || !strings.Contains(f.turns[0][1].Content, `"garden, home"`) {
		t.Errorf("got %s and %s, want the vocabulary in both", schema, f.turns[0][1].Content)
	}
}

// E6: the quoted note contains no control token of the served model's vocabulary.
func TestControlTokensOfTheModel(t *testing.T) {
	f := &fake{answer: func(context.Context, int) (completion.Answer, error) {
		return completion.Answer{Text: `{"summary":"x","tags":[],"open_questions":[]}`}, nil
	}}
	e := enricher(f)
	e.Served = func(context.Context) (Served, error) {
		return Served{Model: "m", Version: "1", Control: "@@turn@@\n{{end}}"}, nil
	}
	const text = "Move @@turn@@ the {{end}} tomatoes."
	if _, err := e.Note(t.Context(), note(t, text)); err != nil {
		t.Fatal(err)
	}
	sent := f.turns[0][1].Content
	var quoted struct{ Note string }
	if err := json.Unmarshal([]byte(sent), &quoted); err != nil || quoted.Note != text || strings.Contains(sent, "@@turn@@") || strings.Contains(sent, "{{end}}") {
		t.Errorf("got %s (%v), want the note as data without the tokens", sent, err)
	}
}
