package probe

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const firstThreadEnv = "COMPANION_TEST_END_FIRST_THREAD"

func init() {
	if os.Getenv(firstThreadEnv) == "" {
		return
	}
	runtime.LockOSThread() // init runs on the first thread
	go func() {
		for unix.Tgkill(os.Getpid(), os.Getpid(), 0) == nil && !zombie(os.Getpid()) {
			time.Sleep(time.Millisecond)
		}
		fmt.Println("ended")
		time.Sleep(time.Minute)
		os.Exit(1)
	}()
	_, _, _ = syscall.Syscall(unix.SYS_EXIT, 0, 0, 0)
}

// zombie reports whether the first thread of a process has ended.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/stat", pid, pid))
	if err != nil {
		return true
	}
	for i := len(stat) - 1; i >= 0; i-- {
		if stat[i] == ')' {
			return stat[i+2] == 'Z'
		}
	}
	return false
}

// P3: a living process that has ended its first thread hides its memory: that is a failed observation, not one of no memory.
func TestFirstThreadHasEnded(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), firstThreadEnv+"=x")
	output, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if line, err := bufio.NewReader(output).ReadString('\n'); line != "ended\n" {
		t.Fatalf("the child said %q, %v, want ended", line, err)
	}
	p := New()
	defer p.Close()
	seen, err := p.Observe(t.Context(), cmd.Process.Pid, time.Now())
	if err == nil || !seen.Failed {
		t.Errorf("got %+v, %v, want a failed observation", seen, err)
	}
	if cmd.Process.Signal(syscall.Signal(0)) != nil {
		t.Error("the child has ended: nothing is proven")
	}
}
