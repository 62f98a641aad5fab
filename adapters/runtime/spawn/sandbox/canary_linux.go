package sandbox

import (
	"errors"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attempt is one thing that must be refused. refusals are the errors that only the sandbox gives:
// with any other outcome the sandbox did not speak, whatever else was in the way.
type attempt struct {
	name     string
	try      func() error
	refusals []error
}

// failing returns the name of the first attempt that was not refused, or nothing.
func failing(attempts []attempt) string {
	for _, a := range attempts {
		err := a.try()
		refused := false
		for _, want := range a.refusals {
			refused = refused || errors.Is(err, want)
		}
		if !refused {
			return a.name
		}
	}
	return ""
}

var (
	byLandlock = []error{unix.EACCES}
	bySeccomp  = []error{unix.EPERM}
)

// landlockCanaries run before seccomp is in force, so that what they find is Landlock's doing.
func landlockCanaries(c Canary, abi, tcp int) string {
	var attempts []attempt
	for _, file := range c.Files {
		attempts = append(attempts,
			attempt{"reading a file", func() error { return readable(file) }, byLandlock},
			attempt{"writing a file", func() error { return open(file, unix.O_WRONLY) }, byLandlock})
	}
	attempts = append(attempts, []attempt{
		{"making a file", func() error { return open(filepath.Join(c.Dir, "canary-made"), unix.O_WRONLY|unix.O_CREAT) }, byLandlock},
		{"listing a folder", func() error { return open(c.Dir, unix.O_RDONLY|unix.O_DIRECTORY) }, byLandlock},
	}...)
	if abi >= 4 {
		attempts = append(attempts, attempt{"dialling TCP", func() error { return dialTCP(tcp) }, byLandlock})
	}
	return failing(attempts)
}

// seccompCanaries run last. A call that is let through must do no harm: each would fail or end with
// the process.
func seccompCanaries(p Policy, tcp int) string {
	attempts := []attempt{
		{"dialling TCP", func() error { return dialTCP(tcp) }, bySeccomp},
		{"dialling a Unix socket", dialUnix, bySeccomp},
		{"making an internet socket", func() error { _, err := newTCPSocket(); return err }, bySeccomp},
		{"making a datagram socket", func() error { return socket(unix.AF_UNIX, unix.SOCK_DGRAM) }, bySeccomp},
		{"making a netlink socket", func() error { return socket(unix.AF_NETLINK, unix.SOCK_RAW) }, bySeccomp},
		{"tracing a process", func() error { return call(unix.SYS_PTRACE, unix.PTRACE_PEEKUSR, 0) }, bySeccomp},
		{"asking for a key", func() error { return call(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, 0) }, bySeccomp},
		{"outliving the daemon", func() error { return unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0) }, bySeccomp},
		{"executing another descriptor", func() error { return executeEmpty(p.ExecFD - 1) }, bySeccomp},
	}
	if len(p.Devices) == 0 {
		attempts = append(attempts, attempt{"making an anonymous file", anonymousFile, bySeccomp})
	}
	return failing(attempts)
}

func readable(path string) error { return open(path, unix.O_RDONLY) }

func open(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

func newTCPSocket() (int, error) {
	return unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
}

func socket(domain, kind int) error {
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

// dialTCP dials the loopback discard port: without a sandbox nobody answers, with one nobody is asked.
func dialTCP(fd int) error {
	return unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}})
}

func anonymousFile() error {
	fd, err := unix.MemfdCreate("canary", unix.MFD_CLOEXEC)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

func dialUnix() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Connect(fd, &unix.SockaddrUnix{Name: "/nobody-listens-here"})
}

func call(number, a, b uintptr) error {
	if _, _, errno := unix.Syscall(number, a, b, 0); errno != 0 {
		return errno
	}
	return nil
}

// executeEmpty tries the one kind of execution that the filter knows with a descriptor that it must
// refuse. Without arguments even a success of the filter ends in an error.
func executeEmpty(fd int) error {
	empty, _ := unix.BytePtrFromString("")
	_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(empty)), 0, 0, unix.AT_EMPTY_PATH, 0)
	return errno
}
