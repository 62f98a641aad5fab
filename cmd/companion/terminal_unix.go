//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// exitQuit is 128 and the number of SIGQUIT, as shells show it.
const exitQuit = 131

// onSuspend calls leave before the process is suspended or quits, and enter after it resumes, until stop.
func onSuspend(leave, enter func()) (stop func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTSTP, syscall.SIGQUIT)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case got := <-signals:
				if got == syscall.SIGQUIT {
					leave()
					os.Exit(exitQuit)
				}
				suspend(leave, enter)
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
		<-ended
	}
}

// suspend stops the process as the terminal's suspend character does, and returns when it runs again.
func suspend(leave, enter func()) {
	resumed := make(chan os.Signal, 1)
	signal.Notify(resumed, syscall.SIGCONT)
	defer signal.Stop(resumed)
	leave()
	// SIGSTOP, since SIGTSTP is caught; for the shell both are a stopped job. In an orphaned process group no shell
	// could resume it, but there the kernel sends no SIGTSTP either.
	if err := syscall.Kill(os.Getpid(), syscall.SIGSTOP); err == nil {
		<-resumed
	}
	enter()
}

// The signals that a terminal sends for its control characters.
const (
	interruptSignal = syscall.SIGINT
	suspendSignal   = syscall.SIGTSTP
	quitSignal      = syscall.SIGQUIT
)

// signalOwnGroup signals the process group, as a terminal does for a control character that raw mode has turned into a
// key. In an orphaned group no suspend is sent, because no shell could resume it.
func signalOwnGroup(signal syscall.Signal) bool {
	if signal == suspendSignal {
		if session, err := unix.Getsid(0); err == nil && session == syscall.Getpgrp() {
			return false
		}
	}
	return syscall.Kill(0, signal) == nil
}
