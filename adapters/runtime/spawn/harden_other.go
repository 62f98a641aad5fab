//go:build !linux

package spawn

// Harden does nothing: macOS prevents attaching to a program with the hardened runtime, and Windows writes no core
// files. Both are untested on real machines.
func Harden() error { return nil }
