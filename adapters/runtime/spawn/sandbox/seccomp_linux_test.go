package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// onEach runs a test for the program of each variant with or without a GPU.
func onEach(t *testing.T, gpu bool, test func(*testing.T, caller)) {
	for _, v := range variants() {
		if v.gpu != gpu {
			continue
		}
		t.Run(v.own.name, func(t *testing.T) {
			program, err := assemble(v.own, v.rules)
			if err != nil {
				t.Fatal(err)
			}
			test(t, caller{newFilter(t, program), v.own})
		})
	}
}

// caller names the calls that a program decides.
type caller struct {
	*filter
	own processor
}

func (c caller) call(name string, args ...uint64) verdict {
	c.t.Helper()
	number, exists, err := c.own.number(name)
	if err != nil || !exists {
		c.t.Fatalf("%s has no %q, %v, want its number", c.own.name, name, err)
	}
	return c.number(number, args...)
}

func (c caller) number(number uint32, args ...uint64) verdict {
	s := systemCall{audit: c.own.audit, number: number}
	copy(s.args[:], args)
	return c.run(s)
}

// R4, R10: calls with arguments are allowed with the right ones only. The kernel ignores the upper half of an integer
// argument, so garbage there changes nothing; of a pointer both halves count.
func TestArgumentsDecide(t *testing.T) {
	const garbage = 0xdeadbeef << 32
	tests := []struct {
		name string
		args []uint64
		want verdict
	}{
		{"clone", []uint64{0x50f00}, allow},  // cloneFlags of Go's runtime (os_linux.go)
		{"clone", []uint64{0x3d0f00}, allow}, // pthread_create of glibc
		{"clone", []uint64{0x7d0f00}, allow}, // pthread_create of musl
		{"clone", []uint64{garbage | 0x3d0f00}, allow},
		{"clone", []uint64{uint64(unix.SIGCHLD)}, refuse},
		{"clone", []uint64{unix.CLONE_THREAD<<32 | uint64(unix.SIGCHLD)}, refuse},
		{"clone", []uint64{unix.CLONE_VFORK | unix.CLONE_VM | uint64(unix.SIGCHLD)}, refuse},
		{"clone", []uint64{0x3d0f00 | unix.CLONE_NEWNET}, refuse},
		{"clone", []uint64{0x3d0f00 &^ unix.CLONE_VM}, refuse},
		{"clone", []uint64{0x3d0f00 &^ unix.CLONE_FS}, refuse},
		{"clone", []uint64{0x3d0f00 &^ unix.CLONE_FILES}, refuse},
		{"clone", []uint64{0x3d0f00 &^ unix.CLONE_SIGHAND}, refuse},
		{"clone", []uint64{0x3d0f00 &^ unix.CLONE_SYSVSEM}, refuse},
		{"clone", []uint64{0x3d0f00 &^ unix.CLONE_THREAD}, refuse},
		{"close_range", []uint64{3, 9, 0}, allow},
		{"close_range", []uint64{3, 9, garbage | unix.CLOSE_RANGE_CLOEXEC}, allow},
		{"close_range", []uint64{3, 9, unix.CLOSE_RANGE_UNSHARE}, refuse},
		{"close_range", []uint64{3, 9, unix.CLOSE_RANGE_UNSHARE | unix.CLOSE_RANGE_CLOEXEC}, refuse},
		{"close_range", []uint64{3, 9, 8}, refuse},
		{"clone3", nil, absent},
		{"execveat", []uint64{testExecFD, 0, 0, 0, unix.AT_EMPTY_PATH}, ask},
		{"execveat", []uint64{testExecFD - 1, 0, 0, 0, unix.AT_EMPTY_PATH}, refuse},
		{"execveat", []uint64{testExecFD, 0, 0, 0, 0}, refuse},
		{"execveat", []uint64{testExecFD << 32, 0, 0, 0, unix.AT_EMPTY_PATH}, refuse},
		{"execve", nil, refuse},
		{"bind", []uint64{3, 4096, 16}, ask},
		{"socket", []uint64{unix.AF_UNIX, unix.SOCK_STREAM}, allow},
		{"socket", []uint64{unix.AF_UNIX, unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK}, allow},
		{"socket", []uint64{garbage | unix.AF_UNIX, garbage | unix.SOCK_STREAM}, allow},
		{"socket", []uint64{unix.AF_INET, unix.SOCK_STREAM}, refuse},
		{"socket", []uint64{unix.AF_UNIX<<32 | unix.AF_INET, unix.SOCK_STREAM}, refuse},
		{"socket", []uint64{unix.AF_INET6, unix.SOCK_DGRAM}, refuse},
		{"socket", []uint64{unix.AF_UNIX, unix.SOCK_DGRAM}, refuse},
		{"socket", []uint64{unix.AF_UNIX, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC}, refuse},
		{"socket", []uint64{unix.AF_UNIX, unix.SOCK_STREAM<<32 | unix.SOCK_DGRAM}, refuse},
		{"socket", []uint64{unix.AF_UNIX, unix.SOCK_RAW}, refuse},
		{"socket", []uint64{unix.AF_UNIX, unix.SOCK_SEQPACKET}, refuse},
		{"socketpair", []uint64{unix.AF_UNIX, unix.SOCK_STREAM}, refuse},
		{"sendto", []uint64{9, 0, 0, 0, 0}, allow},
		{"sendto", []uint64{9, 0, 0, 0, 4096}, refuse},
		{"sendto", []uint64{9, 0, 0, 0, garbage}, refuse},
		{"kill", []uint64{testPID, 9}, allow},
		{"kill", []uint64{testPID + 1, 9}, refuse},
		{"kill", []uint64{testPID<<32 | 1, 9}, refuse},
		{"kill", []uint64{^uint64(0), 9}, refuse},
		{"tgkill", []uint64{testPID, testPID, 6}, allow},
		{"tgkill", []uint64{1, 1, 6}, refuse},
		{"prlimit64", []uint64{0, unix.RLIMIT_NOFILE, 0, 4096}, allow},
		{"prlimit64", []uint64{0, unix.RLIMIT_NOFILE, 4096, 0}, refuse},
		{"prlimit64", []uint64{0, unix.RLIMIT_NOFILE, garbage, 0}, refuse},
		{"prlimit64", []uint64{testPID + 1, unix.RLIMIT_NOFILE, 0, 4096}, refuse},
		{"sched_setaffinity", []uint64{0, 8, 4096}, allow},
		{"sched_setaffinity", []uint64{testPID, 8, 4096}, allow},
		{"sched_setaffinity", []uint64{testPID - 1, 8, 4096}, refuse},
		{"get_robust_list", []uint64{0}, allow},
		{"get_robust_list", []uint64{testPID - 1}, refuse},
		{"sched_setscheduler", []uint64{0}, refuse},
		{"setpriority", []uint64{0}, refuse},
		{"prctl", []uint64{unix.PR_SET_NAME}, allow},
		{"prctl", []uint64{unix.PR_SET_NAME<<32 | unix.PR_SET_PDEATHSIG}, refuse},
		{"prctl", []uint64{unix.PR_SET_PDEATHSIG}, refuse},
		{"prctl", []uint64{unix.PR_SET_DUMPABLE}, refuse},
		{"prctl", []uint64{unix.PR_SET_SECCOMP}, refuse},
		{"ioctl", []uint64{0, unix.TCGETS}, allow},
		{"ioctl", []uint64{0, unix.TIOCSTI}, refuse},
		{"fcntl", []uint64{3, unix.F_SETFL}, allow},
		{"fcntl", []uint64{3, garbage | unix.F_SETFL}, allow},
		{"fcntl", []uint64{3, unix.F_SETOWN}, refuse},
		{"openat", []uint64{0, 0, unix.O_RDONLY | unix.O_CLOEXEC}, allow},
		{"openat", []uint64{0, 0, unix.O_WRONLY}, refuse},
		{"openat", []uint64{0, 0, unix.O_RDWR}, refuse},
		{"openat", []uint64{0, 0, unix.O_RDONLY | unix.O_CREAT}, refuse},
		{"openat", []uint64{0, 0, unix.O_RDONLY | unix.O_TRUNC}, refuse},
	}
	onEach(t, false, func(t *testing.T, c caller) {
		for _, test := range tests {
			if got := c.call(test.name, test.args...); got != test.want {
				t.Errorf("%s %#x: got %#x, want %#x", test.name, test.args, uint32(got), uint32(test.want))
			}
		}
	})
}

