package e2e

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"companion/actors/logfile"
	"companion/actors/runtime/resources"
	"companion/e2e/harness"
	"companion/messages"
)

// attempts reads the hostile runtime's own report from the log: for each attempt, whether it was refused.
func attempts(c *harness.Companion) map[string]bool {
	refused := map[string]bool{}
	for line := range strings.Lines(c.Log()) {
		record, err := logfile.Parse([]byte(line))
		if err != nil || record.Actor != harness.RuntimeName {
			continue
		}
		var attempt struct {
			Attempt string
			Refused bool
		}
		if json.Unmarshal([]byte(record.Event), &attempt) == nil && attempt.Attempt != "" {
			refused[attempt.Attempt] = attempt.Refused
		}
	}
	return refused
}

// visible is the last attempt, and the one that nothing stops: docs/security.md says so.
const visible = "see that the secret exists"

// R4, R5, R6, R8, R10, T7: the program starts a hostile runtime that the manifest names like any other. It attacks
// the daemon that started it, its sockets, secrets and files, leaves a grandchild, floods its output and
// ignores the polite signal. No attempt succeeds, inference works meanwhile, and after the stop no process
// of it is left.
func TestHostileRuntime(t *testing.T) {
	hub := harness.NewHub(t)
	c := hub.Companion("[runtime]\nmemory_limit = \"1GiB\"\nstop_timeout = \"1s\"\n[log]\nlevel = \"debug\"\n")
	secret := filepath.Join(c.Home, "secret")
	if err := os.WriteFile(secret, []byte("planted"), 0o600); err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	hub.PublishHostile(map[string]any{
		"attempt": true, "secret": secret, "outside": c.Home, "tcp": tcp.Addr().String(), "udp": tcp.Addr().String(),
		"unixSockets": []string{filepath.Join(c.RunTime(), "control.sock")}, "unixDgram": filepath.Join(c.RunTime(), "control.sock"),
		"read": []string{
			c.ConfigFile(), filepath.Join(c.State(), "companion.log"), filepath.Join(c.State(), "runtime.json"),
			filepath.Join(c.RunTime(), "endpoint.json"),
		},
		"memory": 2 << 30, "fork": true, "flood": 22_000, "ignoreTerm": true, "serve": true,
	})
	c.Start()
	c.SignIn()
	status := c.Available()
	// Tests run as root, or where a user may make namespaces.
	if s := status.Runtime.Sandbox; s.Landlock < 1 || !s.Seccomp || !s.Netns || !s.Mounts {
		t.Fatalf("got sandbox %+v, want Landlock, seccomp, a network namespace and covered mounts: this test needs a kernel that has them", status.Runtime)
	}
	refused := attempts(c)
	// It may serve before the last line of its report was read.
	for end := time.Now().Add(time.Minute); time.Now().Before(end); refused = attempts(c) {
		if _, tried := refused[visible]; tried {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	for name, was := range refused {
		if was == (name == visible) {
			t.Errorf("%s: got refused %v, want %v", name, was, name != visible)
		}
	}
	if len(refused) < 110 {
		t.Errorf("got %d attempts reported, want at least 110", len(refused))
	}
	for _, name := range []string{"read the daemon's environment", "dial Unix socket 0", "read file 3", "eat memory"} {
		if _, tried := refused[name]; !tried {
			t.Errorf("got no attempt to %s, want one", name)
		}
	}
	if !strings.Contains(c.Log(), "grandchild refused") {
		t.Error("the runtime left a grandchild, want none")
	}
	if reply := c.Door().Chat(t.Context(), 1); reply.Status != 200 {
		t.Errorf("a question: got %d %s %v, want 200", reply.Status, reply.Code, reply.Err)
	}
	if running := c.Runtimes(); len(running) != 1 || running[0] != status.Runtime.PID {
		t.Errorf("runtimes run: %v, want %d alone", running, status.Runtime.PID)
	}
	c.Stop()
	if left := c.Runtimes(); len(left) != 0 {
		t.Errorf("after the stop got processes %v, want none", left)
	}
}

// A4, A5, A8, T10: a runtime that closes its socket and continues to run is detected, ended and replaced.
func TestClosedSocket(t *testing.T) {
	t.Parallel() // most of it is waiting
	hub := harness.NewHub(t)
	// Long enough to become available on a busy machine.
	hub.PublishHostile(map[string]any{"serve": true, "closeAfter": 12 * time.Second})
	c := hub.Companion("[health]\nbeat = \"500ms\"\n")
	c.Start()
	c.SignIn()
	before := c.Available()
	watch := c.Watch()
	defer watch.Close()
	watch.Await("unavailable", time.Minute, func(s messages.Status) bool { return !s.CompanionAvailable })
	after := watch.Await("replaced", time.Minute, func(s messages.Status) bool {
		if s.CompanionAvailable && s.Runtime.PID == before.Runtime.PID {
			t.Error("got available with a runtime that has no socket, want unavailable")
		}
		return s.CompanionAvailable
	})
	if exit := after.Runtime.LastExit; harness.Alive(before.Runtime.PID) || exit == nil || exit.Reason != messages.ReasonRuntimeUnavailable {
		t.Errorf("the old runtime: got alive %v, last exit %+v, want false, runtime_unavailable", harness.Alive(before.Runtime.PID), exit)
	}
	c.Stop()
}

// P3, P4: a runtime whose memory exceeds its limit where the system's own limits do not count it is detected
// by the daemon's observation: new requests are denied at once, and when the excess lasts, the runtime is
// drained, so that the request in flight finishes, and replaced.
func TestMemoryExcess(t *testing.T) {
	t.Parallel() // most of it is waiting
	const sustained = resources.DefaultSustained
	hub := harness.NewHub(t)
	hub.PublishHostile(map[string]any{"serve": true, "padding": strings.Repeat("x", 1<<20), "map": 5 << 28, "linger": sustained + 5*time.Second})
	c := hub.Companion("[runtime]\nmemory_limit = \"1GiB\"\ndrain_timeout = \"30s\"\n")
	c.Start()
	c.SignIn()
	before := c.Available()
	watch := c.Watch()
	defer watch.Close()
	door := c.Door()
	began := time.Now()
	inFlight := make(chan harness.Reply, 1)
	go func() { inFlight <- door.Chat(t.Context(), 1) }()
	over := c.Await("over the limit", sustained, func(s messages.Status) bool { return s.Runtime.ResidentBytes > 1<<30 })
	if reply := door.Chat(t.Context(), 1); !over.CompanionAvailable || reply.Code != string(messages.ReasonRAMOverLimit) {
		t.Errorf("at first got status %s and answer %d %s %v, want available and ram_over_limit", over.Reason, reply.Status, reply.Code, reply.Err)
	}
	drained := watch.Await("drained", time.Minute, func(s messages.Status) bool { return !s.CompanionAvailable })
	if drained.Reason != messages.ReasonRAMOverLimit || time.Since(began) < sustained {
		t.Errorf("after %v got status %s, %s, want ram_over_limit after at least %v", time.Since(began), drained.Lifecycle, drained.Reason, sustained)
	}
	if reply := <-inFlight; reply.Status != 200 {
		t.Errorf("the request in flight: got %d %s %v, want 200", reply.Status, reply.Code, reply.Err)
	}
	after := watch.Await("replaced", time.Minute, func(s messages.Status) bool { return s.CompanionAvailable })
	exit := after.Runtime.LastExit
	if after.Runtime.PID == before.Runtime.PID || harness.Alive(before.Runtime.PID) || exit == nil || exit.Reason != messages.ReasonRAMOverLimit {
		t.Errorf("got old runtime %d, new runtime %d, last exit %+v, want another process and ram_over_limit", before.Runtime.PID, after.Runtime.PID, exit)
	}
	if why := c.Must("logs", "--level", "warn"); !strings.Contains(why, "memory over its limit reason=ram_over_limit") {
		t.Errorf("got log without the reason, want memory over its limit:\n%s", why)
	}
	c.Stop()
}
