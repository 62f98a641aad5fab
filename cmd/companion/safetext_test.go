package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// hostile holds one character of each kind that steers a terminal or reorders its text.
const hostile = "a\x1b[2Jb\u009b2Jc\x7fd\u202ee\u2066f\u200eg\u061ch\u2028i\rj\u0085k"

// T12, X6: text of a model, a hub or a file name cannot steer the terminal, in words or as JSON; as JSON nothing of it
// is lost.
func TestTextCannotSteerTheTerminal(t *testing.T) {
	if got, want := plain(hostile+"\n\té–👩‍👩"), "a[2Jb2Jcdefghijk\n\té–👩‍👩"; got != want {
		t.Errorf("plain: got %q, want %q", got, want)
	}
	if got := oneLine("a\nb\tc" + hostile); strings.ContainsFunc(got, steers) {
		t.Errorf("oneLine: got %q, want no control character", got)
	}
	encoded, err := json.Marshal(map[string]string{hostile: hostile})
	if err != nil {
		t.Fatal(err)
	}
	safe := safeJSON(encoded)
	if strings.ContainsFunc(safe, steers) {
		t.Errorf("safeJSON: got %q, want no control character", safe)
	}
	var back map[string]string
	if err := json.Unmarshal([]byte(safe), &back); err != nil || back[hostile] != hostile {
		t.Errorf("safeJSON: got %q, %v back; want the value unchanged", back, err)
	}
}

// A text is broken between words for a terminal, and never elsewhere.
func TestWrapped(t *testing.T) {
	text := "one two three four five six seven"
	if got, want := wrapped(text, 40, 20), "one two three four five six seven"; got != want {
		t.Errorf("little room: got %q, want %q", got, want)
	}
	if got, want := wrapped(text, 45, 20), "one two three four five\n                    six seven"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := wrapped(text, 0, 24); got != text {
		t.Errorf("no terminal: got %q, want no break", got)
	}
	if long := strings.Repeat("x", 90); wrapped(long, 80, 24) != long {
		t.Errorf("a long word: got %q, want it whole", wrapped(long, 80, 24))
	}
}
