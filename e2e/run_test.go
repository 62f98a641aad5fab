//go:build linux

package e2e

import (
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"companion/e2e/harness"
)

// X3: `run` without a hub, a root or a model starts, says where it listens, what is missing and the next command; an
// interrupt ends it in order.
func TestRunWithNothing(t *testing.T) {
	c := harness.Alone(t, "")
	cmd := exec.Command(harness.Binary(t, "companion"), "run")
	cmd.Env = append(c.Environ(), "TERM=xterm-256color")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: 80, Rows: 24})
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	var mu sync.Mutex
	var seen strings.Builder
	grown, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		buffer := make([]byte, 4096)
		for {
			n, err := terminal.Read(buffer)
			mu.Lock()
			seen.Write(buffer[:n])
			mu.Unlock()
			select {
			case grown <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	text := func() string {
		mu.Lock()
		defer mu.Unlock()
		return seen.String()
	}
	late := time.After(time.Minute)
	for !strings.Contains(text(), "next, in another terminal:") {
		select {
		case <-grown:
		case <-ended:
			t.Fatalf("got its end, want it to run: %s", text())
		case <-late:
			_ = cmd.Process.Kill()
			t.Fatalf("got %q, want the next command", text())
		}
	}
	for _, want := range []string{"Running at http://127.0.0.1:", "no hub is configured", "companion add FILE"} {
		if !strings.Contains(text(), want) {
			t.Errorf("got no %q, want it in %q", want, text())
		}
	}
	if strings.Contains(text(), "manifest_unreachable") {
		t.Errorf("got a manifest that cannot be reached, want none without a hub: %q", text())
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after an interrupt: got %v, want status 0: %s", err, text())
	}
	<-ended
}
