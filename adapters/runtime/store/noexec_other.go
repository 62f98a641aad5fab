//go:build !linux

package store

func noexec(string) bool { return false }
