package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"companion/messages"
)

// Rights on the few things that the runtime may see. makeSock alone lets it bind in a folder and neither read, list nor
// remove anything there.
const (
	readFile = landlock.AccessFSSet(ll.AccessFSReadFile)
	listDir  = landlock.AccessFSSet(ll.AccessFSReadDir)
	readDir  = readFile | listDir
	execute  = readFile | landlock.AccessFSSet(ll.AccessFSExecute)
	makeSock = landlock.AccessFSSet(ll.AccessFSMakeSock)
	device   = readDir | landlock.AccessFSSet(ll.AccessFSWriteFile|ll.AccessFSIoctlDev)
)

// Result is what Apply found. Level holds only what the canaries proved; Supported what the kernel offers; Failed the
// first canary that was not refused, or the step that could not be taken.
type Result struct {
	Level     messages.Sandbox
	Supported messages.Sandbox
	Failed    string
	// Artifact: what failed is due to the runtime's program, not to the kernel.
	Artifact bool
	// Listener is the seccomp notification descriptor, through which the execution and the binding are allowed once
	// each, and Socket the back-end socket, bound. Both are -1 where the kernel has no notifications.
	Listener, Socket int
}

// Complete reports whether everything that the kernel supports is in force and proven.
func (r Result) Complete() bool {
	return r.Failed == "" && r.Level.Landlock == r.Supported.Landlock && r.Level.Seccomp == r.Supported.Seccomp
}

// fail keeps the first failure.
func (r *Result) fail(what string) {
	if r.Failed == "" {
		r.Failed = what
	}
}

// Apply confines the process: Landlock for all its threads, seccomp for the calling one, which must be locked to its
// goroutine and must be the one that executes the runtime. It goes as far as it can; the caller decides by the Result
// whether that is far enough.
func Apply(p Policy, layers Layers) Result {
	r := Result{Supported: supported(layers), Listener: -1, Socket: -1}
	missing := func(file string) bool { return readable(file) != nil }
	if len(p.Canary.Files) == 0 || slices.ContainsFunc(p.Canary.Files, missing) {
		r.fail("canary file is not there to be refused")
		return r
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		r.fail("no_new_privs")
		return r
	}
	tcp, err := newTCPSocket()
	if err != nil {
		r.fail("socket for the TCP canary")
		return r
	}
	defer func() { _ = unix.Close(tcp) }()
	// A namespace without an interface that is up reaches nothing, and says so.
	r.Level.Netns = p.OwnNetwork && errors.Is(dialTCP(tcp), unix.ENETUNREACH)

	asks := r.Supported.Seccomp && r.bindOnce(p.Socket)
	if r.Supported.Landlock > 0 {
		// Some systems lack one of these, or keep it from this user.
		p.Canary.Outside = slices.DeleteFunc(slices.Clone(p.Canary.Outside), missing)
		if err := restrictFiles(p, !asks); err != nil {
			r.fail("landlock")
			r.Artifact = errors.Is(err, errProgram)
		} else if failed := landlockCanaries(p.Canary, r.Supported.Landlock, tcp); failed != "" {
			r.fail(failed)
		} else {
			r.Level.Landlock = r.Supported.Landlock
		}
	}
	if layers.Limits {
		if err := limitFiles(p, r.Level.Landlock > 0); err != nil {
			r.fail("limit of file sizes")
		}
	}
	if r.Supported.Seccomp {
		r.restrictCalls(p, asks, tcp)
	}
	return r
}

