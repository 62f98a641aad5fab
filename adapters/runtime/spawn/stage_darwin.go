package spawn

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// StageMain stays as the parent of the runtime and holds the lifeline (R2): when the daemon ends,
// however it ends, the whole group is killed. Untested on real machines.
func StageMain() {
	report := json.NewEncoder(os.NewFile(reportFD, "report"))
	code, err := stage(report)
	if err != nil {
		_ = report.Encode(stageReport{Failed: err.Error()})
	}
	os.Exit(code)
}

func stage(report *json.Encoder) (int, error) {
	syscall.Umask(0o177)
	data, err := io.ReadAll(io.LimitReader(os.NewFile(planFD, "plan"), 1<<20))
	var p plan
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil {
		return 1, fmt.Errorf("reading the plan: %w", err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return 1, fmt.Errorf("forbidding core files: %w", err)
	}
	// The system cannot execute a descriptor: the path was verified, and is the user's own.
	cmd := &exec.Cmd{
		Path: p.Executable, Args: p.Args, Env: p.Env, Dir: "/", Stdout: os.Stdout, Stderr: os.Stderr,
		ExtraFiles: []*os.File{os.NewFile(modelFD, "model")},
	}
	// Caught, and so neither fatal here nor ignored by the child: the polite signal is for the runtime.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("starting the runtime: %w", pathless(err))
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.NewFile(lifelineFD, "lifeline"))
		_ = syscall.Kill(0, syscall.SIGKILL) // the group: the runtime and this process
	}()
	if err := report.Encode(stageReport{PID: cmd.Process.Pid}); err != nil {
		_ = syscall.Kill(0, syscall.SIGKILL)
	}
	_ = os.NewFile(reportFD, "report").Close()
	err = cmd.Wait()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		return 1, nil
	}
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		// Ends as the runtime did, so that the daemon sees the signal.
		_ = syscall.Kill(os.Getpid(), status.Signal())
	}
	return status.ExitStatus(), nil
}
