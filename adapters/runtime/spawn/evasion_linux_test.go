package spawn_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"companion/adapters/runtime/fileid"
	"companion/adapters/runtime/spawn"
	"companion/adapters/runtime/spawn/spawntest"
	"companion/messages"
)

// R10, T7: the runtime's only bind yields the back-end socket, whatever address it names: an abstract socket address
// cannot be reached from outside.
func TestFirstBindIsTheBackEnd(t *testing.T) {
	name := fmt.Sprintf("@hostile-first-%d", os.Getpid())
	started := start(t, spawntest.Spec(t, map[string]any{"bindFirst": name, "serve": true}))
	awaitHealthy(t, started)
	if conn, err := net.Dial("unix", name); err == nil {
		_ = conn.Close()
		t.Errorf("got a runtime that listens on %s, want only the back-end socket", name)
	}
}

// R10: the runtime executes nothing a second time, also before its bind, while the daemon still answers.
func TestNoExecutionBeforeTheBind(t *testing.T) {
	script := target(t)
	script["noBind"] = true
	script["only"] = []string{"execute a path by every descriptor", "execute from another thread", "execute from all threads at once"}
	var output lines
	spec := spawntest.Spec(t, script)
	spec.Line = output.add
	start(t, spec)
	for _, attempt := range output.attempts(t) { // a runtime that executes itself never completes its report
		if !attempt.Refused {
			t.Errorf("%s: got allowed, want refused", attempt.Attempt)
		}
	}
}

// R10: nothing can be created in the folder of the back-end socket: after all attempts it holds only the socket.
func TestFolderHoldsTheSocketAlone(t *testing.T) {
	script := target(t)
	script["only"] = []string{"fill its home with sockets", "listen on a path of its home", "make a file of its own"}
	var output lines
	spec := spawntest.Spec(t, script)
	spec.Line = output.add
	started := start(t, spec)
	tried := output.attempts(t)
	if len(tried) != 3 {
		t.Errorf("got %d attempts, want 3", len(tried))
	}
	for _, attempt := range tried {
		if !attempt.Refused {
			t.Errorf("%s: got allowed, want refused", attempt.Attempt)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(started.BackEnd.Address))
	if err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(started.BackEnd.Address) {
		t.Errorf("got %v, %v in the folder, want only the socket", entries, err)
	}
}

// R2, R10, T8: the runtime ends with the daemon, whatever it attempted before, and also without its first thread.
func TestEndsWithTheDaemon(t *testing.T) {
	for name, script := range map[string]map[string]any{
		"first thread has ended": {"leaderExit": true},
		"everything was tried":   {"attempt": true, "fork": true, "ignoreTerm": true, "secret": "/nowhere/secret", "outside": "/nowhere", "memory": 2 << 30},
	} {
		t.Run(name, func(t *testing.T) {
			p := daemonPlan{Model: spawntest.Model(t, script), Runtime: spawntest.Runtime(t), Dir: spawntest.Dir(t)}
			cmd, output := daemon(t, p)
			line, err := output.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.Fields(line)[1])
			if err != nil {
				t.Fatalf("got %q from the daemon, want the runtime's process id", line)
			}
			if script["leaderExit"] == true {
				within(t, 10*time.Second, "the end of the first thread", func() bool {
					return strings.Contains(readProc(t, fmt.Sprintf("/proc/%d/stat", pid)), ") Z ")
				})
			} else {
				time.Sleep(2 * time.Second) // real processes run on the real clock
			}
			threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
			if err != nil || len(threads) < 2 {
				t.Fatalf("got %d threads of the runtime, %v, want 2 or more", len(threads), err)
			}
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			within(t, 5*time.Second, "the end of the runtime", func() bool {
				threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
				return len(threads) == 0 && len(holding(t, p.Dir)) == 0
			})
		})
	}
}

// layersOf are the layers that can be left out; "" leaves out none.
var layersOf = []string{"", "landlock", "seccomp", "namespace", "limits"}

// endsIt are the attempts that end or replace the hostile program without seccomp.
var endsIt = []string{
	"become a shell", "become itself again", "execute its model", "execute by every descriptor", "execute a path by every descriptor",
	"execute a shell by every descriptor", "execute through the loader", "execute the loader by its path", "execute from another thread",
	"execute from all threads at once", "make an anonymous file to execute",
}

