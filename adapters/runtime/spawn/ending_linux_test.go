package spawn_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"companion/adapters/runtime/spawn"
	"companion/adapters/runtime/spawn/spawntest"
)

// R9, A5: Ending returns when the runtime's threads end.
func TestEnding(t *testing.T) {
	started := start(t, spawntest.Spec(t, map[string]any{"serve": true}))
	awaitHealthy(t, started)
	stillRuns(t, started.Handle.PID())
	killed(t, started.Handle.PID())
	<-started.Exit
}

// R9: a single thread that ends is not the end of the process.
func TestThreadEndsAlone(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), threadsOf+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	said := bufio.NewReader(out)
	if _, err := said.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { waiting <- spawn.Ending(ctx, cmd.Process.Pid) }()
	before, watched := tasks(t, cmd.Process.Pid), 0
	for range lonelyThreads {
		if _, err := io.WriteString(in, "\n"); err != nil {
			t.Fatal(err)
		}
		line, err := said.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		id, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		for slices.Contains(tasks(t, cmd.Process.Pid), id) {
			runtime.Gosched()
		}
		if i := slices.Index(before, id); 0 < i && i <= 4 {
			watched++
		}
		stillRuns(t, cmd.Process.Pid)
	}
	if watched == 0 {
		t.Errorf("got no watched thread among those that ended, want some of %v", before)
	}
	select {
	case err := <-waiting:
		t.Fatalf("got a reported end (%v) of a running process, want none", err)
	default:
	}
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of its context: got %v, want context.Canceled", err)
	}
	killed(t, cmd.Process.Pid)
}

// R9: Ending also returns for a process whose threads had ended before the call, and whose parent has not waited for it.
func TestEndingOfAnEndedProcess(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), threadsOf+"=1")
	in, err := cmd.StdinPipe() // keeps it waiting
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, out); err != nil { // until its descriptors are closed
		t.Fatal(err)
	}
	for len(tasks(t, cmd.Process.Pid)) > 1 {
		runtime.Gosched()
	}
	if err := spawn.Ending(t.Context(), cmd.Process.Pid); err != nil {
		t.Errorf("got %v, want no error", err)
	}
}

func stillRuns(t *testing.T, pid int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	switch err := spawn.Ending(ctx, pid); {
	case errors.Is(err, syscall.EINVAL):
		t.Skip("the kernel is older than 6.9 and does not report the end of threads: this test proves nothing")
	case !errors.Is(err, context.DeadlineExceeded):
		t.Fatalf("while it runs: got %v, want the deadline", err)
	}
}

func killed(t *testing.T, pid int) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- spawn.Ending(t.Context(), pid) }()
	time.Sleep(10 * time.Millisecond) // so that Ending usually waits already; both orders must work
	_ = syscall.Kill(pid, syscall.SIGKILL)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func tasks(t *testing.T, pid int) (ids []int) {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		id, err := strconv.Atoi(entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// threadsOf makes the test program a process whose threads end one at a time, one per line on standard input.
const (
	threadsOf     = "SPAWN_TEST_THREADS"
	lonelyThreads = 3
)

// An init function runs early enough for its threads to be among the first of the process.
func init() {
	if os.Getenv(threadsOf) == "" {
		return
	}
	release := make(chan struct{})
	ready := make(chan struct{})
	for range lonelyThreads {
		go func() {
			runtime.LockOSThread() // never unlocked, so that the thread ends with the goroutine
			ready <- struct{}{}
			<-release
			fmt.Println(syscall.Gettid())
		}()
	}
	for range lonelyThreads {
		<-ready
	}
	fmt.Println("ready")
	for in := bufio.NewReader(os.Stdin); ; {
		if _, err := in.ReadString('\n'); err != nil {
			os.Exit(0)
		}
		release <- struct{}{}
	}
}
