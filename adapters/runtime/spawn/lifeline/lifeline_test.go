//go:build darwin || linux

package lifeline

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// role makes this test binary the stage, or the runtime instead of llama-server.
const role = "LIFELINE_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "stage":
		beStage()
	case "runtime":
		beRuntime()
	}
	goleak.VerifyTestMain(m)
}

// The descriptors of the stage.
const (
	modelFD = 3 + iota
	strayFD // the runtime must not inherit it
	reportFD
	lineFD
)

func beStage() {
	var p Program
	if err := json.Unmarshal([]byte(os.Args[1]), &p); err != nil {
		panic(err)
	}
	p.Model = os.NewFile(modelFD, "model")
	report := os.NewFile(reportFD, "report")
	status, err := Hold(p, os.NewFile(lineFD, "line"), func(pid int) error {
		_, err := fmt.Fprintln(report, pid)
		_ = report.Close()
		return err
	})
	if err != nil {
		fmt.Fprintln(report, err)
		os.Exit(99)
	}
	End(status)
}

// seen is what the runtime reports about its environment.
type seen struct {
	Args, Env []string
	Given     []int // descriptors
	Model     string
	Parent    int
	Group     int
}

func beRuntime() {
	polite := make(chan os.Signal, 1)
	signal.Notify(polite, syscall.SIGTERM)
	model, err := io.ReadAll(os.NewFile(modelFD, "model"))
	if err != nil {
		panic(err)
	}
	s := seen{Args: os.Args, Env: os.Environ(), Given: given(), Model: string(model), Parent: os.Getppid(), Group: syscall.Getpgrp()}
	if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
		panic(err)
	}
	<-polite
	code, _ := strconv.Atoi(os.Args[1])
	os.Exit(code)
}

// given lists the inherited descriptors. Descriptors that a Go program opens itself are close-on-exec.
func given() []int {
	var given []int
	for fd := range 64 {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			given = append(given, fd)
		}
	}
	return given
}

// held is a stage in its own group, and the test's ends of its pipes.
type held struct {
	cmd    *exec.Cmd
	line   *os.File      // the daemon's end
	report *bufio.Reader // ends when the stage alone has closed it
	output *bufio.Reader // ends when stage and runtime have both ended
}

func hold(t *testing.T, p Program) held {
	t.Helper()
	pipe := func() (*os.File, *os.File) {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = read.Close(), write.Close() })
		return read, write
	}
	outputRead, outputWrite := pipe()
	reportRead, reportWrite := pipe()
	lineRead, lineWrite := pipe()
	// A runtime that also held the report would keep it from ending.
	_ = reportRead.SetReadDeadline(time.Now().Add(10 * time.Second))
	model, err := os.Create(filepath.Join(t.TempDir(), "model"))
	if err == nil {
		_, err = model.WriteAt([]byte("weights"), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = model.Close() }()
	plan, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	h := held{
		cmd: &exec.Cmd{
			Path: self(t), Args: []string{"stage", string(plan)}, Env: []string{role + "=stage", "SECRET=planted"},
			Stdout: outputWrite, Stderr: os.Stderr, ExtraFiles: []*os.File{model, reportRead, reportWrite, lineRead},
			SysProcAttr: &syscall.SysProcAttr{Setsid: true},
		},
		line: lineWrite, report: bufio.NewReader(reportRead), output: bufio.NewReader(outputRead),
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-h.cmd.Process.Pid, syscall.SIGKILL)
		_ = h.cmd.Wait()
	})
	for _, theirs := range []*os.File{outputWrite, reportWrite, lineRead} {
		_ = theirs.Close()
	}
	return h
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func runtime(t *testing.T, code int) Program {
	return Program{Path: self(t), Args: []string{"runtime", strconv.Itoa(code)}, Env: []string{role + "=runtime", "HOME=/nowhere"}}
}

// pid reads the report to its end, which comes while the runtime runs; by that end the daemon knows that the runtime was
// executed.
func (h held) pid(t *testing.T) int {
	t.Helper()
	text, err := io.ReadAll(h.report)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscanf(string(text), "%d\n", &pid); err != nil {
		t.Fatalf("got the report %q: %v, want a process id", text, err)
	}
	return pid
}

func (h held) runs(t *testing.T) (s seen) {
	t.Helper()
	line, err := h.output.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &s)
	}
	if err != nil {
		t.Fatalf("got %q from the runtime: %v, want its report", line, err)
	}
	return s
}

