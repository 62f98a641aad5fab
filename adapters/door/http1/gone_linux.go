package http1

import (
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peer asks the system whether the other end is there, which it tells however much that has sent
// unread. What asking takes is made once: many ask twenty times a second, and beside their streams'
// events, so that Go's scheduler does not see it either (package prompt).
type peer struct {
	raw  syscall.RawConn // nil until it is asked
	poll func(fd uintptr)
	told unix.PollFd
	wait unix.Timespec // none
}

// left reports whether the other end has closed its side; not known: c is no socket.
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
	// When it fails it tells no event: the other end is there, as far as we know.
	_, _, _ = unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p.told)), 1, uintptr(unsafe.Pointer(&p.wait)), 0, 0, 0)
}

func readNow(c net.Conn, p []byte) (int, error) { return readSoon(c, p) }
