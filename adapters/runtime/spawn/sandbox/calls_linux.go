package sandbox

import "golang.org/x/sys/unix"

// Constants that x/sys does not name: requests of asm-generic/ioctls.h, and the bit of O_TMPFILE that is its own
// (asm-generic/fcntl.h).
const (
	fionbio    = 0x5421
	fioclex    = 0x5451
	tmpfileBit = 0o20000000
)

// always are the calls of llama-server on a CPU, of the C library under it and of the Go runtime of the stage that
// installs the filter, as system-call traces of builds b10068 and b10434 show them, with the equivalents that other C
// libraries and arm64 use instead.
var always = []string{
	// Files that are open, and those that Landlock lets it open.
	"read", "readv", "pread64", "preadv", "write", "writev", "lseek", "close",
	"stat", "lstat", "fstat", "newfstatat", "statx", "statfs", "fstatfs", "access", "faccessat",
	"faccessat2", "readlink", "readlinkat", "getdents64", "getcwd", "fadvise64", "readahead", "dup", "pipe2",
	"eventfd2",
	// Memory.
	"mmap", "munmap", "mprotect", "mremap", "madvise", "brk", "mincore", "msync", "membarrier", "mlock", "munlock",
	// Threads and time.
	"futex", "futex_waitv", "set_robust_list", "rseq", "set_tid_address", "arch_prctl",
	"sched_yield", "sched_getaffinity", "sched_getparam", "sched_getscheduler", "getcpu",
	"gettid", "getpid", "getppid", "exit", "exit_group", "restart_syscall", "nanosleep", "clock_nanosleep",
	"clock_gettime", "clock_getres", "gettimeofday", "time", "getrusage", "times",
	// Signals to itself.
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait", "sigaltstack",
	// Waiting.
	"poll", "ppoll", "select", "pselect6", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2",
	// Its listening socket and the connections that it accepts.
	"listen", "accept", "accept4", "getsockname", "getpeername", "setsockopt", "getsockopt", "shutdown",
	"recvfrom",
	// What it asks about the machine and itself.
	"uname", "sysinfo", "getrandom", "getrlimit", "getuid", "geteuid", "getgid", "getegid",
}

// forGPU are what user-space GPU drivers need in addition; they also map anonymous files. A message may carry an
// address, but the only sockets that can be made take none (streams).
var forGPU = []string{"memfd_create", "ftruncate", "ioctl", "get_mempolicy", "mbind", "set_mempolicy", "sendmsg", "recvmsg"}

// notForGPU are requests of ioctl(2) that the kernel answers for every file, or for one that is open for reading, whatever
// its driver is (asm-generic/ioctls.h, linux/fs.h, linux/fsverity.h, linux/fscrypt.h). No GPU driver needs them.
var notForGPU = []uint32{
	unix.TIOCSTI, // input for a terminal
	0x8901,       // FIOSETOWN: signals to another process
	0x8902,       // SIOCSPGRP: the same for a socket
	0x5452,       // FIOASYNC
	0x40086602,   // FS_IOC_SETFLAGS: an owner makes a file immutable
	0x401c5820,   // FS_IOC_FSSETXATTR
	0x40087602,   // FS_IOC_SETVERSION
	0x40806685,   // FS_IOC_ENABLE_VERITY: the file can never be written again
	0x800c6613,   // FS_IOC_SET_ENCRYPTION_POLICY
	0xc0096616,   // FS_IOC_GET_ENCRYPTION_POLICY_EX: the name of the key
	0xc0506617,   // FS_IOC_ADD_ENCRYPTION_KEY
	0xc0406618,   // FS_IOC_REMOVE_ENCRYPTION_KEY: it locks an encrypted home
	0xc0406619,   // FS_IOC_REMOVE_ENCRYPTION_KEY_ALL_USERS
	0x5000940e,   // BTRFS_IOC_SUBVOL_CREATE: a folder, which Landlock does not see
	0x50009401,   // BTRFS_IOC_SNAP_CREATE
	0x50009417,   // BTRFS_IOC_SNAP_CREATE_V2
	0x50009418,   // BTRFS_IOC_SUBVOL_CREATE_V2
}

// options are what the rules depend on.
type options struct {
	execFD int  // the descriptor of the runtime's program
	pid    int  // of the process that is confined
	gpu    bool // a GPU's device files are open to it
	asks   bool // the daemon holds the notification descriptor
}

