package sandbox

import (
	"encoding/binary"
	"errors"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	testExecFD = 1024
	testPID    = 4711
)

// tables are those of the machines that we build for. Both are tested on either.
var tables = map[string]*arch.Info{"amd64": arch.X86_64, "arm64": arch.AARCH64}

// onEach runs a test for each table.
func onEach(t *testing.T, gpu bool, test func(*testing.T, filter)) {
	for name, table := range tables {
		t.Run(name, func(t *testing.T) { test(t, newFilter(t, table, gpu)) })
	}
}

// filter is the program that the kernel would run, in a machine that runs it here.
type filter struct {
	t   *testing.T
	vm  *bpf.VM
	own *arch.Info
}

func newFilter(t *testing.T, table *arch.Info, gpu bool) filter {
	t.Helper()
	if len(table.SyscallNames) < 300 {
		t.Fatalf("the table of %s has only %d calls", table.Name, len(table.SyscallNames))
	}
	policy := allowList(table, testExecFD, testPID, gpu)
	// The library assembles for the machine that it runs on, unless this field says otherwise.
	field := reflect.ValueOf(&policy).Elem().FieldByName("arch")
	*(**arch.Info)(field.Addr().UnsafePointer()) = table
	program, err := policy.Assemble()
	if err != nil {
		t.Fatal(err)
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return filter{t, vm, table}
}

// run decides one call. The kernel's struct seccomp_data is in the machine's order; the machine here
// loads big-endian words, so they are laid out that way, the halves of each argument in the kernel's
// little-endian places.
func (f filter) run(audit uint32, number uint32, args ...uint64) seccomp.Action {
	f.t.Helper()
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[0:], number)
	binary.BigEndian.PutUint32(data[4:], audit)
	for i, arg := range args {
		binary.BigEndian.PutUint32(data[16+8*i:], uint32(arg))
		binary.BigEndian.PutUint32(data[16+8*i+4:], uint32(arg>>32))
	}
	verdict, err := f.vm.Run(data)
	if err != nil {
		f.t.Fatal(err)
	}
	return seccomp.Action(uint32(verdict))
}

func (f filter) call(name string, args ...uint64) seccomp.Action {
	f.t.Helper()
	number, ok := f.own.SyscallNames[name]
	if !ok {
		f.t.Fatalf("no call is named %q", name)
	}
	return f.run(uint32(f.own.ID), uint32(number), args...)
}

