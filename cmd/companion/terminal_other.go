//go:build !unix

package main

// onSuspend does nothing: this system has no such signals.
func onSuspend(leave, enter func()) (stop func()) { return func() {} }

func suspend(leave, enter func()) {}
