package spawn_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"companion/adapters/runtime/spawn"
	"companion/adapters/runtime/spawn/spawntest"
	"companion/messages"
)

// daemonEnv makes this test binary a daemon that starts one runtime and waits until it is killed.
const daemonEnv = "SPAWN_TEST_DAEMON"

type daemonPlan struct {
	Model   messages.VerifiedModel
	Runtime messages.VerifiedRuntime
	Dir     string
	// NoNamespaces simulates a system that lets the user make none.
	NoNamespaces bool
}

func beDaemon() {
	if spawn.IsStage() {
		spawn.StageMain()
	}
	var p daemonPlan
	if err := json.Unmarshal([]byte(os.Getenv(daemonEnv)), &p); err != nil {
		panic(err)
	}
	if err := spawn.Harden(); err != nil {
		panic(err)
	}
	if p.NoNamespaces {
		spawn.WithoutLayer("namespace")
	}
	fmt.Println("spawning")
	started, err := spawn.Spawn(spawn.Spec{
		Model: p.Model, Runtime: p.Runtime, RunDir: p.Dir, RecordPath: recordIn(p.Dir),
		Context: 512, MaxInFlight: 1, Sandbox: spawn.Require,
	})
	if err != nil {
		panic(err)
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	level, _ := json.Marshal(started.Sandbox)
	fmt.Println("runtime", started.Handle.PID(), "dumpable", dumpable, err, string(level))
	<-started.Exit
	os.Exit(1)
}

func recordIn(dir string) string { return filepath.Join(dir, "runtime.json") }

// daemon runs beDaemon in its own process and returns just before it spawns.
func daemon(t *testing.T, p daemonPlan) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	return daemonOf(t, p, nil)
}

// daemonOf is daemon, run as another user.
func daemonOf(t *testing.T, p daemonPlan, user *syscall.Credential) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	plan, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	if user != nil {
		// The folder of the test binary may be closed to other users.
		cmd = exec.Command("/proc/self/fd/3")
		program, err := os.Open(self)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = program.Close() }()
		cmd.ExtraFiles, cmd.SysProcAttr = []*os.File{program}, &syscall.SysProcAttr{Credential: user}
	}
	cmd.Env = append(os.Environ(), daemonEnv+"="+string(plan))
	cmd.Stderr = os.Stderr
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	reader := bufio.NewReader(output)
	if line, err := reader.ReadString('\n'); err != nil || line != "spawning\n" {
		t.Fatalf("got %q, %v from the daemon, want spawning", line, err)
	}
	return cmd, reader
}