// R4: the calls that carry arguments are allowed with the right ones only.
func TestArgumentsDecide(t *testing.T) {
	const other = 1 << 32 // must not be cut to 32 bits
	tests := []struct {
		name    string
		args    []uint64
		allowed bool
	}{
		{"clone", []uint64{unix.CLONE_THREAD | unix.CLONE_VM | unix.CLONE_SIGHAND}, true},
		{"clone", []uint64{uint64(unix.SIGCHLD)}, false},
		{"clone", []uint64{unix.CLONE_VFORK | unix.CLONE_VM | uint64(unix.SIGCHLD)}, false},
		{"execveat", []uint64{testExecFD, 0, 0, 0, unix.AT_EMPTY_PATH}, true},
		{"execveat", []uint64{testExecFD - 1, 0, 0, 0, unix.AT_EMPTY_PATH}, false},
		{"execveat", []uint64{testExecFD, 0, 0, 0, 0}, false},
		{"execve", nil, false},
		{"socket", []uint64{unix.AF_UNIX, unix.SOCK_STREAM}, true},
		{"socket", []uint64{unix.AF_INET, unix.SOCK_STREAM}, false},
		{"socket", []uint64{unix.AF_INET6, unix.SOCK_DGRAM}, false},
		{"socket", []uint64{unix.AF_UNIX, unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK}, true},
		{"socket", []uint64{unix.AF_UNIX + other, unix.SOCK_STREAM}, false},
		{"socket", []uint64{unix.AF_UNIX, unix.SOCK_DGRAM}, false},
		{"socket", []uint64{unix.AF_UNIX, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC}, false},
		{"socket", []uint64{unix.AF_UNIX, unix.SOCK_RAW}, false},
		{"socket", []uint64{unix.AF_UNIX, unix.SOCK_SEQPACKET}, false},
		{"socketpair", []uint64{unix.AF_UNIX, unix.SOCK_STREAM}, false},
		{"sendto", []uint64{9, 0, 0, 0, 0}, true},
		{"sendto", []uint64{9, 0, 0, 0, 4096}, false},
		{"sendto", []uint64{9, 0, 0, 0, other}, false},
		{"kill", []uint64{testPID, 9}, true},
		{"kill", []uint64{testPID + 1, 9}, false},
		{"kill", []uint64{^uint64(0), 9}, false},
		{"tgkill", []uint64{testPID, testPID, 6}, true},
		{"tgkill", []uint64{1, 1, 6}, false},
		{"prlimit64", []uint64{0, unix.RLIMIT_NOFILE, 0, 4096}, true},
		{"prlimit64", []uint64{0, unix.RLIMIT_NOFILE, 4096, 0}, false},
		{"prlimit64", []uint64{testPID + 1, unix.RLIMIT_NOFILE, 0, 4096}, false},
		{"sched_setaffinity", []uint64{0, 8, 4096}, true},
		{"sched_setaffinity", []uint64{testPID, 8, 4096}, true},
		{"sched_setaffinity", []uint64{testPID - 1, 8, 4096}, false},
		{"sched_setaffinity", []uint64{other, 8, 4096}, false},
		{"get_robust_list", []uint64{0}, true},
		{"get_robust_list", []uint64{testPID - 1}, false},
		{"sched_setscheduler", []uint64{0}, false},
		{"setpriority", []uint64{0}, false},
		{"prctl", []uint64{unix.PR_SET_NAME}, true},
		{"prctl", []uint64{unix.PR_SET_PDEATHSIG}, false},
		{"prctl", []uint64{unix.PR_SET_DUMPABLE}, false},
		{"prctl", []uint64{unix.PR_SET_SECCOMP}, false},
		{"ioctl", []uint64{0, unix.TCGETS}, true},
		{"ioctl", []uint64{0, unix.TIOCSTI}, false},
		{"fcntl", []uint64{3, unix.F_SETFL}, true},
		{"fcntl", []uint64{3, unix.F_SETOWN}, false},
	}
	onEach(t, false, func(t *testing.T, f filter) {
		for _, test := range tests {
			if verdict := f.call(test.name, test.args...); (verdict == seccomp.ActionAllow) != test.allowed {
				t.Errorf("%s %v: %v", test.name, test.args, verdict)
			}
		}
		if verdict := f.call("clone3"); verdict != noSuchCall {
			t.Errorf("clone3: %#x, want ENOSYS", uint32(verdict))
		}
	})
}

// R4: what is not on the list is refused with EPERM: every call of each table, named or not.
func TestEverythingElseIsRefused(t *testing.T) { onEach(t, false, refusesEverythingElse) }

func refusesEverythingElse(t *testing.T, f filter) {
	const eperm = seccomp.ActionErrno&0xffff0000 | seccomp.Action(unix.EPERM)
	want := map[uint32]seccomp.Action{uint32(f.own.SyscallNames["clone3"]): noSuchCall}
	// The last five are allowed with arguments that are all zero: duplicating a descriptor, sending
	// without an address, asking for limits and locks of its own, choosing processors for itself.
	for _, name := range append(slices.Clone(always), "fcntl", "sendto", "prlimit64", "get_robust_list", "sched_setaffinity") {
		if number, ok := f.own.SyscallNames[name]; ok {
			want[uint32(number)] = seccomp.ActionAllow
		}
	}
	if len(want) < 80 {
		t.Errorf("only %d calls are looked for", len(want))
	}
	for number := range uint32(2000) {
		expected, ok := want[number]
		if !ok {
			expected = eperm
		}
		if verdict := f.run(uint32(f.own.ID), number); verdict != expected {
			t.Errorf("%d %s: %#x, want %#x", number, f.own.SyscallNumbers[int(number)], uint32(verdict), uint32(expected))
		}
	}
	for _, name := range []string{
		"connect", "ptrace", "keyctl", "add_key", "request_key", "memfd_create", "execve", "process_vm_readv", "io_uring_setup",
		"bpf", "unshare", "setns", "mount", "sendmsg", "sendmmsg", "socketpair", "pidfd_open", "setsid", "setpgid", "fchmod", "fchmodat",
	} {
		if f.call(name) == seccomp.ActionAllow {
			t.Errorf("%s is allowed", name)
		}
	}
}

// R4: no other table of the processor gets past: a list of forbidden calls is passed that way.
func TestForeignTables(t *testing.T) {
	onEach(t, false, func(t *testing.T, f filter) {
		for _, foreign := range []*arch.Info{arch.I386, arch.X86_64, arch.ARM, arch.AARCH64, arch.X32} {
			if foreign.ID == f.own.ID && foreign.SeccompMask == f.own.SeccompMask {
				continue
			}
			for number := range uint32(600) {
				if verdict := f.run(uint32(foreign.ID), number|uint32(foreign.SeccompMask)); verdict == seccomp.ActionAllow {
					t.Fatalf("%s %d is allowed", foreign.Name, number)
				}
			}
		}
	})
}

