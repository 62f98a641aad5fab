package spawn_test

import (
	"context"
	"encoding/json"
	"errors"
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
	"companion/messages"
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

// within waits until done returns true; real processes run on the real clock.
func within(t *testing.T, limit time.Duration, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("got nothing within %s, want %s", limit, what)
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

// target creates the targets of the hostile child's attempts.
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

// byLandlockAlone are the attempts that only Landlock refuses. The daemon here is not hardened (X8).
var byLandlockAlone = []string{
	"read the daemon's environment", "read the daemon's memory map",
	"read the planted secret", "read the secret through a descriptor of its folder", "read another process's command line",
	"list all processes", "read the users", "list the root folder", "list the home folder", "list the folder of the secret",
}

// possible are the attempts that no layer stops; docs/security.md lists them.
var possible = []string{"see that the secret exists"}

// forGPU is the attempt that the rules for a GPU allow, because its drivers need it. Landlock keeps the runtime from
// writing any other file.
const forGPU = "give an anonymous file a size"

// attempt is one line of the hostile child's report.
type attempt struct {
	Attempt string
	Refused bool
	Error   string
}

// attempts is the whole report.
func (l *lines) attempts(t *testing.T) []attempt {
	t.Helper()
	l.await(t, "attempts done")
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []attempt
	for _, line := range l.all {
		var a attempt
		if json.Unmarshal([]byte(line), &a) == nil && a.Attempt != "" {
			t.Logf("%-50s %s", a.Attempt, a.Error)
			all = append(all, a)
		}
	}
	return all
}

// R4, R5, C1, T7: a hostile runtime makes every attempt, and each one fails.
func TestHostileRuntimeIsConfined(t *testing.T) { confined(t, spawntest.Spec(t, target(t))) }

// R4, T7: the rules for a GPU allow more calls, and still refuse the same attempts.
func TestHostileRuntimeWithGPU(t *testing.T) {
	t.Cleanup(spawn.UseDevice("/dev/null"))
	script := target(t)
	script["gpu"] = true
	spec := spawntest.Spec(t, script)
	spec.GPU = true
	confined(t, spec)
}

func confined(t *testing.T, spec spawn.Spec) {
	t.Helper()
	spec.MemoryLimit = 1 << 30
	var output lines
	spec.Line = output.add
	started := start(t, spec)
	if !started.Sandbox.Seccomp {
		t.Fatalf("got sandbox %+v, want seccomp: this test needs a kernel with it", started.Sandbox)
	}
	tried := output.attempts(t)
	for _, attempt := range tried {
		want := !slices.Contains(possible, attempt.Attempt)
		if spec.GPU && attempt.Attempt == forGPU && started.Sandbox.Landlock > 0 {
			want = false
		}
		if attempt.Refused != want && (started.Sandbox.Landlock > 0 || !slices.Contains(byLandlockAlone, attempt.Attempt)) {
			t.Errorf("%s: got refused %v, want %v", attempt.Attempt, attempt.Refused, want)
		}
	}
	if len(tried) < 110 {
		t.Errorf("got %d attempts, want 110 or more", len(tried))
	}
	select {
	case exit := <-started.Exit:
		t.Errorf("got the exit %+v, want a running runtime", exit)
	default:
	}
	if started.Sandbox.Landlock == 0 {
		t.Skipf("the kernel has no Landlock: this test proves nothing about %q", byLandlockAlone)
	}
}

// R4, M10, T7: an unpinned binary cannot open the folder that it lies in, nor the folder of its loader. It can open the
// libraries there, and list file names where llama.cpp has variants of a library per processor.
func TestUnpinnedFolderStaysClosed(t *testing.T) {
	for name, variants := range map[string]bool{"plain": false, "variants": true} {
		t.Run(name, func(t *testing.T) {
			hostile := spawntest.Runtime(t)
			program, err := os.ReadFile(filepath.Join(hostile.Dir, hostile.Executable))
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			in := func(name string) string { return filepath.Join(dir, name) }
			if err := errors.Join(
				os.WriteFile(in("hostile"), program, 0o700), os.WriteFile(in("libx.so.1.2"), nil, 0o600), os.Symlink("libx.so.1.2", in("libx.so")),
				os.WriteFile(in("secret"), nil, 0o600), os.Symlink("secret", in("liby.so")), os.Mkdir(in("libz.so"), 0o700),
				os.WriteFile(in("libz.so/secret"), nil, 0o600),
			); err != nil {
				t.Fatal(err)
			}
			if variants {
				if err := os.WriteFile(in("libggml-cpu-haswell.so"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			// The first three must be readable, the others not.
			files := []string{in("hostile"), in("libx.so.1.2"), in("libx.so"), in("secret"), in("liby.so"), in("libz.so/secret")}
			spec := spawntest.Spec(t, map[string]any{
				"attempt": true, "secret": in("secret"), "read": files,
				"only": []string{"read file 0", "read file 1", "read file 2", "read file 3", "read file 4", "read file 5", "list the folder of the secret"},
			})
			spec.Runtime = messages.VerifiedRuntime{Name: "unpinned", Dir: dir, Executable: "hostile"}
			var output lines
			spec.Line = output.add
			if started := start(t, spec); started.Sandbox.Landlock == 0 {
				t.Fatalf("got sandbox %+v, want Landlock: this test needs a kernel with it", started.Sandbox)
			}
			tried := output.attempts(t)
			if len(tried) != 7 {
				t.Errorf("got %d attempts, want 7", len(tried))
			}
			for i, attempt := range tried {
				if may := i < 3 || i == 6 && variants; attempt.Refused == may {
					t.Errorf("%s: %q: got refused %v, want %v", attempt.Attempt, attempt.Error, attempt.Refused, !may)
				}
			}
		})
	}
}

// T7: the attempts are real: outside the sandbox these succeed. Otherwise a child whose attempts fail for another
// reason would look confined.
func TestHostileAttemptsSucceedUnconfined(t *testing.T) {
	attempts := []string{
		"read the planted secret", "read the daemon's environment", "dial TCP", "send UDP", "listen on TCP",
		"dial Unix socket 0", "dial Unix socket 3", "send a datagram with an address", "send a message with an address",
		"send a message from a raw socket", "send a message from a pair of datagram sockets", "move the daemon to another processor", "run a shell", "fork",
		"write to the planted folder", "signal the daemon", "outlive the daemon", "eat memory", "list all processes", "list the folder of the secret",
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
			t.Errorf("%s without a sandbox: got refused, want allowed", attempt)
		}
	}
	if t.Failed() {
		t.Logf("%s", output)
	}
}
