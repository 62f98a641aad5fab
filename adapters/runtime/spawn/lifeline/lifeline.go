//go:build darwin || linux

// Package lifeline runs a program under a parent that ends with the daemon, however that ends, for
// a system whose kernel does not tie a child's life to its parent's (R2): macOS. Linux has a better
// way, and builds this so that its tests run there.
package lifeline

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// Program is what to run. Beside the null device, and the output and error of this process, it is
// given one descriptor: the model's, as number 3.
type Program struct {
	Path  string
	Args  []string
	Env   []string
	Model *os.File
}

// Hold runs the program in the process group that this process leads, passes its process id to
// started, and returns how it ended. When line ends, or started fails, it kills the whole group,
// itself included. The polite signal to the group is for the program: Hold outlives it.
func Hold(p Program, line *os.File, started func(pid int) error) (syscall.WaitStatus, error) {
	var none syscall.WaitStatus
	if syscall.Getpgrp() != os.Getpid() {
		return none, errors.New("this process leads no group")
	}
	if err := closeOnExec(); err != nil {
		return none, err
	}
	// Caught, not ignored: what is ignored stays so in the program.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM)
	go func() {
		_, _ = io.Copy(io.Discard, line)
		killGroup()
	}()
	cmd := &exec.Cmd{
		Path: p.Path, Args: p.Args, Env: p.Env, Dir: "/",
		Stdout: os.Stdout, Stderr: os.Stderr, ExtraFiles: []*os.File{p.Model},
	}
	if err := cmd.Start(); err != nil {
		return none, err
	}
	if err := started(cmd.Process.Pid); err != nil {
		killGroup()
	}
	var ended *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &ended) {
		return none, err
	}
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return status, nil
}

func killGroup() { _ = syscall.Kill(0, syscall.SIGKILL) }

// closeOnExec keeps what this process was given from the program: the other end of a pipe that the
// program holds too would never see it end.
func closeOnExec() error {
	dir, err := os.Open("/dev/fd")
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err = errors.Join(err, dir.Close()); err != nil {
		return err
	}
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}

// End ends this process as the program ended, by the same status or signal, so that the daemon sees
// in the one how the other ended.
func End(s syscall.WaitStatus) {
	if s.Signaled() {
		// Go's own handlers would turn most signals into exit status 2 and a page of text.
		restoreDefault(s.Signal())
		_ = syscall.Kill(os.Getpid(), s.Signal())
		time.Sleep(time.Second) // another thread may be the one that takes it
	}
	os.Exit(s.ExitStatus())
}

// restoreDefault gives a signal its default action, which in all systems' structures is all zeros.
// The fourth argument is Linux's, the size of its set of signals.
func restoreDefault(s syscall.Signal) {
	var action [64]byte
	_, _, _ = syscall.RawSyscall6(sigaction, uintptr(s), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
}
