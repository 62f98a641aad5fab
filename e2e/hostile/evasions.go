//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// nowhere is an unmapped address.
const nowhere = 1

// evasions are attempts that were written against an earlier filter, by reading its source.
func evasions(s Script) []attempt {
	attempts := append(executions(), bindings(s)...)
	return append(attempts, generated(s)...)
}

// executions attempt to run a second program.
func executions() []attempt {
	loader := "/lib64/ld-linux-x86-64.so.2"
	if runtime.GOARCH == "arm64" {
		loader = "/lib/ld-linux-aarch64.so.1"
	}
	return []attempt{
		{"execute a path by every descriptor", func() error { return executeBy("/proc/self/exe", "hostile") }},
		{"execute a shell by every descriptor", func() error { return executeBy("/bin/sh", "sh", "-c", "true") }},
		{"execute through the loader", func() error { return executeBy(loader, "ld.so", "/bin/true") }},
		{"execute the loader by its path", func() error { return unix.Exec(loader, []string{"ld.so", "/bin/true"}, nil) }},
		{"execute from another thread", func() error {
			failed := make(chan error)
			go func() {
				runtime.LockOSThread()
				failed <- executeBy("/proc/self/exe", "hostile")
			}()
			return <-failed
		}},
		{"execute from all threads at once", func() error {
			failed := make(chan error)
			for range 8 {
				go func() {
					runtime.LockOSThread()
					failed <- executeBy("", "hostile")
				}()
			}
			var last error
			for range 8 {
				last = <-failed
			}
			return last
		}},
	}
}

// executeBy executes through each descriptor that the filter may allow, with each flag. An absolute path makes the kernel
// ignore the descriptor. It returns only if nothing was executed.
func executeBy(path string, args ...string) error {
	name, _ := unix.BytePtrFromString(path)
	argv, _ := syscall.SlicePtrFromStrings(args)
	env, _ := syscall.SlicePtrFromStrings(nil)
	var last error = errors.New("none was tried")
	for fd := range uintptr(1100) {
		for _, flags := range []uintptr{0, unix.AT_EMPTY_PATH} {
			_, _, last = unix.RawSyscall6(unix.SYS_EXECVEAT, fd, uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&argv[0])),
				uintptr(unsafe.Pointer(&env[0])), flags, 0)
		}
	}
	return last
}

// bindings attempt to receive on a socket other than the back end's, which was bound before.
func bindings(s Script) []attempt {
	home := os.Getenv("HOME")
	bind := func(name string) error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
			return err
		}
		return unix.Listen(fd, 1)
	}
	return []attempt{
		{"listen on an abstract name", func() error { return bind(fmt.Sprintf("@hostile-%d", os.Getpid())) }},
		{"listen on a name that the kernel chooses", func() error { return bind("") }},
		{"listen on a path of its home", func() error { return bind(filepath.Join(home, "second.sock")) }},
		{"listen on a path outside", func() error { return bind(filepath.Join(s.Outside, "second.sock")) }},
		{"fill its home with sockets", func() error {
			var last error
			for i := range 100 {
				last = bind(filepath.Join(home, fmt.Sprint("s", i)))
			}
			return last
		}},
		{"listen without a name", func() error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(fd) }()
			return unix.Listen(fd, 1)
		}},
		{"make a file of its own", func() error {
			fd, err := unix.Open(filepath.Join(home, "file"), unix.O_CREAT|unix.O_WRONLY, 0o600)
			if err == nil {
				_ = unix.Close(fd)
			}
			return err
		}},
	}
}

