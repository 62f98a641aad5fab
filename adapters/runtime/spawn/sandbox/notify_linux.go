package sandbox

import (
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// onOwnThread runs do on a thread that ends with it, and with it the filter that do installs.
func onOwnThread(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		do()
	}()
	<-done
}

// notificationsWork returns nil where a filter can ask another process about a call (Linux 5.0), and that process can
// let the call continue (5.5) or add a descriptor to the calling process (5.9). In a container whose own filter has a
// listener it returns an error: the kernel allows only one listener.
func notificationsWork() (err error) {
	onOwnThread(func() {
		if err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return
		}
		var filter []unix.SockFilter
		if filter, err = encode([]bpf.Instruction{give(allow)}); err != nil {
			return
		}
		var listener int
		if listener, err = install(filter, true); err != nil {
			return
		}
		defer func() { _ = unix.Close(listener) }()
		// The kernel looks up the notification last. ENOENT, as there is none, means that it accepted the rest.
		request := [6]uint32{3: uint32(listener)} // struct seccomp_notif_addfd: id, flags, source, target, mode
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_ADDFD, uintptr(unsafe.Pointer(&request)))
		if errno != unix.ENOENT {
			err = errors.New("descriptors cannot be added")
		}
	})
	return err
}

// onceCanaries tries the calls that are allowed once as they are afterwards, when no process holds the
// notification descriptor. They run on a thread of their own.
func onceCanaries(filter []unix.SockFilter, p Policy, socket int) (failed string) {
	onOwnThread(func() {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			failed = "no_new_privs"
			return
		}
		listener, err := install(filter, true)
		if err != nil {
			failed = "seccomp"
			return
		}
		_ = unix.Close(listener)
		failed = failing([]attempt{
			{"a second execution", func() error { return executeNothing(uintptr(p.ExecFD), unix.AT_EMPTY_PATH) }, byAbsence},
			{"a second bind", func() error {
				return unix.Bind(socket, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
			}, byAbsence},
		})
	})
	return failed
}
