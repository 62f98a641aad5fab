//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"go.uber.org/zap"

	"companion/adapters/door/controlsock"
)

// screenEnter and screenLeave are what `status --watch` does to a terminal, and how it takes it back.
const (
	screenEnter = "\x1b[?1049h\x1b[?25l"
	screenLeave = "\x1b[?25h\x1b[?1049l"
)

// console is a pseudo-terminal with a program on it.
type console struct {
	t    *testing.T
	cmd  *exec.Cmd
	file *os.File

	mu    sync.Mutex
	seen  bytes.Buffer
	grown chan struct{} // of capacity one
	read  chan struct{} // closed at the end
}

// onConsole runs the program on a terminal of 80 columns and 24 rows, against a daemon of the test.
func onConsole(t *testing.T, args ...string) *console {
	t.Helper()
	dir, err := os.MkdirTemp("", "c") // of a test's own name, it could be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	listener, err := controlsock.Listen(filepath.Join(dir, "companion", "control.sock"), func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	fake := answering{status: working()}
	server := controlsock.Server{View: fake, SignIn: fake, Catalogue: fake, Runtime: fake, Endpoint: fake, Log: zap.NewNop()}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		<-served
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Args[0] = "companion" // see TestMain
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_RUNTIME_DIR="+dir, "XDG_CONFIG_HOME="+dir, "XDG_STATE_HOME="+dir, "XDG_DATA_HOME="+dir, "TERM=xterm")
	file, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: 80, Rows: 24})
	if err != nil {
		t.Fatal(err)
	}
	c := &console{t: t, cmd: cmd, file: file, grown: make(chan struct{}, 1), read: make(chan struct{})}
	go func() {
		defer close(c.read)
		buffer := make([]byte, 4096)
		for {
			n, err := file.Read(buffer)
			c.mu.Lock()
			c.seen.Write(buffer[:n])
			c.mu.Unlock()
			select {
			case c.grown <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = file.Close()
		<-c.read
	})
	return c
}

func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen.String()
}

// await waits until what was shown is as wanted.
func (c *console) await(what string, wanted func(text string) bool) {
	c.t.Helper()
	late := time.After(20 * time.Second)
	for !wanted(c.text()) {
		select {
		case <-c.grown:
		case <-late:
			c.t.Fatalf("got no %s, want it; the terminal got %q", what, c.text())
		}
	}
}

// state is the process's state, such as T for stopped.
func (c *console) state() string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
	_, rest, _ := strings.Cut(string(data), ") ")
	state, _, _ := strings.Cut(rest, " ")
	return state
}

// X6: however `status --watch` ends, the terminal gets back its screen and its cursor.
func TestWatchGivesTheTerminalBack(t *testing.T) {
	for name, end := range map[string][]syscall.Signal{
		"interrupt":            {syscall.SIGINT},
		"two quick interrupts": {syscall.SIGINT, syscall.SIGINT},
		"quit (Ctrl-\\)":       {syscall.SIGQUIT},
		"terminate":            {syscall.SIGTERM},
		"hang-up":              {syscall.SIGHUP},
	} {
		t.Run(name, func(t *testing.T) {
			c := onConsole(t, "status", "--watch")
			c.await("screen", func(text string) bool { return strings.Contains(text, "next:") })
			for _, signal := range end {
				_ = c.cmd.Process.Signal(signal)
			}
			err := c.cmd.Wait()
			<-c.read
			if text := c.text(); !strings.HasSuffix(strings.TrimRight(text[:strings.LastIndex(text, "\x1b[?1049l")+8], "\r\n"), screenLeave) ||
				strings.LastIndex(text, "\x1b[?1049l") < strings.LastIndex(text, "\x1b[?1049h") || strings.Contains(text[strings.LastIndex(text, "\x1b[?1049l"):], "\x1b[H") {
				t.Errorf("got %q (%v), want the alternate screen left, the cursor shown, and nothing drawn after", text, err)
			}
		})
	}
}

// X6: a suspend gives the terminal back and stops the process; the resume draws the screen again.
func TestWatchSuspends(t *testing.T) {
	c := onConsole(t, "status", "--watch")
	c.await("screen", func(text string) bool { return strings.Contains(text, "next:") })
	if err := c.cmd.Process.Signal(syscall.SIGTSTP); err != nil {
		t.Fatal(err)
	}
	c.await("left screen", func(text string) bool { return strings.HasSuffix(text, screenLeave) })
	for range 200 {
		if c.state() == "T" {
			break
		}
		time.Sleep(10 * time.Millisecond) // the kernel reports a stop to the parent alone
	}
	if got := c.state(); got != "T" {
		t.Fatalf("got state %q, want T (stopped)", got)
	}
	if err := c.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c.await("second screen", func(text string) bool {
		return strings.Count(text, screenEnter) == 2 && strings.Contains(text[strings.LastIndex(text, screenEnter):], "next:")
	})
	if err := pty.Setsize(c.file, &pty.Winsize{Cols: 40, Rows: 10}); err != nil { // a resize changes nothing but the width
		t.Fatal(err)
	}
	_ = c.cmd.Process.Signal(syscall.SIGINT)
	_ = c.cmd.Wait()
	<-c.read
	if text := c.text(); !strings.Contains(text[strings.LastIndex(text, screenEnter):], screenLeave) {
		t.Errorf("got %q, want the screen left at the end", text)
	}
}
