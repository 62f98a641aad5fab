package spawn_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"companion/adapters/runtime/spawn"
	"companion/adapters/runtime/spawn/spawntest"
)

// startInGroup starts the hostile runtime, or skips the test where the runtime gets no control group with limits.
// `task emulate` boots kernels where it gets one.
func startInGroup(t *testing.T, spec spawn.Spec) spawn.Started {
	t.Helper()
	started := start(t, spec)
	if _, err := os.Stat(filepath.Join(groupOf(t, started.Handle.PID()), "memory.max")); err != nil {
		t.Skip("the system offers no control group with memory and pids: this test proves nothing")
	}
	return started
}

// groupOf returns the folder of a process's control group.
func groupOf(t *testing.T, pid int) string {
	t.Helper()
	_, group, _ := strings.Cut(readProc(t, fmt.Sprintf("/proc/%d/cgroup", pid)), "0::")
	group, _, _ = strings.Cut(group, "\n")
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if info, err := os.Stat(filepath.Join(root, group)); err == nil && info.IsDir() {
			return filepath.Join(root, group)
		}
	}
	return ""
}

// unconfined runs the hostile program without limits until it prints the line, which shows that the limits and nothing
// else stop it otherwise.
func unconfined(t *testing.T, script map[string]any, line string) {
	t.Helper()
	hostile := spawntest.Runtime(t)
	cmd := exec.CommandContext(t.Context(), filepath.Join(hostile.Dir, hostile.Executable), "--model", spawntest.Model(t, script).Path)
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	for scanner := bufio.NewScanner(output); scanner.Scan(); {
		if scanner.Text() == line {
			return
		}
	}
	t.Errorf("got an exit before the line, want %q", line)
}

// R5, T16: the kernel ends a runtime that takes more memory than its limit, also memory that RLIMIT_DATA does not count.
func TestMemoryLimitEndsRuntime(t *testing.T) {
	const limit = 512 // far more than the stage itself needs under the race detector
	script := map[string]any{"share": 2 * limit << 20, "startAfter": time.Second}
	spec := spawntest.Spec(t, script)
	spec.MemoryLimit = limit << 20
	var output lines
	spec.Line = output.add
	started := startInGroup(t, spec)
	if exit := <-started.Exit; exit.Signal != "killed" {
		t.Errorf("got %+v, want SIGKILL", exit)
	}
	if !output.has("shared 64 MiB") || output.has(fmt.Sprintf("shared %d MiB", limit)) {
		t.Errorf("got the output %q, want the limit of 512 MiB to stop it", output.all)
	}
	unconfined(t, script, "shared all")
}

// R5, T16: a runtime that starts threads without end reaches the limit. Processes are refused by seccomp
// (TestHostileRuntimeIsConfined) and count here as well (TestCgroupStopsForks).
func TestTaskLimitStopsThreads(t *testing.T) {
	script := map[string]any{"threads": 600, "startAfter": time.Second}
	spec := spawntest.Spec(t, script)
	var output lines
	spec.Line = output.add
	started := startInGroup(t, spec)
	exit := <-started.Exit
	refused := regexp.MustCompile(`have (\d+) already; errno=11`).FindStringSubmatch(output.find("failed to create new OS thread"))
	if refused == nil {
		t.Fatalf("got %+v and the output %q, want a refused thread", exit, output.all)
	}
	// The Go runtime also counts the refused thread, and one or two that are not threads of the kernel.
	if had, err := strconv.Atoi(refused[1]); err != nil || had < 400 || had > 516 {
		t.Errorf("got %s threads, %v, want 400 to 516", refused[1], err)
	}
	unconfined(t, script, "threads all")
}

// R5, R2: the next start removes the control group of a killed daemon.
func TestKilledDaemonLeavesNoGroup(t *testing.T) {
	p := daemonPlan{Model: spawntest.Model(t, map[string]any{"serve": true}), Runtime: spawntest.Runtime(t), Dir: spawntest.Dir(t)}
	cmd, output := daemon(t, p)
	line, err := output.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.Fields(line)[1])
	if err != nil {
		t.Fatalf("got %q, %v from the daemon, want the runtime's process id", line, err)
	}
	group := groupOf(t, pid)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if !strings.Contains(group, "/companion-runtime-") {
		t.Skip("the system offers no control group: this test proves nothing")
	}
	if _, err := os.Stat(group); err != nil {
		t.Fatalf("got %v for the killed daemon's group, want it there", err)
	}
	within(t, 5*time.Second, "the end of the runtime", func() bool { return len(holding(t, p.Dir)) == 0 })
	if _, err := spawn.Reclaim(t.Context(), recordIn(p.Dir), p.Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(group); !os.IsNotExist(err) {
		t.Errorf("got %v for the killed daemon's group, want it removed", err)
	}
}
