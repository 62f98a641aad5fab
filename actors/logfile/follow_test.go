package logfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap/zapcore"
)

// logLine is one whole line of the log.
func logLine(event string) string {
	line, err := newEncoder().EncodeEntry(zapcore.Entry{Time: time.Now(), LoggerName: "x", Message: event}, nil)
	if err != nil {
		panic(err)
	}
	defer line.Free()
	return line.String()
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// follow runs a following tail until the test ends.
func follow(t *testing.T, path string) *collect {
	t.Helper()
	c := &collect{}
	c.change = sync.NewCond(&c.mu)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Tail(ctx, TailOptions{Path: path, Follow: true}, c.add) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Tail: got %v, want nil at the end of the context", err)
		}
	})
	return c
}

// J3: a following tail survives truncation, removal and replacement of the file and its folder.
func TestFollowSurvives(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, path string){
		"truncation": func(t *testing.T, path string) {
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
		},
		"removal": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
		"removal of the folder": func(t *testing.T, path string) {
			if err := os.RemoveAll(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"replacement": func(t *testing.T, path string) {
			if err := os.WriteFile(path+".new", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state", "companion.log")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			appendTo(t, path, logLine("a longer event, before")+logLine("second"))
			c := follow(t, path)
			c.wait(2)
			change(t, path)
			appendTo(t, path, logLine("after"))
			c.wait(3)
			if got := c.events[2]; got != "after" {
				t.Errorf("got %q, want %q", got, "after")
			}
		})
	}
}

// J3: an overflow of the kernel's queue counts as a change, is reported once, and does not end the watch.
func TestForwardAfterOverflow(t *testing.T) {
	events, errs := make(chan fsnotify.Event), make(chan error)
	changed := make(chan struct{}, 1)
	var notices []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		forward(events, errs, changed, func(text string) { notices = append(notices, text) })
	}()
	for range 3 {
		errs <- fsnotify.ErrEventOverflow
		<-changed
	}
	events <- fsnotify.Event{}
	<-changed
	close(events)
	close(errs)
	<-done
	if len(notices) != 1 || !strings.Contains(notices[0], "dropped") {
		t.Errorf("got the notices %q, want one about dropped reports", notices)
	}
}

// J3: a reader that is slower than the changes of the folder loses no line, and the tail does not end.
func TestFollowWithASlowReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "companion.log")
	appendTo(t, path, logLine("first"))
	resume := make(chan struct{})
	got := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Tail(ctx, TailOptions{Path: path, Follow: true}, func(r Record) error {
			got <- r.Event
			<-resume
			return nil
		})
	}()
	<-got
	for i := range 20000 { // more than fs.inotify.max_queued_events, 16384 by default
		if err := os.WriteFile(fmt.Sprintf("%s-%d", path, i%7), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	close(resume)
	appendTo(t, path, logLine("second"))
	if event := <-got; event != "second" {
		t.Errorf("got %q, want second", event)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// J3: without inotify the tail polls, and says so.
func TestFollowPolls(t *testing.T) {
	var notices []string
	_, stop := watch(filepath.Join(t.TempDir(), "missing"), func(text string) { notices = append(notices, text) })
	stop()
	if len(notices) != 1 || !strings.Contains(notices[0], "looking every 1s instead") {
		t.Errorf("got the notices %q, want one that says how often the tail looks", notices)
	}
}

// J3: rotated files are found in a folder whose name contains glob characters.
func TestRotatedInAnyFolder(t *testing.T) {
	for _, name := range []string{"a[b]", "a*", "a?b", `a\b`, "plain"} {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "companion.log")
		appendTo(t, filepath.Join(dir, "companion-2026-01-02T03-04-05.000000000-size.log"), logLine("old"))
		appendTo(t, path, logLine("new"))
		var got []string
		err := Tail(t.Context(), TailOptions{Path: path}, func(r Record) error {
			got = append(got, r.Event)
			return nil
		})
		if err != nil || !slices.Equal(got, []string{"old", "new"}) {
			t.Errorf("folder %q: got %q, %v; want old and new", name, got, err)
		}
	}
}

// J1: a log file that was removed or replaced is created again for the next line, with mode 0600.
func TestWriterMakesTheFileAgain(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"removed": os.Remove,
		"moved":   func(path string) error { return os.Rename(path, path+".mine") },
		"replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", nil, 0o600), os.Rename(path+".new", path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			open(t, o)
			w := newWriter(o)
			defer w.Close()
			if _, err := w.Write([]byte(logLine("before"))); err != nil {
				t.Fatal(err)
			}
			if err := change(o.File); err != nil {
				t.Fatal(err)
			}
			w.Check()
			if _, err := w.Write([]byte(logLine("after"))); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(o.File)
			if err != nil || !strings.Contains(string(data), `"after"`) || strings.Contains(string(data), `"before"`) {
				t.Errorf("got %q, %v; want the line after the change alone", data, err)
			}
			if info, err := os.Stat(o.File); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("got %v, %v; want mode 0600", info, err)
			}
		})
	}
}

// J1: a torn line costs one line. The writer ends it, and the reader also finds a whole line glued to a torn one, as
// older versions wrote it.
func TestTornLine(t *testing.T) {
	torn := `{"level":"info","time":"2026-01-02T03:04:05.000000Z","actor":"x","event":"torn {\"level\": half`
	read := func(path string) (events []string) {
		err := Tail(t.Context(), TailOptions{Path: path}, func(r Record) error {
			events = append(events, r.Event)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		return events
	}
	o := options(t)
	open(t, o)
	appendTo(t, o.File, logLine("first")+torn)
	w := newWriter(o)
	if _, err := w.Write([]byte(logLine("second"))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(o.File)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(string(data)), "\n"); len(lines) != 3 {
		t.Errorf("got %d lines in the file, want 3: the torn one ends before the next", len(lines))
	}
	if got := read(o.File); !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("got %q, want first and second", got)
	}
	glued := filepath.Join(t.TempDir(), "companion.log")
	appendTo(t, glued, torn+logLine("second"))
	if got := read(glued); !slices.Equal(got, []string{"second"}) {
		t.Errorf("glued: got %q, want second", got)
	}
}
