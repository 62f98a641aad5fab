//go:build unix && !linux

package http1

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// peer cannot tell here: what is asked of the system for it differs too much.
type peer struct{}

func (peer) left(net.Conn) (left, known bool) { return false, false }

// readNow reads what is there, without waiting. os.ErrDeadlineExceeded says that nothing is.
func readNow(c net.Conn, p []byte) (n int, err error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return readSoon(c, p)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	// A deadline that has passed would keep the system from being asked.
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return 0, err
	}
	var told error
	err = raw.Read(func(fd uintptr) bool {
		n, told = syscall.Read(int(fd), p)
		return true
	})
	switch {
	case err != nil:
		return 0, err
	case told == syscall.EAGAIN || told == syscall.EWOULDBLOCK || told == syscall.EINTR:
		return 0, os.ErrDeadlineExceeded
	case told != nil:
		return 0, told
	case n <= 0:
		return 0, io.EOF
	}
	return n, nil
}
