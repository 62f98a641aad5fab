package sandbox

import (
	"fmt"
	"os"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// noSuchCall answers as a kernel that lacks the call does, so that the C library falls back: its
// clone3 hides the flags in memory where a filter cannot look, its clone shows them.
const noSuchCall = seccomp.ActionErrno&0xffff0000 | seccomp.Action(unix.ENOSYS)

// Requests of asm-generic/ioctls.h that x/sys does not name.
const (
	fionbio = 0x5421
	fioclex = 0x5451
)

// always are the calls of llama-server on a CPU, of the C library under it and of the Go runtime of
// the stage that installs the filter, as system-call traces of builds b10068 and b10434 show them,
// with the twins that other C libraries and arm64 use instead. The library's table for arm64 calls
// fstatat what the one for amd64 calls newfstatat.
var always = []string{
	// Files that are open, and those that Landlock lets it open.
	"read", "readv", "pread64", "preadv", "write", "writev", "lseek", "close", "close_range",
	"open", "openat", "stat", "lstat", "fstat", "newfstatat", "fstatat", "statx", "statfs", "fstatfs", "access", "faccessat",
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
	"bind", "listen", "accept", "accept4", "getsockname", "getpeername", "setsockopt", "getsockopt", "shutdown",
	"recvfrom",
	// What it asks about the machine and itself.
	"uname", "sysinfo", "getrandom", "getrlimit", "getuid", "geteuid", "getgid", "getegid",
}

// forGPU are what user-space GPU drivers need besides; they also map anonymous files. A message may
// carry an address, but the only sockets that there are take none (streams).
var forGPU = []string{"memfd_create", "ftruncate", "ioctl", "get_mempolicy", "mbind", "set_mempolicy", "sendmsg", "recvmsg"}

// restrictCalls installs the allow list on the calling thread. Whatever is not on it is refused with
// EPERM, calls of the 32-bit and x32 tables included.
func restrictCalls(execFD int, gpu bool) error {
	table, err := arch.GetInfo("")
	if err != nil {
		return fmt.Errorf("finding the system-call table: %w", err)
	}
	policy := allowList(table, execFD, os.Getpid(), gpu)
	if err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Policy: policy}); err != nil {
		return fmt.Errorf("installing the allow list: %w", err)
	}
	return nil
}

func allowList(table *arch.Info, execFD, pid int, gpu bool) seccomp.Policy {
	names := always
	conditions := conditional(execFD, pid)
	if gpu {
		names = append(append([]string(nil), always...), forGPU...)
		conditions = append(without(conditions, "ioctl"), streams("socketpair")...)
	}
	return seccomp.Policy{
		DefaultAction: seccomp.ActionErrno,
		Syscalls: []seccomp.SyscallGroup{
			{Action: seccomp.ActionAllow, Names: present(table, names), NamesWithCondtions: conditions},
			{Action: noSuchCall, Names: present(table, []string{"clone3"})},
		},
	}
}

func equal(argument uint32, value uint64) seccomp.Condition {
	return seccomp.Condition{Argument: argument, Operation: seccomp.Equal, Value: value}
}

// streams allows a call that makes Unix sockets to make streams alone: a datagram needs no connection,
// its address is one, and the kernel makes a datagram socket of a raw one.
func streams(name string) []seccomp.NameWithConditions {
	var list []seccomp.NameWithConditions
	for _, flags := range []uint64{0, unix.SOCK_CLOEXEC, unix.SOCK_NONBLOCK, unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK} {
		list = append(list, seccomp.NameWithConditions{
			Name: name, Conditions: seccomp.ArgumentConditions{equal(0, unix.AF_UNIX), equal(1, unix.SOCK_STREAM|flags)},
		})
	}
	return list
}

// conditional lists the calls that are allowed with certain arguments only.
func conditional(execFD, pid int) []seccomp.NameWithConditions {
	list := []seccomp.NameWithConditions{
		// A thread, never a process.
		{Name: "clone", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.BitsSet, Value: unix.CLONE_THREAD}}},
		// The descriptor is above the limit of open files and closed on exec: after the runtime itself
		// was executed no descriptor can have this number again.
		{Name: "execveat", Conditions: seccomp.ArgumentConditions{equal(0, uint64(execFD)), equal(4, unix.AT_EMPTY_PATH)}},
		// Only on a connected socket: a datagram with an address would be a connect in disguise.
		{Name: "sendto", Conditions: seccomp.ArgumentConditions{equal(4, 0)}},
		{Name: "tgkill", Conditions: seccomp.ArgumentConditions{equal(0, uint64(pid))}},
		{Name: "kill", Conditions: seccomp.ArgumentConditions{equal(0, uint64(pid))}},
		// Limits may be read, its own only; not set.
		{Name: "prlimit64", Conditions: seccomp.ArgumentConditions{equal(0, 0), equal(2, 0)}},
		// Its own threads on its own processors: a thread that calls, or the first one, which the C
		// library names by its number. Any other number may be the daemon.
		{Name: "sched_setaffinity", Conditions: seccomp.ArgumentConditions{equal(0, 0)}},
		{Name: "sched_setaffinity", Conditions: seccomp.ArgumentConditions{equal(0, uint64(pid))}},
		{Name: "get_robust_list", Conditions: seccomp.ArgumentConditions{equal(0, 0)}},
	}
	list = append(list, streams("socket")...)
	for _, command := range []uint64{unix.F_DUPFD, unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL} {
		list = append(list, seccomp.NameWithConditions{Name: "fcntl", Conditions: seccomp.ArgumentConditions{equal(1, command)}})
	}
	for _, request := range []uint64{unix.TCGETS, unix.TIOCGWINSZ, unix.TIOCINQ, fionbio, fioclex} {
		list = append(list, seccomp.NameWithConditions{Name: "ioctl", Conditions: seccomp.ArgumentConditions{equal(1, request)}})
	}
	// Naming threads and mappings; not the parent-death signal, not dumpability.
	for _, option := range []uint64{unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_SET_VMA} {
		list = append(list, seccomp.NameWithConditions{Name: "prctl", Conditions: seccomp.ArgumentConditions{equal(0, option)}})
	}
	return list
}

// present drops the names that this architecture's table does not have.
func present(table *arch.Info, names []string) []string {
	var have []string
	for _, name := range names {
		if _, ok := table.SyscallNames[name]; ok {
			have = append(have, name)
		}
	}
	return have
}

func without(list []seccomp.NameWithConditions, name string) []seccomp.NameWithConditions {
	var rest []seccomp.NameWithConditions
	for _, entry := range list {
		if entry.Name != name {
			rest = append(rest, entry)
		}
	}
	return rest
}