// R4: what is not on the list is refused with EPERM: every call of each table, named or not.
func TestEverythingElseIsRefused(t *testing.T) {
	onEach(t, false, func(t *testing.T, c caller) {
		want := map[uint32]verdict{}
		// The last ones are allowed with arguments that are all zero: duplicating a descriptor, sending without an
		// address, asking for limits and locks of its own, choosing processors for itself, opening for reading.
		for _, name := range append(slices.Clone(always), "fcntl", "sendto", "prlimit64", "get_robust_list", "sched_setaffinity", "close_range", "open", "openat") {
			if number, exists, err := c.own.number(name); err != nil {
				t.Error(err)
			} else if exists {
				want[number] = allow
			}
		}
		for name, other := range map[string]verdict{"clone3": absent, "bind": ask} {
			number, _, _ := c.own.number(name)
			want[number] = other
		}
		if len(want) < 80 {
			t.Errorf("got %d calls to search for, want at least 80", len(want))
		}
		for number := range uint32(2000) {
			expected, ok := want[number]
			if !ok {
				expected = refuse
			}
			if got := c.number(number); got != expected {
				t.Errorf("call %d: got %#x, want %#x", number, uint32(got), uint32(expected))
			}
		}
		for _, name := range []string{
			"connect", "ptrace", "keyctl", "add_key", "request_key", "memfd_create", "execve", "process_vm_readv", "io_uring_setup",
			"bpf", "unshare", "setns", "mount", "sendmsg", "sendmmsg", "socketpair", "pidfd_open", "setsid", "setpgid", "fchmod", "fchmodat",
			"openat2", "mknodat", "unlinkat", "mkdirat", "seccomp",
		} {
			if got := c.call(name); got != refuse {
				t.Errorf("%s: got %#x, want %#x", name, uint32(got), uint32(refuse))
			}
		}
	})
}

