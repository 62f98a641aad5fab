package sandbox

import (
	"fmt"
	"os"
	"slices"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"companion/messages"
)

// Rights on the few things that the runtime may see. MAKE_SOCK alone lets it bind and neither read,
// list nor remove anything in the folder.
const (
	readFile = landlock.AccessFSSet(ll.AccessFSReadFile)
	listDir  = landlock.AccessFSSet(ll.AccessFSReadDir)
	readDir  = readFile | listDir
	execute  = readFile | landlock.AccessFSSet(ll.AccessFSExecute)
	makeSock = landlock.AccessFSSet(ll.AccessFSMakeSock)
	device   = readDir | landlock.AccessFSSet(ll.AccessFSWriteFile|ll.AccessFSIoctlDev)
)

// Result is what Apply found. Level holds only what the canaries proved; Supported what the kernel
// offers; Failed the first canary that was not refused, or the step that could not be taken.
type Result struct {
	Level     messages.Sandbox
	Supported messages.Sandbox
	Failed    string
}

// Complete reports whether everything that the kernel supports is in force and proven.
func (r Result) Complete() bool { return r.Failed == "" && r.Level == r.Supported }

// Apply confines the process: Landlock for all its threads, seccomp for the calling one, which must
// be locked to its goroutine and must be the one that executes the runtime. It goes as far as it
// can; the caller decides by the Result whether that is far enough.
func Apply(p Policy) Result {
	r := Result{Supported: supported()}
	missing := func(file string) bool { return readable(file) != nil }
	if len(p.Canary.Files) == 0 || slices.ContainsFunc(p.Canary.Files, missing) {
		r.Failed = "canary file is not there to be refused"
		return r
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		r.Failed = "no_new_privs"
		return r
	}
	tcp, err := newTCPSocket()
	if err != nil {
		r.Failed = "socket for the TCP canary"
		return r
	}
	defer func() { _ = unix.Close(tcp) }()

	if r.Supported.Landlock > 0 {
		if err := restrictFiles(p); err != nil {
			r.Failed = "landlock"
		} else if r.Failed = landlockCanaries(p.Canary, r.Supported.Landlock, tcp); r.Failed == "" {
			r.Level.Landlock = r.Supported.Landlock
		}
	}
	if r.Supported.Seccomp {
		if err := restrictCalls(p.ExecFD, len(p.Devices) > 0); err != nil {
			r.Failed = first(r.Failed, "seccomp")
		} else if failed := seccompCanaries(p, tcp); failed == "" {
			r.Level.Seccomp = true
		} else {
			r.Failed = first(r.Failed, failed)
		}
	}
	return r
}

func supported() messages.Sandbox {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		abi = 0
	}
	return messages.Sandbox{Landlock: abi, Seccomp: seccomp.Supported()}
}

func restrictFiles(p Policy) error {
	rules := []landlock.Rule{
		landlock.PathAccess(execute, p.Executable),
		landlock.PathAccess(readFile, p.ReadFiles...).IgnoreIfMissing(),
		landlock.PathAccess(readDir, p.ReadDirs...).IgnoreIfMissing(),
		landlock.PathAccess(listDir, p.ListDirs...).IgnoreIfMissing(),
		landlock.PathAccess(makeSock, p.SocketDir),
	}
	if p.Loader != "" {
		rules = append(rules, landlock.PathAccess(execute, p.Loader))
	}
	for _, path := range p.Devices {
		rights := device
		if info, err := os.Stat(path); err != nil {
			continue
		} else if !info.IsDir() {
			rights &^= listDir
		}
		rules = append(rules, landlock.PathAccess(rights, path))
	}
	if err := landlock.V11.BestEffort().Restrict(rules...); err != nil {
		return fmt.Errorf("restricting files: %w", err)
	}
	return nil
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
