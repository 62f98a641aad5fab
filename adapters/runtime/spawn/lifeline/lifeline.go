//go:build darwin || linux

// Package lifeline runs a program under a parent that ends when the daemon ends, for whatever reason. It is for macOS,
// whose kernel does not tie a child's life to its parent's (R2). Linux has a better way, and builds this package so that
// its tests run there.
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

// Program is the program to run. It gets the null device, the output and error of this process, and the descriptors
// of the model's files, from number 3 on.
type Program struct {
	Path  string
	Args  []string
	Env   []string
	Model *os.File
	// Further are the other files of the model.
	Further []*os.File
}

// Hold runs the program in the process group that this process leads, passes its process id to started, and returns how
// it ended. When line reaches its end, or started fails, Hold kills the whole group, including this process. SIGTERM to
// the group ends the program; Hold survives it.
func Hold(p Program, line *os.File, started func(pid int) error) (syscall.WaitStatus, error) {
	var none syscall.WaitStatus
	if syscall.Getpgrp() != os.Getpid() {
		return none, errors.New("this process leads no group")
	}
	if err := closeOnExec(); err != nil {
		return none, err
	}
	// Caught, not ignored: the program would inherit an ignored signal.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM)
	go func() {
		_, _ = io.Copy(io.Discard, line)
		killGroup()
	}()
	cmd := &exec.Cmd{
		Path: p.Path, Args: p.Args, Env: p.Env, Dir: "/",
		Stdout: os.Stdout, Stderr: os.Stderr, ExtraFiles: append([]*os.File{p.Model}, p.Further...),
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

// closeOnExec closes the inherited descriptors in the program: otherwise the readers of the pipes would not see their
// end while the program holds them.
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

// End ends this process as the program ended, with the same status or signal, so that the daemon sees how the program
// ended.
func End(s syscall.WaitStatus) {
	if s.Signaled() {
		// Go's own handlers turn most signals into exit status 2 and a stack dump.
		restoreDefault(s.Signal())
		_ = syscall.Kill(os.Getpid(), s.Signal())
		time.Sleep(time.Second) // the signal may be delivered to another thread
	}
	os.Exit(s.ExitStatus())
}

// restoreDefault restores a signal's default action, which is all zeros in the structure of every system. The fourth
// argument is for Linux: the size of its signal set.
func restoreDefault(s syscall.Signal) {
	var action [64]byte
	_, _, _ = syscall.RawSyscall6(sigaction, uintptr(s), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
}
