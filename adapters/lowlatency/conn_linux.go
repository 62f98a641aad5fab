package lowlatency

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn returns c with reads and writes that use RawSyscall, which bypasses entersyscall (RawSocketIO), or c
// itself if it is not a socket or the measure is off.
//
// An ordinary system call after a moment of idleness wakes the monitor thread of Go's scheduler (sysmon),
// which costs a streamed event a tenth of its delay and competes with the reader for a processor. The calls
// here never block, so the scheduler does not need to know of them; waiting still goes through the network
// poller, with its deadlines. The connection may have one reader and one writer at a time.
func Conn(c net.Conn) net.Conn {
	if !Uses(RawSocketIO) {
		return c
	}
	socket, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return c
	}
	r := &conn{Conn: c, raw: raw}
	r.in.call, r.out.call = unix.SYS_RECVFROM, unix.SYS_SENDTO
	// Stored once, because a method value costs an allocation.
	r.in.do, r.out.do = r.in.move, r.out.move
	return r
}

type conn struct {
	net.Conn
	raw     syscall.RawConn
	in, out transfer
}

// transfer is the state of a read or write in progress.
type transfer struct {
	call  uintptr // recvfrom(2), which is done after the first bytes, or sendto(2)
	data  []byte
	done  int
	errno syscall.Errno
	do    func(fd uintptr) bool // reports whether it is done; if not, the poller calls it again when fd is ready
}

func (t *transfer) begin(data []byte) { t.data, t.done, t.errno = data, 0, 0 }

// end returns the result and drops the reference to the caller's data.
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

// SyscallConn gives access to the descriptor, for example to read peer credentials.
func (c *conn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

// CloseWrite shuts down the writing side, so that the peer reads until the end.
func (c *conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return os.ErrInvalid
	}
	return half.CloseWrite()
}
