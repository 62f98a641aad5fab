package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"companion/adapters/completion/enrich"
)

// E7: a look returns the notes that changed and have settled, each once; a failed one is tried again later, and a folder
// that is away for a while makes no note new.
func TestNoteWatch(t *testing.T) {
	dir := t.TempDir()
	note := filepath.Join(dir, "a.md")
	write := func(text string, at time.Time) {
		t.Helper()
		if err := os.WriteFile(note, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(note, at, at); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Unix(1_800_000_000, 0)
	write("one", now)
	w := newNoteWatch([]string{dir}, now.Add(-time.Hour))
	if paths, _, err := w.first(t.Context()); err != nil || !slices.Equal(paths, []string{note}) {
		t.Fatalf("got %q, %v, want the note", paths, err)
	}
	look := func(when string, want ...string) {
		t.Helper()
		if got, err := w.look(t.Context(), now); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v, want %q", when, got, err, want)
		}
	}
	w.ended(enrich.Outcome{Path: note}, now)
	look("unchanged")
	write("two", now.Add(time.Second))
	look("just changed")
	look("settled", note)
	w.ended(enrich.Outcome{Path: note, Err: os.ErrClosed}, now)
	look("failed")
	now = now.Add(watchRetry)
	look("later", note)
	w.ended(enrich.Outcome{Path: note}, now)
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	look("away")
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	look("back")
	look("back and settled")
	write("old", now.Add(-2*time.Hour))
	look("older than --since")
	look("older than --since, settled")
}