// bindOnce binds the back-end socket and replaces the process's own bind with it. It returns false where the kernel
// cannot do that.
func (r *Result) bindOnce(path string) bool {
	if err := notificationsWork(); err != nil {
		r.fail("a second execution: seccomp notifications (Linux 5.9) are not available")
		return false
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err != nil {
		r.fail("binding the back-end socket: " + err.Error())
		return false
	}
	r.Socket = fd
	return true
}

// tryOnce is onceCanaries, except in a test of what its result decides.
var tryOnce = onceCanaries

// restrictCalls installs the allow list and tries it.
func (r *Result) restrictCalls(p Policy, asks bool, tcp int) {
	filter, err := allowList(options{execFD: p.ExecFD, pid: os.Getpid(), gpu: len(p.Devices) > 0, asks: asks})
	if err == nil && asks {
		if failed := tryOnce(filter, p, tcp); failed != "" {
			r.fail(failed)
			asks = false
		}
	}
	if err == nil {
		r.Listener, err = install(filter, asks)
	}
	if err != nil {
		r.fail("seccomp")
		return
	}
	if failed := seccompCanaries(p, tcp); failed != "" {
		r.fail(failed)
		return
	}
	r.Level.Seccomp = r.Listener >= 0
}

// allowList is the filter for this machine.
func allowList(o options) ([]unix.SockFilter, error) {
	own, ok := processors[runtime.GOARCH]
	if !ok {
		return nil, errors.New("the system calls of this processor are not known")
	}
	program, err := assemble(own, rules(o))
	if err != nil {
		return nil, fmt.Errorf("assembling the allow list: %w", err)
	}
	return encode(program)
}

func supported(layers Layers) messages.Sandbox {
	var s messages.Sandbox
	if abi, err := ll.LandlockGetABIVersion(); err == nil && layers.Landlock {
		s.Landlock = abi
	}
	s.Seccomp = layers.Seccomp && filterSupported()
	return s
}

// errProgram: the runtime's program or its loader cannot get its rule.
var errProgram = errors.New("the program or its loader is not a regular file")

// restrictFiles puts Landlock in force. With bind a socket may be made in the folder of the back end's. A rule for a file
// opens no folder, and a rule for a folder is for a folder: a rule of the other kind would open more, or fail.
func restrictFiles(p Policy, bind bool) error {
	isFile := func(path string) bool {
		return isKind(path, unix.S_IFREG) || path == randomDevice && isKind(path, unix.S_IFCHR)
	}
	isDir := func(path string) bool { return isKind(path, unix.S_IFDIR) }
	programs := []string{p.Executable}
	if p.Loader != "" {
		programs = append(programs, p.Loader)
	}
	if !slices.Equal(programs, only(programs, isFile)) {
		return errProgram
	}
	rules := []landlock.Rule{
		landlock.PathAccess(execute, programs...),
		landlock.PathAccess(readFile, only(p.ReadFiles, isFile)...).IgnoreIfMissing(),
		landlock.PathAccess(readDir, only(p.ReadDirs, isDir)...).IgnoreIfMissing(),
		landlock.PathAccess(listDir, only(p.ListDirs, isDir)...).IgnoreIfMissing(),
	}
	if bind {
		rules = append(rules, landlock.PathAccess(makeSock, filepath.Dir(p.Socket)))
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

// randomDevice is the only file under a rule for files that is not a regular one.
const randomDevice = "/dev/urandom"

// only returns the paths that are as wanted.
func only(paths []string, wanted func(string) bool) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return !wanted(path) })
}

// isKind reports whether there is a file of this kind (S_IFMT), through symbolic links, as the rule is made.
func isKind(path string, kind uint32) bool {
	var stat unix.Stat_t
	return unix.Stat(path, &stat) == nil && stat.Mode&unix.S_IFMT == kind
}

// limitFiles bounds what can be written to a file: nothing. A GPU driver must give its anonymous files a size, which the
// kernel counts as well; it may where Landlock keeps it from writing any other file.
func limitFiles(p Policy, landlock bool) error {
	var limit unix.Rlimit
	if len(p.Devices) > 0 && landlock {
		if p.AnonymousFile == 0 {
			return nil
		}
		if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
			return err
		}
		limit.Cur = min(limit.Max, uint64(p.AnonymousFile))
		limit.Max = limit.Cur
	}
	return unix.Setrlimit(unix.RLIMIT_FSIZE, &limit)
}
