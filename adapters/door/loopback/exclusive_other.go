//go:build !windows

package loopback

import "syscall"

// exclusive does nothing: this system refuses a second listener on the port, and Go never sets SO_REUSEPORT.
func exclusive(_, _ string, _ syscall.RawConn) error { return nil }
