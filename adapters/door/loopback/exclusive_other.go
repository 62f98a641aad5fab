//go:build !windows

package loopback

import "syscall"

// exclusive changes nothing: the system refuses a second listener on the port by itself, and Go
// never sets SO_REUSEPORT.
func exclusive(_, _ string, _ syscall.RawConn) error { return nil }