// rules is the whole policy. A call that is not named is refused with EPERM, and so are the calls of the 32-bit and x32
// tables.
func rules(o options) []rule {
	list := plain(allow, always...)
	list = append(list,
		// A thread, never a process, and no new namespace. The kernel drops the upper half of the flags.
		rule{"clone", allow, []condition{bits(0, threadFlags|newNamespaces, threadFlags)}},
		// Without CLOSE_RANGE_UNSHARE, which gives the thread a table of descriptors of its own.
		rule{"close_range", allow, []condition{bits(2, ^uint32(unix.CLOSE_RANGE_CLOEXEC), 0)}},
		// Its flags are in memory, which a filter cannot read; without it the C library uses clone.
		rule{"clone3", absent, nil},
		// Only on a connected socket: a datagram with an address would be a connect by another name.
		rule{"sendto", allow, []condition{null(4)}},
		rule{"tgkill", allow, []condition{is(0, uint32(o.pid))}},
		rule{"kill", allow, []condition{is(0, uint32(o.pid))}},
		// Its own limits may be read, none may be set.
		rule{"prlimit64", allow, []condition{is(0, 0), null(2)}},
		// Its own threads on its own processors: a thread that calls, or the first one, which the C library names by
		// its number. Any other number may be the daemon.
		rule{"sched_setaffinity", allow, []condition{is(0, 0)}},
		rule{"sched_setaffinity", allow, []condition{is(0, uint32(o.pid))}},
		rule{"get_robust_list", allow, []condition{is(0, 0)}},
		streams("socket"),
	)
	list = append(list, one("fcntl", 1, unix.F_DUPFD, unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL)...)
	// Naming threads and mappings; not the parent-death signal, not dumpability.
	list = append(list, one("prctl", 0, unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_SET_VMA)...)
	if o.gpu {
		for _, request := range notForGPU {
			list = append(list, rule{"ioctl", refuse, []condition{is(1, request)}})
		}
		list = append(list, plain(allow, forGPU...)...)
		list = append(list, streams("socketpair"))
		// Seals of anonymous files.
		list = append(list, one("fcntl", 1, unix.F_ADD_SEALS, unix.F_GET_SEALS)...)
	} else {
		list = append(list, one("ioctl", 1, unix.TCGETS, unix.TIOCGWINSZ, unix.TIOCINQ, fionbio, fioclex)...)
	}
	return append(append(list, opening(o.gpu)...), once(o.asks, o.execFD)...)
}

// once are the two calls that the runtime needs exactly once. The daemon answers each of them once and then closes the
// notification descriptor. Without notifications (a kernel before 5.9) neither can be bounded.
func once(asks bool, execFD int) []rule {
	v := allow
	if asks {
		v = ask
	}
	return []rule{
		{"execveat", v, []condition{is(0, uint32(execFD)), is(4, unix.AT_EMPTY_PATH)}},
		{"bind", v, nil},
	}
}

// opening allows to open files for reading, and those of a GPU's devices for writing too. No file can be made or emptied.
func opening(gpu bool) []rule {
	var writes uint32 = unix.O_CREAT | unix.O_TRUNC | tmpfileBit
	if !gpu {
		writes |= unix.O_ACCMODE
	}
	return []rule{
		{"open", allow, []condition{bits(1, writes, 0)}},
		{"openat", allow, []condition{bits(2, writes, 0)}},
	}
}

// threadFlags are the flags of clone(2) with which glibc, musl and Go make every thread. A thread without one of them
// would have its own memory, or its own table of descriptors, which the limit of open files counts separately.
const threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD

// newNamespaces are the flags of clone(2) that make a namespace.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET

// streams allows a call that makes Unix sockets to make streams alone: a datagram needs no connection, its address is
// one, and the kernel makes a datagram socket of a raw one.
func streams(call string) rule {
	const flags uint32 = unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	return rule{call, allow, []condition{is(0, unix.AF_UNIX), bits(1, ^flags, unix.SOCK_STREAM)}}
}

// plain gives calls a verdict whatever their arguments are.
func plain(v verdict, calls ...string) []rule {
	var list []rule
	for _, call := range calls {
		list = append(list, rule{call: call, verdict: v})
	}
	return list
}

// one allows a call with one of the values as the argument.
func one(call string, argument int, values ...uint32) []rule {
	var list []rule
	for _, value := range values {
		list = append(list, rule{call, allow, []condition{is(argument, value)}})
	}
	return list
}
