package sandbox

import (
	"runtime"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// R4, R10: a filter one of whose canaries fails counts as none, and the failure is named. Here another filter of the
// thread answers socket(2) with an error that ours never gives, and the canaries of the calls that are allowed once fail.
func TestCanariesOfCallsDecide(t *testing.T) {
	for want, change := range map[string]func() error{
		"":                       func() error { return nil },
		"dialling a Unix socket": answerSocketsOtherwise,
		"a second bind": func() error {
			tryOnce = func([]unix.SockFilter, Policy, int) string { return "a second bind" }
			return nil
		},
	} {
		r := Result{Listener: -1, Socket: -1}
		onOwnThread(func() {
			tcp, err := newTCPSocket()
			if err == nil {
				err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
			}
			if err == nil {
				err = change()
			}
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = unix.Close(tcp) }()
			r.restrictCalls(Policy{ExecFD: testExecFD}, true, tcp)
		})
		tryOnce = onceCanaries
		if r.Failed != want || r.Level.Seccomp != (want == "") {
			t.Errorf("got failed %q and seccomp %v, want %q and %v", r.Failed, r.Level.Seccomp, want, want == "")
		}
		if r.Listener >= 0 {
			_ = unix.Close(r.Listener)
		}
	}
}

func answerSocketsOtherwise() error {
	number, _, err := processors[runtime.GOARCH].number("socket")
	if err != nil {
		return err
	}
	filter, err := encode([]bpf.Instruction{
		bpf.LoadAbsolute{Off: numberOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: number, SkipFalse: 1},
		give(unix.SECCOMP_RET_ERRNO | verdict(unix.EXDEV)), give(allow),
	})
	if err == nil {
		_, err = install(filter, false)
	}
	return err
}
