package sandbox

import (
	"encoding/binary"
	"errors"
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

// filter is the program that the kernel would run, in a machine that runs it here.
type filter struct {
	t   *testing.T
	vm  *bpf.VM
	own *arch.Info
}

func newFilter(t *testing.T, gpu bool) filter {
	t.Helper()
	policy, err := allowList(testExecFD, testPID, gpu)
	if err != nil {
		t.Fatal(err)
	}
	program, err := policy.Assemble()
	if err != nil {
		t.Fatal(err)
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	own, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	return filter{t, vm, own}
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
		{"socket", []uint64{unix.AF_UNIX + other}, false},
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
		{"prctl", []uint64{unix.PR_SET_NAME}, true},
		{"prctl", []uint64{unix.PR_SET_PDEATHSIG}, false},
		{"prctl", []uint64{unix.PR_SET_DUMPABLE}, false},
		{"prctl", []uint64{unix.PR_SET_SECCOMP}, false},
		{"ioctl", []uint64{0, unix.TCGETS}, true},
		{"ioctl", []uint64{0, unix.TIOCSTI}, false},
		{"fcntl", []uint64{3, unix.F_SETFL}, true},
		{"fcntl", []uint64{3, unix.F_SETOWN}, false},
	}
	f := newFilter(t, false)
	for _, test := range tests {
		if verdict := f.call(test.name, test.args...); (verdict == seccomp.ActionAllow) != test.allowed {
			t.Errorf("%s %v: %v", test.name, test.args, verdict)
		}
	}
	if verdict := f.call("clone3"); verdict != noSuchCall {
		t.Errorf("clone3: %#x, want ENOSYS", uint32(verdict))
	}
}

// R4: what is not on the list is refused: every call of this machine's table, named or not.
func TestEverythingElseIsRefused(t *testing.T) {
	f := newFilter(t, false)
	listed := map[uint32]bool{}
	// The last three are allowed with arguments that are all zero: duplicating a descriptor, sending
	// without an address, asking for limits of its own.
	for _, name := range append(slices.Clone(always), "fcntl", "sendto", "prlimit64") {
		if number, ok := f.own.SyscallNames[name]; ok {
			listed[uint32(number)] = true
		}
	}
	for number := range uint32(2000) {
		if allowed := f.run(uint32(f.own.ID), number) == seccomp.ActionAllow; allowed != listed[number] {
			t.Errorf("%d %s: allowed %v", number, f.own.SyscallNumbers[int(number)], allowed)
		}
	}
	for _, name := range []string{
		"connect", "ptrace", "keyctl", "add_key", "request_key", "memfd_create", "execve", "process_vm_readv", "io_uring_setup",
		"bpf", "unshare", "setns", "mount", "sendmsg", "sendmmsg", "socketpair", "pidfd_open", "setsid", "setpgid", "chmod", "fchmodat",
	} {
		if _, ok := f.own.SyscallNames[name]; ok && f.call(name) == seccomp.ActionAllow {
			t.Errorf("%s is allowed", name)
		}
	}
}

// R4: no other table of the processor gets past: a list of forbidden calls is passed that way.
func TestForeignTables(t *testing.T) {
	f := newFilter(t, false)
	for _, foreign := range []*arch.Info{arch.I386, arch.X86_64, arch.ARM, arch.AARCH64, arch.X32} {
		for number := range uint32(600) {
			if foreign.ID == f.own.ID && foreign.SeccompMask == f.own.SeccompMask {
				continue
			}
			if verdict := f.run(uint32(foreign.ID), number|uint32(foreign.SeccompMask)); verdict == seccomp.ActionAllow {
				t.Fatalf("%s %d is allowed", foreign.Name, number)
			}
		}
	}
}

// R4: a GPU driver gets what it needs, and no way out.
func TestGPUCalls(t *testing.T) {
	f := newFilter(t, true)
	for _, name := range forGPU {
		if f.call(name) != seccomp.ActionAllow {
			t.Errorf("%s is refused", name)
		}
	}
	for _, name := range []string{"connect", "ptrace", "keyctl", "execve"} {
		if f.call(name) == seccomp.ActionAllow {
			t.Errorf("%s is allowed", name)
		}
	}
}

// A misspelt name would be dropped in silence: each is a call of a table that we build for.
func TestNamesExist(t *testing.T) {
	for _, name := range slices.Concat(always, forGPU) {
		_, amd64 := arch.X86_64.SyscallNames[name]
		_, arm64 := arch.AARCH64.SyscallNames[name]
		if !amd64 && !arm64 {
			t.Errorf("no table has %q", name)
		}
	}
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
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
