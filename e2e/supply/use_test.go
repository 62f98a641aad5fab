package supply

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"companion/e2e/harness"
	"companion/messages"
)

// X6, M12, M13: `use` fetches and serves another real model without a restart of the daemon, and at the next start. A model
// that cannot be loaded, or whose bytes are wrong, leaves the present one serving.
func TestUse(t *testing.T) {
	hub, c := realPair(t)
	hub.Publish("model", "smollm2", harness.Instructed(t).File, "--version", "1")
	broken := filepath.Join(harness.TempDir(t), "broken.gguf")
	if err := os.WriteFile(broken, []byte("GGUF"+strings.Repeat("no model ", 20_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	hub.Publish("model", "broken", broken, "--version", "1")
	daemon := c.Daemon.PID
	serving := func(name, when string) {
		t.Helper()
		c.Available()
		status, _ := c.Status()
		if status.Model.Name != name || status.PID != c.Daemon.PID {
			t.Fatalf("%s: got model %q, want %q", when, status.Model.Name, name)
		}
		if reply := c.Door().Chat(t.Context(), 4); reply.Status != 200 {
			t.Fatalf("%s: got the answer %d %q, %v; want 200", when, reply.Status, reply.Body, reply.Err)
		}
	}
	use := func(code int, said string, args ...string) {
		t.Helper()
		r := c.Run(append([]string{"use"}, args...)...)
		if r.Code != code || !strings.Contains(r.Stderr, said) {
			t.Fatalf("use %v: got exit status %d, %q; want %d, %q", args, r.Code, r.Stderr, code, said)
		}
	}
	hub.Fault("flipped-byte", true)
	use(6, string(messages.ReasonDigestMismatch), "smollm2")
	hub.Fault("flipped-byte", false)
	serving(harness.ModelName, "after wrong bytes")
	use(0, "Serving smollm2 1.", "smollm2")
	serving("smollm2", "after use")
	if c.Daemon.PID != daemon {
		t.Errorf("got the daemon %d, want %d", c.Daemon.PID, daemon)
	}
	use(5, "smollm2 1 stays in use", "broken")
	serving("smollm2", "after a model that cannot be loaded")
	use(1, "did you mean `companion use smollm2`?", "smollm")
	if list := c.Must("models"); !strings.Contains(list, "running, selected, last known good") || !strings.Contains(list, " on disk") {
		t.Errorf("models: got %q, want the use of smollm2 and the size on disk", list)
	}
	hub.Fault("server-error", true)
	c.Stop()
	c.Start()
	serving("smollm2", "after a restart without the hub")
	use(0, "Serving "+harness.ModelName, "--default") // it is on disk
	serving(harness.ModelName, "after use --default, without the hub")
}

// M12, L6: no request is refused while the served model changes: those that come meanwhile wait for the new one.
func TestRequestsDuringUse(t *testing.T) {
	hub, c := realPair(t)
	hub.Publish("model", "smollm2", harness.Instructed(t).File, "--version", "1")
	c.Available()
	c.Must("pull", "smollm2")
	switched := make(chan harness.Result, 1)
	go func() { switched <- c.Run("use", "smollm2") }()
	longest, answers := time.Duration(0), 0
	for running := true; running; answers++ {
		select {
		case r := <-switched:
			running = false // one more request meets the new model
			if r.Code != 0 {
				t.Fatalf("use: got exit %d, %s, want 0", r.Code, r.Stderr)
			}
		default:
		}
		began := time.Now()
		if reply := c.Door().Chat(t.Context(), 4); reply.Status != 200 {
			t.Fatalf("request %d: got the answer %d %q, %v; want 200", answers, reply.Status, reply.Body, reply.Err)
		}
		longest = max(longest, time.Since(began))
	}
	if status, _ := c.Status(); status.Model.Name != "smollm2" {
		t.Errorf("got the model %q, want smollm2", status.Model.Name)
	}
	if !strings.Contains(c.Log(), "runtime replaced") {
		t.Error("got no line with the length of the gap, want one")
	}
	t.Logf("%d requests, the longest took %v", answers, longest)
}
