package http1

import (
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peer asks the kernel whether the other end is open, which works even when unread data precedes the end. Its arguments
// are prepared once, because each waiting request asks twenty times a second. It uses RawSyscall, like package
// lowlatency: the poll runs between the events of streams and must not hand over the processor.
type peer struct {
	raw  syscall.RawConn // nil until the first poll
	poll func(fd uintptr)
	told unix.PollFd
	wait unix.Timespec // zero: do not wait
}

// left reports whether the other end has closed its side. known is false when c is not a socket.
func (p *peer) left(c net.Conn) (left, known bool) {
	if p.raw == nil {
		sc, ok := c.(syscall.Conn)
		if !ok {
			return false, false
		}
		raw, err := sc.SyscallConn()
		if err != nil {
			return true, true
		}
		p.raw, p.poll = raw, p.ask
	}
	p.told.Revents = 0
	if p.raw.Control(p.poll) != nil {
		return true, true // closed on this side
	}
	return p.told.Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0, true
}

func (p *peer) ask(fd uintptr) {
	p.told.Fd, p.told.Events = int32(fd), unix.POLLRDHUP
	// A failed call reports no event, so the other end counts as open.
	_, _, _ = unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p.told)), 1, uintptr(unsafe.Pointer(&p.wait)), 0, 0, 0)
}

func readNow(c net.Conn, p []byte) (int, error) { return readSoon(c, p) }