// R4: a GPU driver gets what it needs, and no way out: a message with an address finds no socket that
// it could be sent from.
func TestGPUCalls(t *testing.T) {
	onEach(t, true, func(t *testing.T, f filter) {
		for _, name := range forGPU {
			if f.call(name) != seccomp.ActionAllow {
				t.Errorf("%s is refused", name)
			}
		}
		for kind := range uint64(16) {
			for _, flags := range []uint64{0, unix.SOCK_CLOEXEC, unix.SOCK_NONBLOCK, unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK} {
				for _, name := range []string{"socket", "socketpair"} {
					if allowed := f.call(name, unix.AF_UNIX, kind|flags) == seccomp.ActionAllow; allowed != (kind == unix.SOCK_STREAM) {
						t.Errorf("%s of type %d with flags %#x: allowed %v", name, kind, flags, allowed)
					}
					if f.call(name, unix.AF_INET, kind|flags) == seccomp.ActionAllow {
						t.Errorf("%s of the internet, type %d, is allowed", name, kind)
					}
				}
			}
		}
		for _, name := range []string{"connect", "sendmmsg", "ptrace", "keyctl", "execve"} {
			if f.call(name) == seccomp.ActionAllow {
				t.Errorf("%s is allowed", name)
			}
		}
	})
}

// R4: a name that a table lacks would be dropped in silence. amd64 has them all; what arm64 lacks has
// a twin there, which is allowed.
func TestNamesExist(t *testing.T) {
	twins := map[string]string{
		"open": "openat", "stat": "fstatat", "lstat": "fstatat", "newfstatat": "fstatat", "access": "faccessat",
		"readlink": "readlinkat", "time": "clock_gettime", "poll": "ppoll", "select": "pselect6", "epoll_wait": "epoll_pwait",
		"arch_prctl": "set_tid_address", // the thread pointer is a register there
	}
	arm64 := newFilter(t, arch.AARCH64, false)
	for _, name := range slices.Concat(always, forGPU) {
		if _, ok := arch.X86_64.SyscallNames[name]; !ok && name != "fstatat" {
			t.Errorf("amd64 has no %q", name)
		}
		if _, ok := arch.AARCH64.SyscallNames[name]; ok {
			continue
		}
		if twin := twins[name]; twin == "" || arm64.call(twin) != seccomp.ActionAllow {
			t.Errorf("arm64 has no %q, and its twin %q is refused", name, twin)
		}
	}
	if tables[runtime.GOARCH] == nil {
		t.Errorf("nobody looked at the calls of %s", runtime.GOARCH)
	}
}

// R4: only the sandbox's own error counts as a refusal.
func TestCanaryVerdict(t *testing.T) {
	tests := map[string]struct {
		err    error
		failed bool
	}{
		"refused by the sandbox": {unix.EACCES, false},
		"succeeded":              {nil, true},
		"another obstacle":       {unix.ECONNREFUSED, true},
		"the other layer":        {unix.EPERM, true},
		"unknown":                {errors.New("x"), true},
	}
	for name, test := range tests {
		failed := failing([]attempt{
			{"fine", func() error { return unix.EACCES }, byLandlock},
			{"tested", func() error { return test.err }, byLandlock},
		})
		if (failed == "tested") != test.failed {
			t.Errorf("%s: failing = %q", name, failed)
		}
	}
}

// R4: less than the kernel supports is not complete, and neither is a failed canary.
func TestComplete(t *testing.T) {
	full := Result{}
	full.Supported.Landlock, full.Supported.Seccomp = 7, true
	full.Level = full.Supported
	tests := map[string]struct {
		change func(*Result)
		want   bool
	}{
		"all":            {func(*Result) {}, true},
		"no landlock":    {func(r *Result) { r.Level.Landlock = 0 }, false},
		"no seccomp":     {func(r *Result) { r.Level.Seccomp = false }, false},
		"canary failed":  {func(r *Result) { r.Failed = "x" }, false},
		"old kernel":     {func(r *Result) { r.Level.Landlock, r.Supported.Landlock = 0, 0 }, true},
		"no kernel help": {func(r *Result) { *r = Result{} }, true},
	}
	for name, test := range tests {
		r := full
		if test.change(&r); r.Complete() != test.want {
			t.Errorf("%s: complete %v", name, r.Complete())
		}
	}
}
