//go:build unix

package browser

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const start = "http://127.0.0.1:4321/start/abc"

// opener puts a program of the system opener's name first in the path; it writes its arguments.
func opener(t *testing.T, script string) (out string) {
	t.Helper()
	dir := t.TempDir()
	name, _ := command(start)
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Setenv("OUT", filepath.Join(dir, "out"))
	return filepath.Join(dir, "out")
}

// O1: the system's opener gets the start page and nothing else.
func TestOpen(t *testing.T) {
	out := opener(t, `printf '%s\n' "$@" > "$OUT"`)
	if err := Open(t.Context(), start); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil || string(got) != start+"\n" {
		t.Fatalf("%q %v", got, err)
	}
}

func TestOpenFails(t *testing.T) {
	check := func(err error) {
		t.Helper()
		var e *Error
		if !errors.As(err, &e) || e.Reason != messages.ReasonBrowserFailed {
			t.Fatalf("%v", err)
		}
	}
	opener(t, "exit 3")
	check(Open(t.Context(), start))
	t.Setenv("PATH", t.TempDir())
	check(Open(t.Context(), start))
}

// Rule 2: nothing but a plain path on loopback reaches a program argument.
func TestRefusesOtherURLs(t *testing.T) {
	out := opener(t, `echo called > "$OUT"`)
	for _, u := range []string{
		"https://hub.example/authorize?state=s", "http://127.0.0.1:1/x?state=s", "http://127.0.0.1:1/x#f",
		"http://localhost:1/x", "http://u@127.0.0.1:1/x", "file:///etc/passwd", "javascript:alert(1)", "-x", "", "http://10.0.0.1:1/x",
	} {
		if err := Open(t.Context(), u); err == nil {
			t.Errorf("%q was opened", u)
		}
	}
	if _, err := os.Stat(out); err == nil {
		t.Fatal("the opener was called")
	}
}
