//go:build !linux

package probe

// Cores returns 0: the runtime chooses its threads.
func Cores() int { return 0 }
