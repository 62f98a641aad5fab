package harness

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// commandWithin bounds one command; the longest answers of the model take about ten seconds.
	commandWithin = 2 * time.Minute
	// stopWithin bounds a normal shutdown: drain, runtime, keychain.
	stopWithin = 45 * time.Second
	// logEnd is how much of a log a failed test prints, in bytes.
	logEnd = 6000
)

// Process is a program that a test runs.
type Process struct {
	t       testing.TB
	Name    string
	PID     int
	LogFile string // standard error, and standard output if it is not read
	process *os.Process
	ended   chan struct{}
	code    int  // after ended; -1 for a signal
	dumped  bool // after ended: it left a core file
}

// start runs a program until the test ends. Its output goes to stdout or, if that is nil, together with its standard error
// to a log file in dir.
func start(t testing.TB, dir, name string, stdout io.Writer, env []string, args ...string) *Process {
	t.Helper()
	return launch(t, dir, name, Binary(t, name), stdout, env, args...)
}

func launch(t testing.TB, dir, name, program string, stdout io.Writer, env []string, args ...string) *Process {
	t.Helper()
	log, err := os.CreateTemp(dir, name+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, log, log
	if stdout != nil {
		cmd.Stdout = stdout
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	p := &Process{t: t, Name: name, LogFile: log.Name(), ended: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The parent-death signal follows the thread that started the child. The thread is not
		// unlocked: it ends with this goroutine, after the child.
		runtime.LockOSThread()
		defer log.Close()
		defer close(p.ended)
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait()
		p.code = cmd.ProcessState.ExitCode()
		status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
		p.dumped = ok && status.CoreDump()
	}()
	if err := <-started; err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	p.process, p.PID = cmd.Process, cmd.Process.Pid
	t.Cleanup(func() {
		_ = p.process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("the end of the log of %s %s:\n%s", name, strings.Join(args, " "), end(p.LogFile))
		}
	})
	return p
}

func end(file string) []byte {
	data, err := os.ReadFile(file)
	if err != nil {
		return []byte(err.Error())
	}
	return data[max(0, len(data)-logEnd):]
}

// Running reports whether the program has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Signal sends s.
func (p *Process) Signal(s os.Signal) {
	p.t.Helper()
	if err := p.process.Signal(s); err != nil {
		p.t.Errorf("signalling %s: %v", p.Name, err)
	}
}

// Wait waits for the program's end and returns its exit code, -1 for a signal.
func (p *Process) Wait(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.code
	case <-time.After(limit):
		p.t.Fatalf("%s runs, want its end within %v", p.Name, limit)
		return 0
	}
}

// Stop sends SIGTERM to the program, and checks that the exit code is 0, which also says that the race detector found
// nothing.
func (p *Process) Stop() {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(stopWithin); code != 0 {
		p.t.Errorf("%s: got code %d after SIGTERM, want 0:\n%s", p.Name, code, end(p.LogFile))
	}
}

// Kill ends the program with SIGKILL.
func (p *Process) Kill() {
	_ = p.process.Kill()
	<-p.ended
}

// Dumped reports whether the program, which has ended, left a core file.
func (p *Process) Dumped() bool { return p.dumped }

// Output returns the program's output so far, if it goes to the log file.
func (p *Process) Output() string {
	data, err := os.ReadFile(p.LogFile)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(data)
}

// Result is a finished command.
type Result struct {
	Args   []string
	Code   int
	Stdout string
	Stderr string
}

// runCommand runs a program to its end.
func runCommand(t testing.TB, name, stdin string, env []string, args ...string) Result {
	t.Helper()
	return runProgram(t, Binary(t, name), stdin, env, args...)
}

// runProgram is runCommand for a program of the system.
func runProgram(t testing.TB, name, stdin string, env []string, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, strings.NewReader(stdin), &stdout, &stderr
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("running %s %v: got %v, want an exit status", name, args, err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%s %v runs, want its end within %v:\n%s%s", name, args, commandWithin, &stdout, &stderr)
	}
	return Result{args, cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// environment is the environment of a program: only the variables of the test that it needs.
func environment(home string, extra ...string) []string {
	env := []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "TMPDIR=" + filepath.Join(home, "tmp")}
	return append(env, extra...)
}
