package main

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"companion/adapters/completion/enrich"
	"companion/adapters/completion/lane"
)

// X6: progress is a line that is redrawn on a terminal, with rate and time left, and plain lines elsewhere. A failure stays on the
// screen. Nothing of it is on standard output.
func TestEnrichProgress(t *testing.T) {
	for _, redraw := range []bool{false, true} {
		out, errs := tempFile(t), tempFile(t)
		p := newEnrichProgress(&app{out: out, err: errs}, 4, lane.SelfHosted)
		if p.redraw {
			t.Fatal("a file: got a terminal, want none")
		}
		p.redraw, p.started = redraw, time.Now().Add(-time.Minute)
		p.note(enrich.Outcome{Path: "a.md", Bytes: 10, Read: 10, Sent: 100})
		p.note(enrich.Outcome{Path: "b.md", Bytes: 10, Read: 10, Sent: 100})
		p.note(enrich.Outcome{Path: "c\nd.md", Err: errors.New("no room")})
		p.note(enrich.Outcome{Path: "e.md", Skipped: true})
		_ = p.result(nil)
		text, printed := content(t, errs), content(t, out)
		want := "[1/4] a.md: done\n[2/4] b.md: done\n"
		if redraw {
			want = "\r\x1b[K[1/4] a.md: done\r\x1b[K[2/4] b.md: done  (2.0 notes/min, 1m0s left)"
		}
		if !strings.HasPrefix(text, want) || strings.Count(text, "no room\n")+strings.Count(text, "left)\n") != 1 || printed != "" {
			t.Errorf("redraw %v: got %q and %q on standard output, want first %q and none", redraw, text, printed, want)
		}
		if strings.Contains(text, "c\nd") || !strings.Contains(text, "3 of 4 notes done, 1 of them earlier; bytes sent off this machine: 200") {
			t.Errorf("redraw %v: got %q, want the summary, and no line break of a path", redraw, text)
		}
	}
}

func tempFile(t *testing.T) *os.File {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file
}

func content(t *testing.T, file *os.File) string {
	t.Helper()
	data, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
