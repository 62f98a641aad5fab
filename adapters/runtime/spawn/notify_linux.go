package spawn

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// notifications answers the two system calls that the stage's seccomp filter leaves to the daemon (R10): the one
// execution and the one bind. Both descriptors come from the stage: the notification descriptor, and the back-end
// socket, which is already bound and replaces the runtime's own. The daemon reads no argument in the runtime's memory,
// so another thread cannot exchange one. After the bind, or at an unexpected call, the notification descriptor is
// closed, and the kernel refuses every later execution and bind (ENOSYS).
type notifications struct {
	ours     *os.File // the daemon's end of the handover
	listener *os.File
	socket   int // the bound socket, -1 after it was handed over
	executed atomic.Bool
	done     chan struct{} // closed when answering has ended; nil before begin
}

// newNotifications also returns the stage's end of the handover socket.
func newNotifications() (n *notifications, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making the handover: %w", err)
	}
	n = &notifications{ours: os.NewFile(uintptr(pair[0]), "handover"), socket: -1}
	return n, os.NewFile(uintptr(pair[1]), "handover of the stage"), nil
}

// begin receives the descriptors from the stage and starts to answer. A panic of the answering goroutine goes to panics.
func (n *notifications) begin(panics chan any) error {
	raw, err := n.ours.SyscallConn()
	if err != nil {
		return err
	}
	control := make([]byte, unix.CmsgSpace(2*4))
	var received int
	var failed error
	err = raw.Control(func(fd uintptr) {
		_, received, _, _, failed = unix.Recvmsg(int(fd), make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("receiving the stage's descriptors: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:received])
	if err != nil || len(messages) != 1 {
		return errors.New("receiving the stage's descriptors: none came")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 2 {
		return errors.New("receiving the stage's descriptors: not two came")
	}
	// The Go runtime's poller waits for non-blocking descriptors.
	_ = unix.SetNonblock(fds[0], true)
	n.listener, n.socket, n.done = os.NewFile(uintptr(fds[0]), "notifications"), fds[1], make(chan struct{})
	go func() {
		defer close(n.done)
		defer func() {
			if p := recover(); p != nil {
				hand(panics, fmt.Sprintf("%v\n%s", p, debug.Stack()))
			}
			_ = n.listener.Close()
			if n.socket >= 0 {
				_ = unix.Close(n.socket)
			}
		}()
		n.answer()
	}()
	return nil
}

// answer returns after the bind, at the first unexpected call, and when no process is left that can ask.
func (n *notifications) answer() {
	for {
		asked, err := n.next()
		if err != nil {
			return
		}
		switch {
		case asked.number == unix.SYS_EXECVEAT && !n.executed.Load():
			// The stage, which runs our code, is the caller, and its other threads end with the execution: no thread can
			// exchange the program.
			n.executed.Store(true) // set before the execution is visible to callers of allowed
			if n.respond(response{id: asked.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}) != nil {
				n.executed.Store(false)
			}
		case asked.number == unix.SYS_BIND && n.executed.Load():
			err := n.replace(asked)
			if err == nil {
				err = n.respond(response{id: asked.id})
			}
			if !interrupted(err) {
				return
			}
		default:
			return
		}
	}
}

// interrupted reports whether a signal has interrupted the asking thread, which will ask again: before the request came
// (ENOENT), or while the kernel had it add the descriptor (ESRCH).
func interrupted(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

// The structures of seccomp_unotify(2).
type (
	notification struct {
		id             uint64
		pid, flags     uint32
		number, audit  uint32
		instruction    uint64
		args           [6]uint64
		grownByKernels [128]byte // a later kernel may write more
	}
	response struct {
		id    uint64
		value int64
		errno int32
		flags uint32
	}
	addFD struct {
		id                          uint64
		flags, source, target, mode uint32
	}
)

// next waits for a notification.
func (n *notifications) next() (asked notification, err error) {
	raw, err := n.listener.SyscallConn()
	if err != nil {
		return asked, err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		// Receiving blocks if there is nothing to receive. The descriptor is also readable when the last process ended.
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		switch count, err := unix.Poll(ready, 0); {
		case err == unix.EINTR || err == nil && count == 0:
			return false
		case err != nil:
			failed = err
			return true
		case ready[0].Revents&unix.POLLIN == 0:
			failed = os.ErrClosed
			return true
		}
		asked = notification{}
		switch errno := control(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&asked)); errno {
		case 0:
			return true
		case unix.ENOENT, unix.EINTR: // a signal interrupted the asking thread, which repeats the call
			return false
		default:
			failed = errno
			return true
		}
	})
	return asked, errors.Join(err, failed)
}

// respond fails when a signal interrupted the asking thread, which repeats the call.
func (n *notifications) respond(r response) error {
	return n.control(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
}

// replace puts the bound socket in the place of the descriptor in the bind call, in the same blocking mode.
func (n *notifications) replace(asked notification) error {
	fd := uint32(asked.args[0])
	if err := unix.SetNonblock(n.socket, nonblocking(asked.pid, fd)); err != nil {
		return err
	}
	return n.control(unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&addFD{
		id: asked.id, flags: unix.SECCOMP_ADDFD_FLAG_SETFD, source: uint32(n.socket), target: fd, mode: unix.O_CLOEXEC,
	}))
}

// nonblocking reports whether a thread's descriptor is non-blocking. If it cannot be read it counts as blocking, like
// the descriptor of llama-server.
func nonblocking(thread, fd uint32) bool {
	file, err := os.Open(fmt.Sprintf("/proc/%d/fdinfo/%d", thread, fd))
	if err != nil {
		return false
	}
	defer func() { _ = file.Close() }()
	var position int64
	var flags int
	_, err = fmt.Fscanf(file, "pos:\t%d\nflags:\t%o\n", &position, &flags)
	return err == nil && flags&unix.O_NONBLOCK != 0
}

func (n *notifications) control(request uintptr, argument unsafe.Pointer) error {
	raw, err := n.listener.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		if errno := control(fd, request, argument); errno != 0 {
			failed = errno
		}
	}); err != nil {
		return err
	}
	return failed
}

func control(fd, request uintptr, argument unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(argument))
	return errno
}

// close stops the answering and waits until it has ended.
func (n *notifications) close() {
	if n == nil {
		return
	}
	_ = n.ours.Close()
	if n.done != nil {
		_ = n.listener.Close()
		<-n.done
	}
}

// allowed reports whether the one execution was requested and allowed. Without notifications it returns true.
func (n *notifications) allowed() bool { return n.done == nil || n.executed.Load() }
