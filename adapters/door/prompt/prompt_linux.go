package prompt

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn returns c with prompt reads and writes, or c itself where it is no socket. It may have one
// reader and one writer at a time.
func Conn(c net.Conn) net.Conn {
	socket, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return c
	}
	p := &conn{Conn: c, raw: raw}
	p.in.call, p.out.call = unix.SYS_RECVFROM, unix.SYS_SENDTO
	// Made once: a method value costs an allocation.
	p.in.do, p.out.do = p.in.move, p.out.move
	return p
}

type conn struct {
	net.Conn
	raw     syscall.RawConn
	in, out transfer
}

// transfer is a read or a write that is under way.
type transfer struct {
	call  uintptr // recvfrom(2), which is over with what is there, or sendto(2)
	data  []byte
	done  int
	errno syscall.Errno
	do    func(fd uintptr) bool // reports whether it is over; else it is called again when fd is ready
}

// begin forgets the last one.
func (t *transfer) begin(data []byte) { t.data, t.done, t.errno = data, 0, 0 }

// end returns what came of it, and keeps nothing of its data.
func (t *transfer) end(call string, err error) (int, error) {
	t.data = nil
	if err == nil && t.errno != 0 {
		err = os.NewSyscallError(call, t.errno)
	}
	return t.done, err
}

func (t *transfer) move(fd uintptr) bool {
	for t.done < len(t.data) {
		n, _, errno := unix.RawSyscall6(t.call, fd, uintptr(unsafe.Pointer(&t.data[t.done])), uintptr(len(t.data)-t.done),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			t.done += int(n)
			if t.call == unix.SYS_RECVFROM {
				return true
			}
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			t.errno = errno
			return true
		}
	}
	return true
}

func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.in.begin(p)
	n, err := c.in.end("recv", c.raw.Read(c.in.do))
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	c.out.begin(p)
	return c.out.end("send", c.raw.Write(c.out.do))
}

// SyscallConn is the descriptor's, for whoever asks about the other end.
func (c *conn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

// CloseWrite is the connection's, for whoever lets the other end read to the end.
func (c *conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return os.ErrInvalid
	}
	return half.CloseWrite()
}