// R4: no other table of the processor is let through, which is how a list of forbidden calls is passed.
func TestForeignTables(t *testing.T) {
	const x32 = 1 << 30
	onEach(t, false, func(t *testing.T, c caller) {
		for _, audit := range []uint32{unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, amd64.audit, arm64.audit} {
			for number := range uint32(600) {
				if audit != c.own.audit && c.run(systemCall{audit: audit, number: number}) != refuse {
					t.Fatalf("call %d of convention %#x is allowed, want it refused", number, audit)
				}
				if c.run(systemCall{audit: audit, number: number | x32}) != refuse {
					t.Fatalf("call %d of the x32 table is allowed, want it refused", number)
				}
			}
		}
	})
}

// R4: a GPU driver gets what it needs, and no way out: a message with an address finds no socket to go out by.
func TestGPUCalls(t *testing.T) {
	onEach(t, true, func(t *testing.T, c caller) {
		for _, name := range forGPU {
			if got := c.call(name); got != allow {
				t.Errorf("%s: got %#x, want %#x", name, uint32(got), uint32(allow))
			}
		}
		// FIOSETOWN, SIOCSPGRP, FIOASYNC, FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR, FS_IOC_ENABLE_VERITY, TIOCSTI.
		for _, request := range []uint64{0x8901, 0x8902, 0x5452, 0x40086602, 0x401c5820, 0x40806685, 0x5412, 0xc0096616, 0xc0506617, 0xc0406618, 0xc0406619, 0x5000940e, 0x50009401, 0x50009417, 0x50009418} {
			for _, garbage := range []uint64{0, 0xdeadbeef << 32} {
				if got := c.call("ioctl", 3, garbage|request); got != refuse {
					t.Errorf("request %#x: got %#x, want %#x", garbage|request, uint32(got), uint32(refuse))
				}
			}
		}
		// The first requests of the drivers of DRM, KFD and NVIDIA.
		for _, request := range []uint64{0xc0406400, 0x80084b01, 0xc00846c8} {
			if got := c.call("ioctl", 3, request); got != allow {
				t.Errorf("request %#x: got %#x, want %#x", request, uint32(got), uint32(allow))
			}
		}
		for kind := range uint64(16) {
			for _, flags := range []uint64{0, unix.SOCK_CLOEXEC, unix.SOCK_NONBLOCK, unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK} {
				for _, name := range []string{"socket", "socketpair"} {
					if allowed := c.call(name, unix.AF_UNIX, kind|flags) == allow; allowed != (kind == unix.SOCK_STREAM) {
						t.Errorf("%s of type %d with flags %#x: got allowed %v, want %v", name, kind, flags, allowed, kind == unix.SOCK_STREAM)
					}
					if c.call(name, unix.AF_INET, kind|flags) != refuse {
						t.Errorf("%s of the internet, type %d, is allowed, want it refused", name, kind)
					}
				}
			}
		}
		for flags, want := range map[uint64]verdict{
			unix.O_RDWR: allow, unix.O_RDWR | unix.O_CREAT: refuse, unix.O_RDWR | unix.O_TRUNC: refuse, unix.O_RDWR | tmpfileBit: refuse,
		} {
			if got := c.call("openat", 0, 0, flags); got != want {
				t.Errorf("opening with %#x: got %#x, want %#x", flags, uint32(got), uint32(want))
			}
		}
		for _, name := range []string{"connect", "sendmmsg", "ptrace", "keyctl", "execve"} {
			if c.call(name) != refuse {
				t.Errorf("%s is allowed, want it refused", name)
			}
		}
	})
}

