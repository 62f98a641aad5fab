package spawn

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const traceEnv = "COMPANION_TEST_TRACE"

// init makes a copy of the test a tracer that never waits for the traced process. The kernel lets no parent reap a traced
// process before its tracer has waited for it, so its parent sees a process that SIGKILL does not end.
func init() {
	pid, err := strconv.Atoi(os.Getenv(traceEnv))
	if err != nil {
		return
	}
	runtime.LockOSThread()
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0); errno != 0 {
		fmt.Println(errno)
		os.Exit(1)
	}
	fmt.Println("traced")
	time.Sleep(time.Minute)
	os.Exit(0)
}

// hold keeps a process from being reaped until the test calls release.
func hold(t *testing.T, pid int) (release func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", traceEnv, pid))
	output, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	release = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	t.Cleanup(release)
	if line, _ := bufio.NewReader(output).ReadString('\n'); line != "traced\n" {
		t.Skipf("this user may not trace: %q", line)
	}
	return release
}

// impatient shortens killPatience for the test.
func impatient(t *testing.T, patience time.Duration) {
	before := killPatience
	killPatience = patience
	t.Cleanup(func() { killPatience = before })
}

// R6, R9: a runtime that the kernel does not end is given up: Kill returns, the exit is reported once and says so, and what
// the next start needs is free. When it ends after all, it is reaped.
func TestUnendedRuntimeIsGivenUp(t *testing.T) {
	impatient(t, 50*time.Millisecond)
	p, plan := program(t, Require)
	g, _, err := become(p, plan)
	if err != nil {
		t.Fatal(err)
	}
	release := hold(t, g.pid())
	if err := os.WriteFile(p.spec.RecordPath, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	handle, exits, await := p.watch(g, done)
	go func() {
		defer close(done)
		await()
	}()
	for range 2 { // the second Kill returns at once
		handle.Kill(context.Background(), 0)
	}
	if !handle.Unended() {
		t.Fatal("Unended: got false, want true")
	}
	select {
	case exit := <-exits:
		if exit.Code != -1 || !strings.Contains(strings.Join(exit.LastLines, "\n"), "SIGKILL") {
			t.Errorf("got the exit %+v, want one that says that the kernel has not ended it", exit)
		}
	default:
		t.Fatal("no exit was reported")
	}
	if err := os.WriteFile(p.spec.RecordPath, nil, 0o600); err != nil { // of the next runtime
		t.Fatal(err)
	}
	release()
	<-done
	if _, err := os.Stat(p.spec.RecordPath); err != nil {
		t.Errorf("the late end removed the next runtime's record: %v", err)
	}
	if len(exits) > 0 {
		t.Error("got a second exit report, want one")
	}
}

// R6: a stage that the kernel does not end does not hold the start.
func TestUnendedStageIsAbandoned(t *testing.T) {
	impatient(t, 50*time.Millisecond)
	p, plan := program(t, Require)
	g, _, err := become(p, plan)
	if err != nil {
		t.Fatal(err)
	}
	release := hold(t, g.pid())
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.abandon()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("abandon did not return within 20 s, want it to")
		release()
		<-done
	}
}

// R7: Reclaim goes on when the kernel does not end the runtime of an earlier daemon, and says so.
func TestReclaimIsBounded(t *testing.T) {
	impatient(t, -time.Second)
	p, plan := program(t, Require)
	g, _, err := become(p, plan)
	if err != nil {
		t.Fatal(err)
	}
	defer g.wait()
	if err := writeRecord(p.spec.RecordPath, g.pid(), p.executable); err != nil {
		t.Fatal(err)
	}
	if _, err := Reclaim(t.Context(), p.spec.RecordPath, p.spec.RunDir); !errors.Is(err, ErrUnended) {
		t.Errorf("got %v, want %v", err, ErrUnended)
	}
	if entries, _ := os.ReadDir(p.spec.RunDir); len(entries) > 0 {
		t.Errorf("left %v, want nothing", entries)
	}
}