// generated makes each system call that is allowed only with certain arguments, with other arguments, and with every
// call's number and -1 in the upper halves of the registers, which the kernel ignores.
func generated(s Script) []attempt {
	daemon := uintptr(os.Getppid())
	calls := []struct {
		name string
		try  func(garbage uintptr) error
	}{
		{"a TCP socket", func(g uintptr) error { return socketOf(g|unix.AF_INET, unix.SOCK_STREAM) }},
		{"a UDP socket", func(g uintptr) error { return socketOf(g|unix.AF_INET, g|unix.SOCK_DGRAM) }},
		{"an IPv6 socket", func(g uintptr) error { return socketOf(g|unix.AF_INET6, unix.SOCK_DGRAM) }},
		{"a netlink socket", func(g uintptr) error { return socketOf(g|unix.AF_NETLINK, unix.SOCK_RAW) }},
		{"a vsock socket", func(g uintptr) error { return socketOf(g|unix.AF_VSOCK, unix.SOCK_STREAM) }},
		{"a Unix datagram socket", func(g uintptr) error { return socketOf(g|unix.AF_UNIX, g|unix.SOCK_DGRAM) }},
		{"a message to an address", func(g uintptr) error { return raw(unix.SYS_SENDTO, ^uintptr(0), 0, 0, 0, g|nowhere, 16) }},
		{"a process", func(g uintptr) error { return clone(g | uintptr(unix.SIGCHLD)) }},
		{"a process by a call's number as flags", func(g uintptr) error { return clone((g >> 32) & 0xff) }},
		{"a signal to the daemon", func(g uintptr) error { return raw(unix.SYS_KILL, g|daemon, 0) }},
		{"a signal to all", func(g uintptr) error { return raw(unix.SYS_KILL, g|0xffffffff, 0) }},
		{"a signal to a thread of the daemon", func(g uintptr) error { return raw(unix.SYS_TGKILL, g|daemon, daemon, 0) }},
		{"the daemon's limits", func(g uintptr) error { return raw(unix.SYS_PRLIMIT64, g|daemon, unix.RLIMIT_CORE) }},
		{"its own limits", func(g uintptr) error { return raw(unix.SYS_PRLIMIT64, g, unix.RLIMIT_CORE, g|nowhere) }},
		{"the daemon's processors", func(g uintptr) error { return raw(unix.SYS_SCHED_SETAFFINITY, g|daemon, 0) }},
		{"the daemon's locks", func(g uintptr) error { return raw(unix.SYS_GET_ROBUST_LIST, g|daemon, nowhere, nowhere) }},
		{"the owner of a descriptor", func(g uintptr) error { return raw(unix.SYS_FCNTL, 0, g|unix.F_GETOWN) }},
		{"the parent-death signal", func(g uintptr) error { return raw(unix.SYS_PRCTL, g|unix.PR_GET_PDEATHSIG, nowhere) }},
		{"a file to write", func(g uintptr) error { return raw(unix.SYS_OPENAT, 0, nowhere, g|unix.O_CREAT) }},
		{"an execution by descriptor", func(g uintptr) error { return raw(unix.SYS_EXECVEAT, g|3, nowhere, 0, 0, g|unix.AT_EMPTY_PATH) }},
		{"an execution without a flag", func(g uintptr) error { return raw(unix.SYS_EXECVEAT, g|1024, nowhere) }},
		{"a second execution", func(g uintptr) error { return raw(unix.SYS_EXECVEAT, g|1024, nowhere, 0, 0, g|unix.AT_EMPTY_PATH) }},
		{"a second bind", func(g uintptr) error { return raw(unix.SYS_BIND, g|0xffff, nowhere, g|2) }},
	}
	var attempts []attempt
	for _, c := range calls {
		attempts = append(attempts, attempt{"get past the filter: " + c.name, func() error { return pastFilter(c.try) }})
	}
	if s.GPU {
		return attempts
	}
	return append(attempts, attempt{"get past the filter: a request to a terminal", func() error {
		return pastFilter(func(g uintptr) error { return raw(unix.SYS_IOCTL, 0, g|unix.TIOCGPGRP) })
	}})
}

// pastFilter returns nil at the first garbage with which the call reached the kernel: any error other than the filter's
// comes from the kernel.
func pastFilter(try func(garbage uintptr) error) error {
	var last error
	for number := range uintptr(470) {
		if last = try(number << 32); !byFilter(last) {
			return nil
		}
	}
	minusOne := ^uintptr(0)
	if last = try(minusOne << 32); !byFilter(last) {
		return nil
	}
	return last
}

func byFilter(err error) bool { return errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) }

func raw(number uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, errno := unix.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
		return errno
	}
	return nil
}

func socketOf(domain, kind uintptr) error {
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, domain, kind, 0)
	if errno != 0 {
		return errno
	}
	_ = unix.Close(int(fd))
	return nil
}

// see reports whether the existence of a file is visible. No layer prevents that: Landlock does not restrict stat(2).
func see(path string) error {
	var info unix.Stat_t
	return unix.Stat(path, &info)
}
