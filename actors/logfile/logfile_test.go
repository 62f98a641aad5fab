package logfile

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func options(t *testing.T) Options {
	return Options{File: filepath.Join(t.TempDir(), "state", "companion.log"), MaxSize: 1, Backups: 20, Level: zapcore.DebugLevel}
}

// serve runs j until the caller calls stop, which waits for the end of Serve.
func serve(t *testing.T, j *Journal) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- j.Serve(ctx) }()
	return func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: got %v, want context.Canceled", err)
		}
	}
}

func open(t *testing.T, o Options) *Journal {
	t.Helper()
	j, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// J1: one JSON object per line, with its keys, in a file of mode 0600. T12: a Secret in a log field shows nothing.
func TestLinesInTheFile(t *testing.T) {
	o := options(t)
	j := open(t, o)
	stop := serve(t, j)
	j.Logger().Named(string(messages.ActorProcess)).Warn("runtime exited",
		zap.String("reason", string(messages.ReasonProcessExited)), zap.Any("token", messages.NewSecret("s3cr3t")))
	j.Logger().Info("started")
	stop()

	info, err := os.Stat(o.File)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("log file: got %v, %v; want mode 0600", info, err)
	}
	data, err := os.ReadFile(o.File)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte("s3cr3t")) {
		t.Errorf("got a secret in the log, want none: %s", data)
	}
	var got []map[string]any
	for line := range bytes.Lines(data) {
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if _, err := time.Parse(time.RFC3339, m["time"].(string)); err != nil {
			t.Error(err)
		}
		got = append(got, m)
	}
	want := [][4]any{{"warn", "runtime/process", "runtime exited", "process_exited"}, {"info", "companion", "started", nil}}
	for i, w := range want {
		if g := [4]any{got[i]["level"], got[i]["actor"], got[i]["event"], got[i]["reason"]}; g != w {
			t.Errorf("line %d: got %v, want %v", i, g, w)
		}
	}
}

// J1, T17: Open refuses a log that other users can read, or that is a link.
func TestOpenRefuses(t *testing.T) {
	for name, prepare := range map[string]func(file string) error{
		"readable by all": func(file string) error { return os.WriteFile(file, nil, 0o644) },
		"link":            func(file string) error { return os.Symlink("/dev/null", file) },
		"open folder":     func(file string) error { return os.Chmod(filepath.Dir(file), 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			if err := os.MkdirAll(filepath.Dir(o.File), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := prepare(o.File); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(o); err == nil {
				t.Error("got nil, want an error")
			}
		})
	}
}

// J1: a logger never waits for the disk; lost lines are counted, and the count is logged.
func TestFullBufferDropsAndSays(t *testing.T) {
	o := options(t)
	j := open(t, o)
	for i := range bound + 7 {
		j.Logger().Info("burst", zap.Int("n", i))
	}
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(o.File)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(data, []byte(`"burst"`)); n != bound {
		t.Errorf("got %d lines in the log, want %d", n, bound)
	}
	if !regexp.MustCompile(`"actor":"journal","event":"log lines dropped","count":7`).Match(data) {
		t.Error("got no count of 7 dropped lines in the log, want one")
	}
}

// X7: a blocked terminal delays neither the file nor the shutdown.
func TestStuckTerminal(t *testing.T) {
	reader, writer := io.Pipe()
	defer func() { _ = reader.Close() }()
	o := options(t)
	o.Terminal = writer
	j := open(t, o)
	stop := serve(t, j)
	j.Logger().Info("unread")
	stop()
	if data, err := os.ReadFile(o.File); err != nil || !bytes.Contains(data, []byte("unread")) {
		t.Errorf("got the file %q, %v; want the line in it", data, err)
	}
}

// X7: lines left for a blocked terminal delay neither the end nor the next start of the actor. At most one goroutine
// blocks in a write to the terminal. When the terminal is read again, it gets every line once, in order.
func TestFlushWithAStuckTerminal(t *testing.T) {
	reader, writer := io.Pipe()
	o := options(t)
	o.Terminal = writer
	j := open(t, o)
	stop := serve(t, j)
	j.Logger().Info("line 1")
	stop()
	stop = serve(t, j)
	j.Logger().Info("line 2")
	stop()
	j.Logger().Info("line 3")
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(o.File); err != nil || !bytes.Contains(data, []byte("line 3")) {
		t.Errorf("got the file %q, %v; want the line in it", data, err)
	}
	// A terminal whose first write blocks in Flush itself.
	unread, fresh := io.Pipe()
	o = options(t)
	o.Terminal = fresh
	j = open(t, o)
	j.Logger().Info("the last line")
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	_ = unread.Close()

	lines := bufio.NewScanner(reader)
	for _, want := range []string{"line 1", "line 2", "line 3"} {
		if !lines.Scan() || !strings.Contains(lines.Text(), want) {
			t.Fatalf("got %q on the terminal, want %q", lines.Text(), want)
		}
	}
	_ = reader.Close()
}

// J1, X6: lines for a person are readable, are coloured only when Colour is set, contain no control characters, and
// begin with the date.
func TestReadable(t *testing.T) {
	for _, colour := range []bool{false, true} {
		var terminal bytes.Buffer
		o := options(t)
		o.Terminal, o.Readable, o.Colour = &terminal, true, colour
		j := open(t, o)
		j.Logger().Named("runtime/process").Error("it said", zap.String("line", "\x1b]0;title\a"), zap.String("reason", "crash_loop"), zap.Int("code", 3))
		if err := j.Flush(); err != nil {
			t.Fatal(err)
		}
		got := terminal.String()
		if !strings.Contains(got, `it said reason=crash_loop code=3 line="\x1b]0;title\a"`) {
			t.Errorf("got %q, want the event with its fields", got)
		}
		if !strings.HasPrefix(got, time.Now().Format("2006-01-02 ")) {
			t.Errorf("got %q, want the date first", got)
		}
		if strings.Contains(got, "\x1b[31m") != colour || strings.Contains(got, "\x1b]") {
			t.Errorf("colour %v: got %q, want colour only when set, and no other escapes", colour, got)
		}
	}
}

// collect receives records in a goroutine and counts them; wait blocks until n have come.
type collect struct {
	mu     sync.Mutex
	change *sync.Cond
	events []string
}

func (c *collect) add(r Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, r.Event)
	c.change.Broadcast()
	return nil
}

