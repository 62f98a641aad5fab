//go:build unix && !linux

package enrich

import "golang.org/x/sys/unix"

// setLockCommand: locks of the process, which keep two commands apart.
const setLockCommand = unix.F_SETLK
