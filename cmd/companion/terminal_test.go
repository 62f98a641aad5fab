//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"companion/adapters/door/controlsock"
)

// What `status --watch` does to a terminal: the alternate screen and the cursor.
const (
	screenEnter = "\x1b[?1049h"
	screenLeave = "\x1b[?1049l"
	cursorHide  = "\x1b[?25l"
	cursorShow  = "\x1b[?25h"
)

// given reports whether the terminal has its own screen and its cursor.
func given(text string) bool {
	return strings.LastIndex(text, screenLeave) > strings.LastIndex(text, screenEnter) &&
		strings.LastIndex(text, cursorShow) > strings.LastIndex(text, cursorHide)
}

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
	return onConsoleRunning(t, "companion", args...)
}

// onConsoleRunning is onConsole for another program, which finds the companion in $COMPANION.
func onConsoleRunning(t *testing.T, program string, args ...string) *console {
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
	cmd := exec.Command(program, args...)
	if program == "companion" {
		cmd = exec.Command(self, args...)
		cmd.Args[0] = "companion" // see TestMain
	}
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_RUNTIME_DIR="+dir, "XDG_CONFIG_HOME="+dir, "XDG_STATE_HOME="+dir, "XDG_DATA_HOME="+dir, "COMPANION="+filepath.Join(dir, "bin", "companion"))
	if term := os.Getenv("TERM"); term != "dumb" {
		cmd.Env = append(cmd.Env, "TERM=xterm-256color")
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "bin"), 0o700), os.Symlink(self, filepath.Join(dir, "bin", "companion"))); err != nil {
		t.Fatal(err)
	}
	// A caught signal has its default action in a child; an ignored one, as under nohup, stays ignored.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGTSTP)
	defer signal.Stop(caught)
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

// X6: however `status --watch` ends, the terminal gets back its screen, its cursor and its mode.
func TestWatchGivesTheTerminalBack(t *testing.T) {
	for name, end := range map[string]struct {
		signals []syscall.Signal
		keys    string
		code    int
	}{
		"interrupt":            {signals: []syscall.Signal{syscall.SIGINT}, code: exitInterrupted},
		"two quick interrupts": {signals: []syscall.Signal{syscall.SIGINT, syscall.SIGINT}, code: exitInterrupted},
		"quit":                 {signals: []syscall.Signal{syscall.SIGQUIT}, code: exitQuit},
		"terminate":            {signals: []syscall.Signal{syscall.SIGTERM}, code: exitInterrupted},
		"hang-up":              {signals: []syscall.Signal{syscall.SIGHUP}, code: exitInterrupted},
		"q":                    {keys: "q", code: exitDone},
		"Ctrl-C":               {keys: "\x03", code: exitInterrupted},
		"Ctrl-\\":              {keys: "\x1c", code: exitQuit},
	} {
		t.Run(name, func(t *testing.T) {
			c := onConsole(t, "status", "--watch")
			c.await("screen", func(text string) bool { return strings.Contains(text, "next:") })
			for _, signal := range end.signals {
				_ = c.cmd.Process.Signal(signal)
			}
			c.press(end.keys)
			_ = c.cmd.Wait()
			after := c.mode()
			<-c.read
			text := c.text()
			if !given(text) || strings.Contains(text[strings.LastIndex(text, screenLeave):], "next:") {
				t.Errorf("got %q, want the alternate screen left, the cursor shown, and nothing drawn after", text)
			}
			if want := uint32(unix.ICANON | unix.ECHO | unix.ISIG); after.Lflag&want != want || after.Oflag&unix.OPOST == 0 {
				t.Errorf("got the mode %+v of the terminal, want lines, echo and signals", after)
			}
			if got := c.cmd.ProcessState.ExitCode(); got != end.code {
				t.Errorf("got exit status %d, want %d", got, end.code)
			}
		})
	}
}

// press types on the terminal.
func (c *console) press(keys string) {
	c.t.Helper()
	if _, err := c.file.WriteString(keys); err != nil {
		c.t.Fatal(err)
	}
}

