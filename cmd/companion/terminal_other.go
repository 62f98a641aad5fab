//go:build !unix

package main

// onSuspend does nothing: this system has no such signals.
func onSuspend(leave, enter func()) (stop func()) { return func() {} }

func suspend(leave, enter func()) {}

// The signals of a terminal's control characters, which this system does not send.
const (
	interruptSignal = iota
	suspendSignal
	quitSignal
)

// signalOwnGroup reports that no signal was sent.
func signalOwnGroup(int) bool { return false }
