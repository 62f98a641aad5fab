//go:build !windows

package loopback

import "syscall"

const errInUse = syscall.EADDRINUSE
