//go:build unix

package relay

import (
	"net"
	"syscall"
	"time"
)

// alive reports whether an idle connection is still open and silent. A peer that has closed it, or
// says something unasked, makes it unusable; asking costs one system call and spares the retry of a
// request that may not be sent twice.
func alive(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil || c.SetReadDeadline(time.Time{}) != nil { // one that has passed would answer for the system
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
