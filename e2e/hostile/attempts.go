//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Attempt is one line of the report.
type Attempt struct {
	Name    string `json:"attempt"`
	Refused bool   `json:"refused"`
	Error   string `json:"error,omitempty"`
}

// attemptEverything makes each attempt that must fail and prints the result. An attempt that succeeds returns nil, and
// the test fails.
func attemptEverything(s Script) {
	out := json.NewEncoder(os.Stdout)
	for _, group := range [][]attempt{
		files(s), network(s), sockets(s), execution(s), otherProcesses(), kernel(), limits(s), evasions(s),
		{{"see that the secret exists", func() error { return see(s.Secret) }}},
	} {
		for _, a := range group {
			if len(s.Only) > 0 && !slices.Contains(s.Only, a.name) || slices.Contains(s.Except, a.name) {
				continue
			}
			err := a.try()
			line := Attempt{Name: a.name, Refused: err != nil}
			if err != nil {
				line.Error = errorWord(err)
			}
			_ = out.Encode(line)
		}
	}
	fmt.Println("attempts done")
}

type attempt struct {
	name string
	try  func() error
}

// errorWord returns the errno text of an error: long lines are cut.
func errorWord(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}

func files(s Script) []attempt {
	home := os.Getenv("HOME")
	write := func(path string) func() error {
		return func() error { return os.WriteFile(path, []byte("x"), 0o600) }
	}
	list := func(path string) func() error {
		return func() error { _, err := os.ReadDir(path); return err }
	}
	read := func(path string) func() error {
		return func() error { _, err := os.ReadFile(path); return err }
	}
	var planted []attempt
	for i, path := range s.Read {
		planted = append(planted, attempt{fmt.Sprintf("read file %d", i), read(path)})
	}
	return append(planted, []attempt{
		{"read the planted secret", read(s.Secret)},
		{"read the secret through a descriptor of its folder", func() error {
			dir, err := unix.Open(filepath.Dir(s.Secret), unix.O_PATH|unix.O_DIRECTORY, 0)
			if err != nil {
				return err
			}
			_, err = unix.Openat(dir, filepath.Base(s.Secret), unix.O_RDONLY, 0)
			return err
		}},
		{"read the daemon's environment", read(fmt.Sprintf("/proc/%d/environ", os.Getppid()))},
		{"read the daemon's memory map", read(fmt.Sprintf("/proc/%d/maps", os.Getppid()))},
		{"read another process's command line", read("/proc/1/cmdline")},
		{"list all processes", list("/proc")},
		{"read the users", read("/etc/passwd")},
		{"list the root folder", list("/")},
		{"list the home folder", list(home)},
		{"list the folder of the secret", list(filepath.Dir(s.Secret))},
		{"write over the secret", write(s.Secret)},
		{"write to the planted folder", write(filepath.Join(s.Outside, "made"))},
		{"write to the temporary folder", write("/tmp/hostile-was-here")},
		{"write to its own home", write(filepath.Join(home, "made"))},
		{"make a folder", func() error { return os.Mkdir(filepath.Join(home, "folder"), 0o700) }},
		{"make a link", func() error { return os.Symlink(s.Secret, filepath.Join(home, "link")) }},
		{"make a hard link", func() error { return os.Link(s.Secret, filepath.Join(home, "hard")) }},
		{"remove the secret", func() error { return os.Remove(s.Secret) }},
		{"rename the secret", func() error { return os.Rename(s.Secret, s.Secret+".moved") }},
		{"truncate the secret", func() error { return os.Truncate(s.Secret, 0) }},
		{"open the secret to everybody", func() error { return os.Chmod(s.Secret, 0o666) }},
		{"change the secret's times", func() error { return os.Chtimes(s.Secret, time.Now(), time.Now()) }},
	}...)
}