// holding lists the processes whose environment contains dir: stages and runtimes of that daemon.
func holding(t *testing.T, dir string) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && bytes.Contains(environment, []byte("HOME="+dir)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// R2, T8: a daemon that is killed at any time leaves no runtime, and the next start works. SPAWN_KILLS sets the number
// of tries.
func TestNoOrphans(t *testing.T) {
	tries := 15
	if n, err := strconv.Atoi(os.Getenv("SPAWN_KILLS")); err == nil {
		tries = n
	}
	p := daemonPlan{Model: spawntest.Model(t, map[string]any{"serve": true}), Runtime: spawntest.Runtime(t), Dir: spawntest.Dir(t)}
	lived := 0
	for i := range tries {
		cmd, _ := daemon(t, p)
		time.Sleep(rand.N(80 * time.Millisecond))
		if len(holding(t, p.Dir)) > 0 {
			lived++
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		// On a busy machine a killed process takes some time to end.
		within(t, 10*time.Second, fmt.Sprintf("the end of what daemon %d started", i), func() bool { return len(holding(t, p.Dir)) == 0 })
		if _, err := spawn.Reclaim(t.Context(), recordIn(p.Dir), p.Dir); err != nil {
			t.Fatal(err)
		}
		if entries, err := os.ReadDir(p.Dir); err != nil || len(entries) > 0 {
			t.Fatalf("try %d: got %v, %v after the next start, want nothing left", i, entries, err)
		}
	}
	t.Logf("%d of %d daemons were killed while a stage or runtime lived; none left one", lived, tries)
	if lived == 0 {
		t.Error("got no try with a living stage or runtime, want some: the delays are wrong")
	}
}

// R2: other threads of the daemon may start and end; only the end of the daemon itself ends the runtime.
func TestSurvivesThreads(t *testing.T) {
	started := start(t, spawntest.Spec(t, map[string]any{"serve": true}))
	awaitHealthy(t, started)
	for range 50 {
		done := make(chan struct{})
		go func() {
			// A locked goroutine that ends also ends its thread.
			lockThread()
			close(done)
		}()
		<-done
	}
	time.Sleep(20 * time.Millisecond)
	if err := spawn.Health(t.Context(), started.BackEnd, started.Handle.PID()); err != nil {
		t.Error(err)
	}
}

// R7: Reclaim ends the recorded process of an earlier daemon, and removes its record and folders.
func TestReclaim(t *testing.T) {
	dir := spawntest.Dir(t)
	left := leftOver(t, dir)
	if err := os.Mkdir(filepath.Join(dir, "backend-old"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".runtime.json123"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ended, err := spawn.Reclaim(t.Context(), recordIn(dir), dir)
	if err != nil || !ended {
		t.Errorf("got %v, %v, want true, nil", ended, err)
	}
	if err := left.Wait(); err == nil || left.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("got %v as the end of the leftover, want SIGKILL", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("got %v, %v left, want nothing", entries, err)
	}
}

// R2, R7: a process of the same program in the session of the recorded process is ended too, even if the recorded one
// has ended. A process of another program in the session is left alone.
func TestReclaimEndsSession(t *testing.T) {
	dir := spawntest.Dir(t)
	hostile := spawntest.Runtime(t)
	program := filepath.Join(hostile.Dir, hostile.Executable)
	shell := exec.Command("/bin/sh", "-c", `"$1" --model "$2" & echo $!; sleep 300 & echo $!; exec "$1" --model "$2"`,
		"sh", program, spawntest.Model(t, nil).Path)
	shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	output, err := shell.StdoutPipe()
	if err == nil {
		err = shell.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var same, other int
	if _, err := fmt.Fscan(output, &same, &other); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, pid := range []int{same, other} {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	for _, pid := range []int{shell.Process.Pid, same} {
		within(t, 5*time.Second, "the execution", func() bool {
			target, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
			return target == program
		})
	}
	f, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := spawn.WriteRecord(recordIn(dir), shell.Process.Pid, f); err != nil {
		t.Fatal(err)
	}
	_ = shell.Process.Kill()
	_ = shell.Wait()
	if _, err := spawn.Reclaim(t.Context(), recordIn(dir), dir); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "the end of what was left", func() bool { return !livesOn(same) })
	if !livesOn(other) {
		t.Error("got a killed process of another program, want it alive")
	}
}

// livesOn reports whether a process runs; a zombie does not.
func livesOn(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// leftOver starts a process without a daemon, and writes its record.
func leftOver(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	hostile := spawntest.Runtime(t)
	program := filepath.Join(hostile.Dir, hostile.Executable)
	cmd := exec.Command(program, "--model", spawntest.Model(t, nil).Path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	f, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	within(t, time.Second, "the execution", func() bool {
		target, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", cmd.Process.Pid))
		return target == program
	})
	if err := spawn.WriteRecord(recordIn(dir), cmd.Process.Pid, f); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// R7, T8: a process with the recorded id that differs in any other value is left alone.
func TestRecycledProcessIDIsUntouched(t *testing.T) {
	change := map[string]func(map[string]any){
		"another start time":  func(r map[string]any) { r["startTime"] = r["startTime"].(float64) + 1 },
		"another program":     func(r map[string]any) { r["inode"] = r["inode"].(float64) + 1 },
		"another file system": func(r map[string]any) { r["device"] = r["device"].(float64) + 1 },
		"another boot":        func(r map[string]any) { r["boot"] = "x" },
		"no identity":         func(r map[string]any) { delete(r, "startTime"); delete(r, "boot") },
		"process 1":           func(r map[string]any) { r["pid"] = 1 },
		"everybody":           func(r map[string]any) { r["pid"] = -1 },
		"our own group":       func(r map[string]any) { r["pid"] = 0 },
	}
	for name, change := range change {
		t.Run(name, func(t *testing.T) {
			dir := spawntest.Dir(t)
			bystander := leftOver(t, dir)
			data, err := os.ReadFile(recordIn(dir))
			if err != nil {
				t.Fatal(err)
			}
			var r map[string]any
			if err := json.Unmarshal(data, &r); err != nil {
				t.Fatal(err)
			}
			change(r)
			if data, err = json.Marshal(r); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(recordIn(dir), data, 0o600); err != nil {
				t.Fatal(err)
			}
			if ended, err := spawn.Reclaim(t.Context(), recordIn(dir), dir); err != nil || ended {
				t.Errorf("got %v, %v, want false, nil", ended, err)
			}
			if err := bystander.Process.Signal(syscall.Signal(0)); err != nil {
				t.Errorf("got %v for the other process, want it alive", err)
			}
			if _, err := os.Stat(recordIn(dir)); !os.IsNotExist(err) {
				t.Errorf("got %v for the record, want it removed", err)
			}
		})
	}
}

// R7: an unreadable record ends no process and prevents no start.
func TestBrokenRecord(t *testing.T) {
	dir := spawntest.Dir(t)
	for _, content := range []string{"", "{", `{"pid":"x"}`, "[]"} {
		if err := os.WriteFile(recordIn(dir), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if ended, err := spawn.Reclaim(context.Background(), recordIn(dir), dir); err != nil || ended {
			t.Errorf("%q: got %v, %v, want false, nil", content, ended, err)
		}
	}
	if ended, err := spawn.Reclaim(context.Background(), recordIn(dir), filepath.Join(dir, "none")); err != nil || ended {
		t.Errorf("without a record: got %v, %v, want false, nil", ended, err)
	}
}

// X8: the hardened daemon is not dumpable and writes no core file, and its runtime still starts.
func TestHarden(t *testing.T) {
	p := daemonPlan{Model: spawntest.Model(t, map[string]any{"serve": true}), Runtime: spawntest.Runtime(t), Dir: spawntest.Dir(t)}
	cmd, output := daemon(t, p)
	line, err := output.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "runtime ") || !strings.Contains(line, " dumpable 0 <nil> ") {
		t.Fatalf("got %q, %v from the daemon, want a runtime and dumpable 0", line, err)
	}
	limits := readProc(t, fmt.Sprintf("/proc/%d/limits", cmd.Process.Pid))
	if !strings.Contains(limits, "Max core file size        0                    0 ") {
		t.Errorf("got the limits, want none for core files:\n%s", limits)
	}
}

func lockThread() { runtime.LockOSThread() }
