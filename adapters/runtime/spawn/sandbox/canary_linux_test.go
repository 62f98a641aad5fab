package sandbox

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

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
			t.Errorf("%s: got failing test %q, want failed %v", name, failed, test.failed)
		}
	}
}

// R4, R10: the canaries find each fault of a filter that is really installed: on a thread without a filter, with the
// filter that forgets one rule's conditions, with one that always allows what is allowed once.
func TestCanariesFindFaults(t *testing.T) {
	o := options{execFD: testExecFD, pid: os.Getpid(), asks: true}
	policy := Policy{ExecFD: testExecFD}
	run := func(change func([]rule) []rule, try func(filter []unix.SockFilter, tcp int) string) (failed string) {
		t.Helper()
		program, err := assemble(processors[runtime.GOARCH], change(rules(o)))
		if err != nil {
			t.Fatal(err)
		}
		filter, err := encode(program)
		if err != nil {
			t.Fatal(err)
		}
		onOwnThread(func() {
			tcp, err := newTCPSocket()
			if err == nil {
				err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
			}
			if err != nil {
				failed = err.Error()
				return
			}
			defer func() { _ = unix.Close(tcp) }()
			failed = try(filter, tcp)
		})
		return failed
	}
	installed := func(filter []unix.SockFilter, tcp int) string {
		if _, err := install(filter, false); err != nil {
			return err.Error()
		}
		return seccompCanaries(policy, tcp)
	}
	once := func(filter []unix.SockFilter, tcp int) string { return onceCanaries(filter, policy, tcp) }
	forget := func(call string) func([]rule) []rule {
		return func(list []rule) []rule { return append(plain(allow, call), list...) }
	}
	same := func(list []rule) []rule { return list }
	if failed := run(same, installed) + run(same, once); failed != "" {
		t.Errorf("without a fault: %q failed, want none", failed)
	}
	for call, want := range map[string]string{
		"socket": "making an internet socket", "prctl": "outliving the daemon", "sendto": "an address by garbage in an argument",
		"kill": "a signal by garbage in an argument", "prlimit64": "a limit by garbage in an argument", "fcntl": "a descriptor by garbage in an argument",
		"sched_setaffinity": "a processor by garbage in an argument", "openat": "an opening by garbage in an argument",
		"clone": "a process by garbage in an argument", "execve": "executing a path", "execveat": "executing another descriptor",
	} {
		if (call == "kill" || call == "prlimit64" || call == "sched_setaffinity") && unix.Kill(os.Getppid(), 0) != nil {
			continue // another user's parent is refused by the kernel; the daemon is of the same user
		}
		if failed := run(forget(call), installed); failed != want {
			t.Errorf("%s without conditions: %q failed, want %q", call, failed, want)
		}
	}
	for call, want := range map[string]string{"execveat": "a second execution", "bind": "a second bind"} {
		if failed := run(forget(call), once); failed != want {
			t.Errorf("%s always: %q failed, want %q", call, failed, want)
		}
	}
}

// R4: less than the kernel supports is not complete, and neither is a failed canary. The network namespace is what the
// system lets the user have.
func TestComplete(t *testing.T) {
	full := Result{}
	full.Supported.Landlock, full.Supported.Seccomp = 7, true
	full.Level = full.Supported
	tests := map[string]struct {
		change func(*Result)
		want   bool
	}{
		"all":            {func(*Result) {}, true},
		"own network":    {func(r *Result) { r.Level.Netns = true }, true},
		"no landlock":    {func(r *Result) { r.Level.Landlock = 0 }, false},
		"no seccomp":     {func(r *Result) { r.Level.Seccomp = false }, false},
		"canary failed":  {func(r *Result) { r.Failed = "x" }, false},
		"old kernel":     {func(r *Result) { r.Level.Landlock, r.Supported.Landlock = 0, 0 }, true},
		"no kernel help": {func(r *Result) { *r = Result{} }, true},
	}
	for name, test := range tests {
		r := full
		if test.change(&r); r.Complete() != test.want {
			t.Errorf("%s: got complete %v, want %v", name, r.Complete(), test.want)
		}
	}
}