func (c *collect) wait(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.events) < n {
		c.change.Wait()
	}
}

// J3: the tail follows across rotations, and emits every line once, wherever its reader is at a rename.
func TestFollowAcrossRotation(t *testing.T) {
	o := options(t)
	open(t, o)
	c := &collect{}
	c.change = sync.NewCond(&c.mu)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Tail(ctx, TailOptions{Path: o.File, Follow: true}, c.add) }()

	file := newWriter(o).file
	var want []string
	encoder := newEncoder()
	for i := range 400 {
		event := fmt.Sprintf("event %d", i)
		line, err := encoder.EncodeEntry(zapcore.Entry{Time: time.Now(), LoggerName: "x", Message: event}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.Write(line.Bytes()); err != nil {
			t.Fatal(err)
		}
		want = append(want, event)
		if i%40 == 39 { // some rotations happen while the tail is behind, others after it has caught up
			if i%80 == 79 {
				c.wait(i + 1)
			}
			if err := file.Rotate(); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.wait(len(want))
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.events, want) {
		t.Errorf("got %d lines, want %d in order; got %v", len(c.events), len(want), c.events)
	}
	backups, err := filepath.Glob(filepath.Join(filepath.Dir(o.File), "companion-*.log"))
	if err != nil || len(backups) != 10 {
		t.Fatalf("got %d rotated files (%v), want 10", len(backups), err)
	}
	for _, name := range append(backups, o.File) {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got %v, %v, want mode 0600", name, info, err)
		}
	}
}

// J3: filters by actor, level, time and text; torn and overlong lines are skipped.
func TestFilters(t *testing.T) {
	file := filepath.Join(t.TempDir(), "companion.log")
	at := func(minute int) string {
		return time.Date(2026, 1, 1, 12, minute, 0, 0, time.UTC).Format(timeLayout)
	}
	lines := []string{
		`{"time":"` + at(0) + `","level":"debug","actor":"runtime/process","event":"a"}`,
		`{"time":"` + at(1) + `","level":"info","actor":"runtime/process","event":"b","reason":"ok"}`,
		`{"time":"` + at(2) + `","level":"warn","actor":"runtimes","event":"c"}`,
		`{"time":"` + at(3) + `","level":"er`,
		`{"time":"` + at(3) + `","level":"error","actor":"lifecycle","event":"` + strings.Repeat("x", longest) + `"}`,
		`{"time":"` + at(4) + `","level":"error","actor":"lifecycle","event":"d","line":"needle"}`,
	}
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		filter Filter
		want   string
	}{
		{"zero", Filter{}, "b c d"},
		{"debug", Filter{Level: zapcore.DebugLevel}, "a b c d"},
		{"warn", Filter{Level: zapcore.WarnLevel}, "c d"},
		{"actor", Filter{Actor: "lifecycle"}, "d"},
		{"wing, not a name that begins like it", Filter{Actor: "runtime", Level: zapcore.DebugLevel}, "a b"},
		{"since", Filter{Since: time.Date(2026, 1, 1, 12, 2, 0, 0, time.UTC)}, "c d"},
		{"text", Filter{Match: regexp.MustCompile("need.e")}, "d"},
		{"nothing", Filter{Actor: "nobody"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			err := Tail(t.Context(), TailOptions{Path: file, Filter: tt.filter}, func(r Record) error {
				got = append(got, r.Event)
				return nil
			})
			if err != nil || strings.Join(got, " ") != tt.want {
				t.Errorf("got %v, %v; want %s", got, err, tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"time":"2026-01-01T00:00:00Z","level":"info","actor":"a","event":"b","x":{"y":["\u001b"]}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := Parse(line)
		if err != nil {
			return
		}
		if text := r.Text(false); strings.ContainsAny(text, "\x1b\x07\n") {
			t.Errorf("got %q, want no control characters", text)
		}
	})
}