// ended waits for the stage and for the end of every process that holds its output, including the runtime.
func (h held) ended(t *testing.T) syscall.WaitStatus {
	t.Helper()
	if rest, err := io.ReadAll(h.output); err != nil || len(rest) > 0 {
		t.Errorf("got more output %q, %v, want none", rest, err)
	}
	_ = h.cmd.Wait()
	return h.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// R2: the runtime has only the planned arguments, environment and descriptors.
func TestGivenNothingElse(t *testing.T) {
	p := runtime(t, 0)
	h := hold(t, p)
	pid := h.pid(t)
	s := h.runs(t)
	if !slices.Equal(s.Args, p.Args) || !slices.Equal(s.Env, p.Env) {
		t.Errorf("got the arguments %q and the environment %q, want %q and %q", s.Args, s.Env, p.Args, p.Env)
	}
	if !slices.Equal(s.Given, []int{0, 1, 2, modelFD}) || s.Model != "weights" {
		t.Errorf("got the descriptors %v and the model %q, want 0 to 3 and weights", s.Given, s.Model)
	}
	if s.Parent != h.cmd.Process.Pid || s.Group != h.cmd.Process.Pid {
		t.Errorf("got parent %d and group %d, want both to be the stage %d", s.Parent, s.Group, h.cmd.Process.Pid)
	}
	if group, err := syscall.Getpgid(pid); err != nil || group != h.cmd.Process.Pid {
		t.Errorf("got the reported process in group %d, %v, want %d", group, err, h.cmd.Process.Pid)
	}
}

// R2: when the daemon's end of the lifeline closes, the stage ends, and so does a runtime that would not end by itself.
func TestDaemonEnds(t *testing.T) {
	h := hold(t, runtime(t, 0))
	h.runs(t)
	_ = h.line.Close()
	if status := h.ended(t); status.Signal() != syscall.SIGKILL {
		t.Errorf("got %#x from the stage, want SIGKILL", status)
	}
}

// R2: a daemon that ended before the runtime was started leaves no process.
func TestDaemonEndedBefore(t *testing.T) {
	var p Program
	p.Path, p.Args = sleeper(t)
	h := hold(t, p)
	_ = h.line.Close()
	if status := h.ended(t); status.Signal() != syscall.SIGKILL {
		t.Errorf("got %#x from the stage, want SIGKILL", status)
	}
}

// R6: SIGTERM to the group reaches the runtime, and the stage survives to report its exit status.
func TestPoliteSignal(t *testing.T) {
	h := hold(t, runtime(t, 7))
	h.runs(t)
	if err := syscall.Kill(-h.cmd.Process.Pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := h.ended(t); status.ExitStatus() != 7 {
		t.Errorf("got %#x from the stage, want exit status 7", status)
	}
}

// R9: the stage ends by the same signal as the runtime, also for signals that Go handles.
func TestSameSignal(t *testing.T) {
	// The program would inherit a signal that nohup ignores for this test, but not one that is handled here.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for _, s := range []syscall.Signal{
		syscall.SIGTERM, syscall.SIGKILL, syscall.SIGABRT, syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGILL,
		syscall.SIGFPE, syscall.SIGTRAP, syscall.SIGSYS, syscall.SIGPIPE, syscall.SIGUSR1, syscall.SIGHUP,
	} {
		t.Run(s.String(), func(t *testing.T) {
			var p Program
			p.Path, p.Args = sleeper(t)
			h := hold(t, p)
			if err := syscall.Kill(h.pid(t), s); err != nil {
				t.Fatal(err)
			}
			if status := h.ended(t); status.Signal() != s {
				t.Errorf("got %#x from the stage, want the signal %v", status, s)
			}
		})
	}
}

// sleeper is a program that keeps the default action of every signal, which no Go program does.
func sleeper(t *testing.T) (path string, args []string) {
	t.Helper()
	path, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	return path, []string{"sleep", "600"}
}

// R2: a program that cannot be executed gives an error, which the stage itself reports.
func TestCannotStart(t *testing.T) {
	h := hold(t, Program{Path: filepath.Join(t.TempDir(), "absent"), Args: []string{"absent"}})
	text, err := io.ReadAll(h.report)
	if err != nil || len(text) == 0 {
		t.Errorf("got the report %q, %v, want an error text", text, err)
	}
	if status := h.ended(t); status.ExitStatus() != 99 {
		t.Errorf("got %#x from the stage, want exit status 99", status)
	}
}

// R6: Hold refuses to run when this process does not lead its group, because killing the group would kill unrelated
// processes.
func TestLeadsItsGroup(t *testing.T) {
	if syscall.Getpgrp() == os.Getpid() {
		t.Skip("this test leads its group")
	}
	if _, err := Hold(Program{}, nil, nil); err == nil {
		t.Error("got nil, want an error")
	}
}
