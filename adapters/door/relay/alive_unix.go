//go:build unix

package relay

import (
	"net"
	"syscall"
	"time"
)

// alive reports whether an idle connection is open and has no unread data. Otherwise it cannot be used. The
// check costs one system call, and avoids a retry of a request that must not be sent twice.
func alive(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil || c.SetReadDeadline(time.Time{}) != nil { // an expired deadline would prevent the read
		return false
	}
	var quiet bool
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, err := syscall.Read(int(fd), b[:])
		quiet = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
		return true
	})
	return err == nil && quiet
}