// mode is the line discipline of the terminal.
func (c *console) mode() unix.Termios {
	c.t.Helper()
	mode, err := unix.IoctlGetTermios(int(c.file.Fd()), unix.TCGETS)
	if err != nil {
		c.t.Fatal(err)
	}
	return *mode
}

// X6: under a shell with job control, Ctrl-Z gives the terminal back and stops the command; `fg` draws the screen again,
// in the size that the terminal then has. A kill while it is stopped leaves the terminal as the shell had it.
func TestWatchUnderAShell(t *testing.T) {
	for name, end := range map[string]string{"quit": "q", "killed": ""} {
		t.Run(name, func(t *testing.T) {
			c := onConsoleRunning(t, "bash", "--norc", "--noprofile", "-i")
			c.press("PS1='ready> '\n")
			c.await("prompt", func(text string) bool { return strings.HasSuffix(text, "ready> ") })
			c.press("\"$COMPANION\" status --watch\n")
			c.await("screen", func(text string) bool { return strings.Contains(text, "next:") })
			c.press("\x1a")
			c.await("prompt after Ctrl-Z", func(text string) bool {
				return given(text) && strings.Contains(text[strings.LastIndex(text, screenLeave):], "ready> ")
			})
			if end == "" {
				c.press("kill -9 %1; wait; echo all-ended\n")
				c.await("end", func(text string) bool { return strings.Contains(text, "\nall-ended") && given(text) })
				return
			}
			if err := pty.Setsize(c.file, &pty.Winsize{Cols: 60, Rows: 12}); err != nil {
				t.Fatal(err)
			}
			c.press("fg\n")
			c.await("second screen", func(text string) bool {
				return strings.Count(text, screenEnter) == 2 && strings.Contains(text[strings.LastIndex(text, screenEnter):], "\x1b[12;1H")
			})
			c.press(end)
			c.await("prompt at the end", func(text string) bool {
				return given(text) && strings.Count(text, screenLeave) == 2 && strings.HasSuffix(text, "ready> ")
			})
		})
	}
}

// X6: the screen follows the size of the terminal, also to one that holds almost nothing.
func TestWatchResizes(t *testing.T) {
	c := onConsole(t, "status", "--watch")
	c.await("screen", func(text string) bool { return strings.Contains(text, "\x1b[24;1H") })
	for _, size := range []pty.Winsize{{Cols: 120, Rows: 40}, {Cols: 30, Rows: 6}, {Cols: 1, Rows: 1}, {Cols: 80, Rows: 24}} {
		seen := len(c.text())
		if err := pty.Setsize(c.file, &size); err != nil {
			t.Fatal(err)
		}
		c.await(fmt.Sprintf("screen of %d rows", size.Rows), func(text string) bool {
			return strings.Contains(text[seen:], fmt.Sprintf("\x1b[%d;1H", size.Rows))
		})
	}
	c.press("q")
	_ = c.cmd.Wait()
}

// X6: NO_COLOR leaves out every color.
func TestWatchWithoutColors(t *testing.T) {
	colors := regexp.MustCompile(`\x1b\[(3[0-7]|38|9[0-7]|4[0-7])[;m]`)
	for value, want := range map[string]bool{"": true, "1": false} {
		t.Setenv("NO_COLOR", value)
		c := onConsole(t, "status", "--watch")
		c.await("screen", func(text string) bool { return strings.Contains(text, "next:") })
		c.press("q")
		_ = c.cmd.Wait()
		<-c.read
		if got := colors.MatchString(c.text()); got != want {
			t.Errorf("NO_COLOR=%q: got colors %t, want %t in %q", value, got, want, c.text())
		}
	}
}

// A terminal that cannot show a screen gets a line at each change.
func TestWatchOnADumbTerminal(t *testing.T) {
	t.Setenv("TERM", "dumb")
	c := onConsole(t, "status", "--watch")
	c.await("line", func(text string) bool { return strings.Contains(text, "● available\r\n") })
	_ = c.cmd.Process.Signal(syscall.SIGINT)
	_ = c.cmd.Wait()
	<-c.read
	if strings.Contains(c.text(), "\x1b") {
		t.Errorf("got %q, want no control sequence", c.text())
	}
}
