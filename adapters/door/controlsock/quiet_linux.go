package controlsock

import (
	"net"
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

// quietConn has a reader that runs as soon as something is written (A5). A reader that is woken from a
// processor where nothing else waits to run gets that processor. Where another thread of the daemon
// waits, it may be put behind the last thread of a dying runtime, which frees memory on another
// processor, until a tick of the scheduler (4 ms). So a write first lets those threads go to sleep, by
// a system call that Go's scheduler does not see.
type quietConn struct {
	net.Conn
	wrote time.Time
}

func quiet(conn net.Conn) net.Conn { return &quietConn{Conn: conn} }

func (c *quietConn) Write(p []byte) (int, error) {
	if time.Since(c.wrote) > onward {
		t := unix.NsecToTimespec(alone.Nanoseconds())
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
	}
	defer func() { c.wrote = time.Now() }()
	return c.Conn.Write(p)
}