// R4, R10: with all layers every attempt is refused. Then each layer is left out in turn, and the attempts that become
// possible are printed; docs/security.md has the table. A layer whose absence allows nothing is an error, except the
// namespace, which only repeats what other layers stop.
func TestWhichLayerStops(t *testing.T) {
	stoppedBy := map[string][]string{}
	var allowed []string // with all layers
	count := 0
	planted := target(t)
	for _, layer := range layersOf {
		script := maps.Clone(planted)
		if layer == "seccomp" {
			script["except"] = endsIt
		}
		var output lines
		spec := spawntest.Spec(t, script)
		spec.Line, spec.MemoryLimit = output.add, 1<<30
		restore := spawn.WithoutLayer(layer)
		started, err := spawn.Spawn(spec)
		restore()
		if err != nil {
			t.Fatalf("without %q: got %v, want nil", layer, err)
		}
		tried := output.attempts(t)
		for _, attempt := range tried {
			switch {
			case attempt.Refused:
			case layer != "":
				if !slices.Contains(allowed, attempt.Attempt) {
					stoppedBy[layer] = append(stoppedBy[layer], attempt.Attempt)
				}
			default:
				allowed = append(allowed, attempt.Attempt)
				if !slices.Contains(possible, attempt.Attempt) && (started.Sandbox.Landlock > 0 || !slices.Contains(byLandlockAlone, attempt.Attempt)) {
					t.Errorf("with all layers: %s: got allowed, want refused", attempt.Attempt)
				}
			}
		}
		if layer == "" {
			count = len(tried)
		}
		started.Handle.Kill(t.Context(), 0)
	}
	fmt.Printf("LAYERS %d attempts, %d allowed with all layers: %s\n", count, len(allowed), strings.Join(allowed, "; "))
	for _, layer := range layersOf[1:] {
		fmt.Printf("LAYERS only %s stops %d: %s\n", layer, len(stoppedBy[layer]), strings.Join(stoppedBy[layer], "; "))
	}
	for _, layer := range []string{"seccomp", "limits"} {
		if len(stoppedBy[layer]) == 0 {
			t.Errorf("without %s: got every attempt refused, want some allowed", layer)
		}
	}
}

// R10: the daemon of an ordinary user, which is not dumpable, gets the same level as root's, and the network namespace
// where the system lets a user make one. Elsewhere the runtime starts without the namespace.
func TestOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the other tests of this run already run as an ordinary user")
	}
	const user = 65534
	for name, allowed := range map[string]bool{"namespaces": true, "no namespaces": false} {
		t.Run(name, func(t *testing.T) {
			p := daemonPlan{Model: spawntest.Model(t, map[string]any{"serve": true}), Runtime: spawntest.Runtime(t), Dir: spawntest.Dir(t), NoNamespaces: !allowed}
			for _, path := range []string{p.Dir, p.Model.Path, filepath.Dir(p.Model.Path), p.Runtime.Dir, filepath.Join(p.Runtime.Dir, p.Runtime.Executable)} {
				for ; path != os.TempDir() && path != "/"; path = filepath.Dir(path) {
					if err := os.Chown(path, user, user); err != nil {
						t.Fatal(err)
					}
				}
			}
			defer func() {
				_ = os.Chown(p.Runtime.Dir, 0, 0)
				_ = os.Chown(filepath.Join(p.Runtime.Dir, p.Runtime.Executable), 0, 0)
			}()
			// The owner of the file is part of its verified identity.
			model, err := os.Open(p.Model.Path)
			if err != nil {
				t.Fatal(err)
			}
			p.Model.Identity, err = fileid.Of(model)
			if err = errors.Join(err, model.Close()); err != nil {
				t.Fatal(err)
			}
			cmd, output := daemonOf(t, p, &syscall.Credential{Uid: user, Gid: user})
			line, err := output.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			fields := strings.Fields(line)
			var level messages.Sandbox
			if err := json.Unmarshal([]byte(fields[len(fields)-1]), &level); err != nil {
				t.Fatalf("got %q from the daemon: %v, want the level", line, err)
			}
			if !level.Seccomp {
				t.Errorf("got level %+v, want seccomp: this test needs a kernel with it", level)
			}
			pid, _ := strconv.Atoi(fields[1])
			own, err1 := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
			ours, err2 := os.Readlink("/proc/self/ns/net")
			if err := errors.Join(err1, err2); err != nil {
				t.Fatal(err)
			}
			if separate := own != ours; separate != level.Netns || level.Netns && !allowed || allowed && !level.Netns && userNamespaces() {
				t.Errorf("got namespace %v in the status, want %v as in /proc", level.Netns, separate)
			}
			if level.Mounts != level.Netns {
				t.Errorf("got mounts covered %v, want %v as the network namespace", level.Mounts, level.Netns)
			}
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			within(t, 5*time.Second, "the end of the runtime", func() bool { return len(holding(t, p.Dir)) == 0 })
		})
	}
}

// userNamespaces reports whether the system lets ordinary users make user namespaces, by the switches of Debian,
// Ubuntu and the kernel.
func userNamespaces() bool {
	for name, forbids := range map[string]string{
		"kernel/unprivileged_userns_clone": "0", "kernel/apparmor_restrict_unprivileged_userns": "1", "user/max_user_namespaces": "0",
	} {
		if value, err := os.ReadFile("/proc/sys/" + name); err == nil && strings.TrimSpace(string(value)) == forbids {
			return false
		}
	}
	return true
}

// R10: on a system that makes the namespaces and then denies operations in them, the runtime starts without them: the
// stage fails once and is started again.
func TestFailureInNamespacesIsRetried(t *testing.T) {
	defer spawn.FailInNamespaces()()
	started := start(t, spawntest.Spec(t, map[string]any{"serve": true}))
	if started.Sandbox.Netns || !started.Sandbox.Seccomp {
		t.Errorf("got level %+v, want seccomp and no network namespace", started.Sandbox)
	}
	awaitHealthy(t, started)
}
