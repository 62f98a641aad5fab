package wire

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// peer asks the system whether the other end is there, which it tells however much that has sent
// unread. What asking takes is made once: many ask twenty times a second.
type peer struct {
	raw    syscall.RawConn // nil until it is asked
	poll   func(fd uintptr)
	events [1]unix.PollFd
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
	p.events[0].Revents = 0
	if p.raw.Control(p.poll) != nil {
		return true, true // closed on this side
	}
	return p.events[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0, true
}

func (p *peer) ask(fd uintptr) {
	p.events[0].Fd, p.events[0].Events = int32(fd), unix.POLLRDHUP
	_, _ = unix.Poll(p.events[:], 0) // fails with no event: it is there, as far as we know
}

func readNow(c net.Conn, p []byte) (int, error) { return readSoon(c, p) }