func network(s Script) []attempt {
	dial := func(network, address string) func() error {
		return func() error {
			conn, err := net.DialTimeout(network, address, time.Second)
			if err != nil {
				return err
			}
			_, err = conn.Write([]byte("x"))
			return err
		}
	}
	socket := func(domain, kind, protocol int) func() error {
		return func() error { _, err := unix.Socket(domain, kind, protocol); return err }
	}
	return []attempt{
		{"dial TCP", dial("tcp", s.TCP)},
		{"send UDP", dial("udp", s.UDP)},
		{"ask a name server", func() error { _, err := net.LookupHost("example.com"); return err }},
		{"listen on TCP", func() error { _, err := net.Listen("tcp", "127.0.0.1:0"); return err }},
		{"make a TCP socket", socket(unix.AF_INET, unix.SOCK_STREAM, 0)},
		{"make an MPTCP socket", socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)},
		{"make an IPv6 socket", socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)},
		{"make a netlink socket", socket(unix.AF_NETLINK, unix.SOCK_RAW, 0)},
		{"make a packet socket", socket(unix.AF_PACKET, unix.SOCK_RAW, 0)},
		{"make a vsock socket", socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)},
	}
}

func sockets(s Script) []attempt {
	var attempts []attempt
	for i, path := range s.UnixSockets {
		attempts = append(attempts, attempt{fmt.Sprintf("dial Unix socket %d", i), func() error {
			_, err := net.DialTimeout("unix", path, time.Second)
			return err
		}})
	}
	message := func(kind int) func() error {
		return func() error {
			fd, err := unix.Socket(unix.AF_UNIX, kind, 0)
			if err != nil {
				return err
			}
			return unix.Sendmsg(fd, []byte("x"), nil, &unix.SockaddrUnix{Name: s.UnixDgram}, 0)
		}
	}
	return append(attempts,
		attempt{"send a datagram with an address", func() error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
			if err != nil {
				return err
			}
			return unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrUnix{Name: s.UnixDgram})
		}},
		attempt{"send a message with an address", message(unix.SOCK_DGRAM)},
		attempt{"send a message from a raw socket", message(unix.SOCK_RAW)},
		attempt{"send a message from a stream", message(unix.SOCK_STREAM)},
		attempt{"send a message from a pair of datagram sockets", func() error {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
			if err != nil {
				return err
			}
			return unix.Sendmsg(pair[0], []byte("x"), nil, &unix.SockaddrUnix{Name: s.UnixDgram}, 0)
		}},
	)
}

func execution(s Script) []attempt {
	empty, _ := unix.BytePtrFromString("")
	executeFD := func(fd int) error {
		_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(empty)), 0, 0, unix.AT_EMPTY_PATH, 0)
		return errno
	}
	return []attempt{
		{"run a shell", func() error { return exec.Command("/bin/sh", "-c", "true").Run() }},
		{"become a shell", func() error { return unix.Exec("/bin/sh", []string{"sh", "-c", "true"}, nil) }},
		{"become itself again", func() error { return unix.Exec("/proc/self/exe", []string{"hostile"}, nil) }},
		{"execute its model", func() error { return executeFD(3) }},
		{"execute by every descriptor", func() error {
			var last error = errors.New("none was tried")
			for fd := range 1100 {
				last = executeFD(fd)
			}
			return last
		}},
		{"take the executable's descriptor number again", func() error { return unix.Dup2(3, 1024) }},
		{"take it by fcntl", func() error { _, err := unix.FcntlInt(3, unix.F_DUPFD, 1024); return err }},
		{"make an anonymous file to execute", func() error {
			fd, err := unix.MemfdCreate("x", 0)
			if err != nil {
				return err
			}
			return executeFD(fd)
		}},
		{"fork", func() error { return clone(uintptr(unix.SIGCHLD)) }},
		{"fork as vfork does", func() error { return clone(uintptr(unix.CLONE_VFORK | int(unix.SIGCHLD))) }},
		{"fork into new namespaces", func() error { return clone(uintptr(unix.CLONE_NEWUSER | int(unix.SIGCHLD))) }},
		{"fork by clone3", func() error {
			args := struct{ flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls uint64 }{exitSignal: uint64(unix.SIGCHLD)}
			return forked(unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0))
		}},
	}
}

func clone(flags uintptr) error {
	return forked(unix.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0))
}

