package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// attempt is one thing that must be refused. refusals are the errors that only the sandbox gives: any other outcome means
// that the sandbox did not decide, whatever else was in the way.
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
	byAbsence  = []error{unix.ENOSYS} // of the process that would be asked
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
	for _, path := range c.Outside {
		attempts = append(attempts, attempt{"reading outside of its folders", func() error { return readable(path) }, byLandlock})
	}
	if abi >= 4 {
		attempts = append(attempts, attempt{"dialling TCP", func() error { return dialTCP(tcp) }, byLandlock})
	}
	return failing(attempts)
}

// seccompCanaries run last. A call that is let through must do no harm: each would fail or end with the process.
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
		{"executing another descriptor", func() error { return executeNothing(uintptr(p.ExecFD-1), unix.AT_EMPTY_PATH) }, bySeccomp},
		{"executing a path", func() error { return call(unix.SYS_EXECVE, nowhere, 0) }, bySeccomp},
	}
	if len(p.Devices) == 0 {
		attempts = append(attempts, attempt{"making an anonymous file", anonymousFile, bySeccomp})
	}
	return failing(append(attempts, garbageCanaries(p)...))
}

// garbageCanaries pass arguments that must be refused with the number of each allowed call in the upper half of the register, which
// the kernel ignores: a filter that mistakes one for the other lets them through.
func garbageCanaries(p Policy) []attempt {
	parent := uintptr(os.Getppid())
	calls := []struct {
		name string
		try  func(garbage uintptr) error
	}{
		{"a socket", func(g uintptr) error { return socketCall(g|unix.AF_INET, unix.SOCK_DGRAM) }},
		{"an address", func(g uintptr) error { return call6(unix.SYS_SENDTO, ^uintptr(0), 0, 0, 0, g, 16) }},
		{"a process", func(g uintptr) error { return call(unix.SYS_CLONE, g|unix.CLONE_SIGHAND, 0) }}, // the kernel refuses it too
		{"a signal", func(g uintptr) error { return call(unix.SYS_KILL, g|parent, 0) }},
		{"a limit", func(g uintptr) error { return call(unix.SYS_PRLIMIT64, g|parent, unix.RLIMIT_NOFILE) }},
		{"a processor", func(g uintptr) error { return call(unix.SYS_SCHED_SETAFFINITY, g|parent, 0) }},
		{"a descriptor", func(g uintptr) error { return call(unix.SYS_FCNTL, 0, g|unix.F_GETOWN) }},
		{"a process option", func(g uintptr) error { return call(unix.SYS_PRCTL, g|unix.PR_GET_DUMPABLE, 0) }},
		{"an opening", func(g uintptr) error {
			return call6(unix.SYS_OPENAT, 0, nowhere, g|unix.O_WRONLY|unix.O_CREAT, 0, 0, 0)
		}},
		{"an execution", func(g uintptr) error { return executeNothing(g|uintptr(p.ExecFD-1), 0) }},
	}
	minusOne := ^uintptr(0)
	numbers := []uintptr{minusOne}
	for _, r := range rules(options{gpu: true}) {
		if number, ok, err := processors[runtime.GOARCH].number(r.call); ok && err == nil && number > 0 {
			numbers = append(numbers, uintptr(number))
		}
	}
	var attempts []attempt
	for _, c := range calls {
		attempts = append(attempts, attempt{c.name + " by garbage in an argument", func() error {
			for _, g := range numbers {
				if err := c.try(g << 32); !errors.Is(err, unix.EPERM) {
					return err
				}
			}
			return unix.EPERM
		}, bySeccomp})
	}
	return attempts
}

// nowhere is an address that no process may map: a call that is let through fails at it.
const nowhere = 1

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
	return socketCall(uintptr(domain), uintptr(kind|unix.SOCK_CLOEXEC))
}

func socketCall(domain, kind uintptr) error {
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, domain, kind, 0)
	if errno != 0 {
		return errno
	}
	_ = unix.Close(int(fd))
	return nil
}

// dialTCP dials the discard port of the loopback address: without a sandbox nothing listens there, with one nothing is
// asked.
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
	return unix.Connect(fd, &unix.SockaddrUnix{Name: "/no-listener"})
}

func call(number, a, b uintptr) error { return call6(number, a, b, 0, 0, 0, 0) }

func call6(number, a, b, c, d, e, f uintptr) error {
	if _, _, errno := unix.RawSyscall6(number, a, b, c, d, e, f); errno != 0 {
		return errno
	}
	return nil
}

// executeNothing executes a descriptor with a path at an address that cannot be read, so that it fails in any case.
func executeNothing(fd, flags uintptr) error {
	return call6(unix.SYS_EXECVEAT, fd, nowhere, 0, 0, flags, 0)
}
