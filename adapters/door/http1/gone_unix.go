//go:build unix && !linux

package http1

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// peer is not implemented for this system; readAhead is used instead.
type peer struct{}

func (peer) left(net.Conn) (left, known bool) { return false, false }

// readNow reads what has arrived, without waiting. It returns os.ErrDeadlineExceeded when nothing has.
func readNow(c net.Conn, p []byte) (n int, err error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return readSoon(c, p)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	// A deadline that has passed would answer instead of the kernel.
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