// R4: a name that a table lacks has no effect. amd64 has all; what arm64 lacks has a twin there, which is allowed.
func TestNamesExist(t *testing.T) {
	twins := map[string]string{
		"open": "openat", "stat": "newfstatat", "lstat": "newfstatat", "access": "faccessat", "readlink": "readlinkat",
		"time": "clock_gettime", "poll": "ppoll", "select": "pselect6", "epoll_wait": "epoll_pwait",
		"getrlimit": "prlimit64", "arch_prctl": "set_tid_address", // the thread pointer is a register there
	}
	for _, v := range variants() {
		named := map[string]bool{}
		for _, r := range v.rules {
			named[r.call] = true
		}
		for name := range named {
			_, exists, err := v.own.number(name)
			if err != nil {
				t.Error(err)
			}
			if !exists && (v.own == amd64 || !named[twins[name]]) {
				t.Errorf("%s has no %q, want its twin %q named", v.own.name, name, twins[name])
			}
		}
	}
	if _, ok := processors[runtime.GOARCH]; !ok {
		t.Errorf("got no filter for %s, want one", runtime.GOARCH)
	}
}

// A condition whose value has bits outside its mask never holds.
func TestConditionsCanHold(t *testing.T) {
	for _, v := range variants() {
		for _, r := range v.rules {
			for _, c := range r.when {
				if c.value&^c.mask != 0 || c.argument > 5 {
					t.Errorf("%s: %s: got %+v, want a value within the mask and an argument up to 5", v, r.call, c)
				}
			}
		}
	}
}

// R10: the numbers are those of golang.org/x/sys, which has each table for its own processor only.
func TestCallNumbers(t *testing.T) {
	output, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		t.Fatal(err)
	}
	constant := regexp.MustCompile(`(?m)^\s*SYS_(\w+)\s+= (\d+)`)
	for _, p := range processors {
		source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(output)), "unix", "zsysnum_linux_"+p.name+".go"))
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]int{}
		for _, found := range constant.FindAllStringSubmatch(string(source), -1) {
			want[strings.ToLower(found[1])], _ = strconv.Atoi(found[2])
		}
		delete(want, "arch_specific_syscall") // a range
		if len(want) < 300 {
			t.Errorf("%s: found %d calls, want at least 300", p.name, len(want))
		}
		for name, number := range want {
			if got, ok := callNumbers[name]; !ok || got[p.column] != number {
				t.Errorf("%s of %s: got %v, want %d", name, p.name, got, number)
			}
		}
		for name, got := range callNumbers {
			if _, ok := want[name]; !ok && got[p.column] != none {
				t.Errorf("%s of %s: got %d, want none", name, p.name, got[p.column])
			}
		}
	}
}
