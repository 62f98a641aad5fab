package spawn_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"companion/adapters/runtime/spawn"
	"companion/adapters/runtime/spawn/spawntest"
)

func TestMain(m *testing.M) {
	if os.Getenv(daemonEnv) != "" {
		beDaemon()
	}
	spawntest.Main(m)
}

// lines collects the output of a runtime.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, line)
}

func (l *lines) has(text string) bool { return l.find(text) != "" }

func (l *lines) find(text string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.all, func(line string) bool { return strings.Contains(line, text) })
	if i < 0 {
		return ""
	}
	return l.all[i]
}

func (l *lines) await(t *testing.T, text string) {
	t.Helper()
	within(t, 20*time.Second, "the line "+text, func() bool { return l.has(text) })
}

// within waits until done; real processes keep their own time.
func within(t *testing.T, limit time.Duration, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", limit, what)
		}
	}
}

func start(t *testing.T, spec spawn.Spec) spawn.Started {
	t.Helper()
	started, err := spawn.Spawn(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { started.Handle.Kill(context.Background(), 0) })
	return started
}

// target plants what the hostile child aims at.
func target(t *testing.T) map[string]any {
	t.Helper()
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("planted"), 0o600); err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closers := []func() error{tcp.Close, udp.Close}
	var sockets []string
	for _, name := range []string{"bus", "ssh-agent", "control", "@companion-test-" + fmt.Sprint(os.Getpid())} {
		if !strings.HasPrefix(name, "@") {
			name = filepath.Join(spawntest.Dir(t), name)
		}
		listener, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		closers = append(closers, listener.Close)
		sockets = append(sockets, name)
	}
	dgram := filepath.Join(spawntest.Dir(t), "dgram")
	packets, err := net.ListenPacket("unixgram", dgram)
	if err != nil {
		t.Fatal(err)
	}
	closers = append(closers, packets.Close)
	t.Cleanup(func() {
		for _, closeIt := range closers {
			_ = closeIt()
		}
	})
	return map[string]any{
		"attempt": true, "secret": secret, "outside": outside, "tcp": tcp.Addr().String(), "udp": udp.LocalAddr().String(),
		"unixSockets": sockets, "unixDgram": dgram, "memory": 2 << 30,
	}
}

// byLandlockAlone are the attempts that no other layer refuses. The daemon here is not hardened (X8).
var byLandlockAlone = []string{
	"read the daemon's environment", "read the daemon's memory map",
	"read the planted secret", "read the secret through a descriptor of its folder", "read another process's command line",
	"list all processes", "read the users", "list the root folder", "list the home folder",
}

// R4, R5, C1, T7: a hostile runtime tries everything, and each attempt fails.
func TestHostileRuntimeIsConfined(t *testing.T) {
	spec := spawntest.Spec(t, target(t))
	spec.MemoryLimit = 1 << 30
	var output lines
	spec.Line = output.add
	started := start(t, spec)
	if !started.Sandbox.Seccomp {
		t.Fatalf("sandbox %+v: this test needs a kernel with seccomp", started.Sandbox)
	}
	output.await(t, "attempts done")
	tried := 0
	for _, line := range output.all {
		var attempt struct {
			Attempt string
			Refused bool
			Error   string
		}
		if json.Unmarshal([]byte(line), &attempt) != nil || attempt.Attempt == "" {
			continue
		}
		tried++
		t.Logf("%-50s %s", attempt.Attempt, attempt.Error)
		if !attempt.Refused && (started.Sandbox.Landlock > 0 || !slices.Contains(byLandlockAlone, attempt.Attempt)) {
			t.Errorf("the runtime could %s", attempt.Attempt)
		}
	}
	if tried < 70 {
		t.Errorf("only %d attempts were reported", tried)
	}
	select {
	case exit := <-started.Exit:
		t.Errorf("the runtime ended: %+v", exit)
	default:
	}
	if started.Sandbox.Landlock == 0 {
		t.Skipf("a kernel without Landlock: nothing is proven of %q", byLandlockAlone)
	}
}

// T7: the attempts are real. Outside the sandbox these succeed; without this a child that fails for
// another reason would look confined.
func TestHostileAttemptsSucceedUnconfined(t *testing.T) {
	attempts := []string{
		"read the planted secret", "read the daemon's environment", "dial TCP", "send UDP", "listen on TCP",
		"dial Unix socket 0", "dial Unix socket 3", "send a datagram with an address", "run a shell", "fork",
		"write to the planted folder", "signal the daemon", "outlive the daemon", "eat memory", "list all processes",
		"raise its limit of files", "leave its session", "use the 32-bit table", "open the secret to everybody",
	}
	if runtime.GOARCH != "amd64" {
		attempts = slices.DeleteFunc(attempts, func(name string) bool { return strings.Contains(name, "32-bit") })
	}
	script := target(t)
	script["only"] = attempts
	script["exitAfter"] = time.Millisecond
	hostile := spawntest.Runtime(t)
	cmd := exec.Command(filepath.Join(hostile.Dir, hostile.Executable), "--model", spawntest.Model(t, script).Path)
	output, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, attempt := range attempts {
		if !strings.Contains(string(output), fmt.Sprintf(`{"attempt":%q,"refused":false}`, attempt)) {
			t.Errorf("%s: refused without a sandbox", attempt)
		}
	}
	if t.Failed() {
		t.Logf("%s", output)
	}
}
