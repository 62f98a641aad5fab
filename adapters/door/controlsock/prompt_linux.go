package controlsock

import (
	"net"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// alone is how long the threads that a change of status wakes in the daemon take to sleep again.
	alone = 20 * time.Microsecond
	// onward is how soon a write follows another one that continues the same line.
	onward = time.Millisecond
)

// prompt makes conn one whose reader runs as soon as something is written (A5). A reader that is woken
// from a processor where nothing else waits to run gets that processor. Where another thread of the daemon
// waits, it may be put behind the last thread of a dying runtime, which frees memory on another processor, until
// a tick of the scheduler (4 ms). So a write lets the daemon's other threads go to sleep first, and is a
// system call that Go's scheduler does not see, because those wake its monitor thread.
func prompt(conn net.Conn) net.Conn {
	raw, err := rawConn(conn)
	if err != nil {
		return conn
	}
	return &promptConn{Conn: conn, raw: raw}
}

// promptConn has one writer at a time, as a connection of net/http has.
type promptConn struct {
	net.Conn
	raw   syscall.RawConn
	wrote time.Time
}

func (c *promptConn) Write(p []byte) (sent int, err error) {
	if time.Since(c.wrote) > onward {
		t := unix.NsecToTimespec(alone.Nanoseconds())
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
	}
	defer func() { c.wrote = time.Now() }()
	var failed error
	err = c.raw.Write(func(fd uintptr) (done bool) {
		for sent < len(p) {
			n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&p[sent])), uintptr(len(p)-sent),
				unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
			switch errno {
			case 0:
				sent += int(n)
			case unix.EINTR:
			case unix.EAGAIN:
				return false
			default:
				failed = errno
				return true
			}
		}
		return true
	})
	if err == nil {
		err = failed
	}
	return sent, err
}