// forked ends the child at once, if there is one.
func forked(id, _ uintptr, errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	if id == 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	return nil
}

func otherProcesses() []attempt {
	parent := os.Getppid()
	return []attempt{
		{"signal the daemon", func() error { return unix.Kill(parent, 0) }},
		{"signal a thread of the daemon", func() error { return unix.Tgkill(parent, parent, 0) }},
		{"signal everybody", func() error { return unix.Kill(-1, 0) }},
		{"hold the daemon by a descriptor", func() error { _, err := unix.PidfdOpen(parent, 0); return err }},
		{"trace the daemon", func() error { return unix.PtraceAttach(parent) }},
		{"trace by seizing", func() error { return unix.PtraceSeize(parent) }},
		{"read the daemon's memory", func() error {
			buffer := make([]byte, 8)
			local := []unix.Iovec{{Base: &buffer[0], Len: 8}}
			_, err := unix.ProcessVMReadv(parent, local, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
			return err
		}},
		{"move the daemon to another processor", func() error {
			var processors unix.CPUSet
			if err := unix.SchedGetaffinity(parent, &processors); err != nil {
				return err
			}
			return unix.SchedSetaffinity(parent, &processors)
		}},
		{"leave its session", func() error { _, err := unix.Setsid(); return err }},
		{"leave its group", func() error { return unix.Setpgid(0, parent) }},
		{"outlive the daemon", func() error { return unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0) }},
	}
}

func kernel() []attempt {
	call := func(number uintptr, args ...uintptr) func() error {
		var a [3]uintptr
		copy(a[:], args)
		return func() error {
			if _, _, errno := unix.Syscall(number, a[0], a[1], a[2]); errno != 0 {
				return errno
			}
			return nil
		}
	}
	return append(foreignCalls(),
		attempt{"ask for a session key", call(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, ^uintptr(2))},
		attempt{"search the user's keys", call(unix.SYS_REQUEST_KEY)},
		attempt{"use io_uring", call(unix.SYS_IO_URING_SETUP, 1)},
		attempt{"load a BPF program", call(unix.SYS_BPF)},
		attempt{"count events", call(unix.SYS_PERF_EVENT_OPEN)},
		attempt{"handle page faults", call(unix.SYS_USERFAULTFD)},
		attempt{"unshare namespaces", func() error { return unix.Unshare(unix.CLONE_NEWUSER | unix.CLONE_NEWNS) }},
		attempt{"mount", func() error { return unix.Mount("none", "/mnt", "tmpfs", 0, "") }},
		attempt{"change the root", func() error { return unix.Chroot("/") }},
		attempt{"type on a terminal", func() error { return unix.IoctlSetInt(0, unix.TIOCSTI, 0) }},
	)
}

func limits(s Script) []attempt {
	return []attempt{
		{"raise its limit of files", func() error {
			return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 4096, Max: 4096})
		}},
		{"allow core files", func() error {
			return unix.Prlimit(0, unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1}, nil)
		}},
		{"limit the daemon", func() error {
			return unix.Prlimit(os.Getppid(), unix.RLIMIT_NOFILE, nil, &unix.Rlimit{})
		}},
		{"give an anonymous file a size", func() error { return sizedFile(4096) }},
		{"give an anonymous file all memory", func() error { return sizedFile(s.Memory) }},
		{"eat memory", func() error { return eat(s.Memory) }},
		{"open endless descriptors", func() error {
			for range 2000 {
				fd, err := unix.Dup(3)
				if err != nil {
					return err
				}
				defer func() { _ = unix.Close(fd) }() // a later attempt may need it to make a socket
			}
			return nil
		}},
	}
}

// sizedFile makes an anonymous file with a size, as GPU drivers do.
func sizedFile(size int64) error {
	signal.Ignore(syscall.SIGXFSZ)
	fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Ftruncate(fd, size)
}

// eat allocates private memory in pieces, and frees it.
func eat(bytes int64) error {
	const piece = 64 << 20
	for taken := int64(0); taken < bytes; taken += piece {
		memory, err := unix.Mmap(-1, 0, piece, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Munmap(memory) }()
	}
	return nil
}
