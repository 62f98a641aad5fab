package spawn

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"companion/adapters/lowlatency"
	"companion/adapters/runtime/spawn/sandbox"
)

// layers are all layers, except in tests that show what each of them stops.
var layers = sandbox.AllLayers

// openFiles bounds the runtime's descriptors: libraries, the model, and one connection per request.
const openFiles = 1024

// pendingSignals bounds the signals that wait for the runtime. Ordinary signals arrive also beyond it.
const pendingSignals = 64

// StageMain executes the runtime, or reports the failure and exits. Only main functions call it, when IsStage is true.
func StageMain() {
	// Seccomp, the parent-death signal and the execution must use the same thread.
	runtime.LockOSThread()
	report := json.NewEncoder(os.NewFile(reportFD, "report"))
	err := stage(report)
	_ = report.Encode(stageReport{Failed: err.Error()})
	os.Exit(1)
}

// stage returns only when it fails.
func stage(report *json.Encoder) error {
	unix.Umask(0o177)
	p, err := readPlan()
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("tying its life to the daemon's: %w", err)
	}
	if os.Getppid() != p.Parent {
		return errors.New("tying its life to the daemon's: the daemon has ended")
	}
	if err := closeOnExecution(p.Further); err != nil {
		return fmt.Errorf("closing descriptors on execution: %w", pathless(err))
	}
	covered := p.Policy.OwnNetwork && coveredInTime(p.needed())
	dropPrivileges()
	lowlatency.SetEnabled(p.LowLatency)
	lowlatency.LowerPriority(p.Background)
	if p.Policy.ExecFD, err = limit(p.MemoryLimit); err != nil {
		return err
	}
	p.Policy.Executable = fmt.Sprintf("/proc/self/fd/%d", p.Policy.ExecFD)
	result := sandbox.Apply(p.Policy, layers)
	result.Level.Mounts = covered
	said := stageReport{Sandbox: result.Level, Handover: result.Listener >= 0}
	// Mode prefer accepts what the kernel lacks, and nothing that the runtime's own files bring about.
	if result.Artifact || p.Mode != Prefer && !result.Complete() {
		said.Refused = result.Failed
	}
	if said.Handover {
		if err := handOver(result.Listener, result.Socket); err != nil {
			return fmt.Errorf("handing over to the daemon: %w", err)
		}
	}
	if err := report.Encode(said); err != nil || said.Refused != "" {
		os.Exit(1)
	}
	return fmt.Errorf("executing the runtime: %w", execute(p))
}

// handOver sends the notification descriptor and the bound socket to the daemon. The confined thread may not send, so it
// waits for another thread. When the daemon's end closes, the last descriptor closes, and the calls are refused.
func handOver(listener, socket int) error {
	sent := make(chan error)
	go func() {
		err := unix.Sendmsg(handoverFD, []byte{0}, unix.UnixRights(listener, socket), nil, 0)
		sent <- errors.Join(err, unix.Close(listener), unix.Close(socket), unix.Close(handoverFD))
	}()
	return <-sent
}

// closeOnExecution leaves the runtime only the files of its model and the standard three descriptors, whatever was inherited.
func closeOnExecution(further int) error {
	last := uint(furtherFD + further)
	if unix.CloseRange(modelFD+1, furtherFD-1, unix.CLOSE_RANGE_CLOEXEC) == nil &&
		unix.CloseRange(last, ^uint(0), unix.CLOSE_RANGE_CLOEXEC) == nil {
		return nil
	}
	// The kernel is older than 5.11.
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > modelFD && (fd < furtherFD || fd >= int(last)) {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// dropPrivileges drops root's privileges for the execution. It fails for an ordinary user, who has none.
func dropPrivileges() {
	// linux/securebits.h
	const noRoot, noRootLocked = 1 << 0, 1 << 1
	_ = unix.Prctl(unix.PR_SET_SECUREBITS, noRoot|noRootLocked, 0, 0, 0)
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
}

// limit sets the resource limits and moves the executable's descriptor to the first number above the limit of open
// files. It stays usable until it closes on execution, and no later descriptor can have that number, which is the only
// one that the seccomp filter allows to be executed.
func limit(memory int64) (execFD int, err error) {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return 0, fmt.Errorf("reading the limit of open files: %w", err)
	}
	execFD = int(min(openFiles, files.Max-1))
	if err := unix.Dup3(executableFD, execFD, unix.O_CLOEXEC); err != nil {
		return 0, fmt.Errorf("moving the executable's descriptor: %w", err)
	}
	if err := unix.Close(executableFD); err != nil {
		return 0, fmt.Errorf("moving the executable's descriptor: %w", err)
	}
	var tasks unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &tasks); err != nil {
		return 0, fmt.Errorf("reading the limit of threads: %w", err)
	}
	limits := map[int]uint64{
		unix.RLIMIT_NPROC:  taskShare(tasks.Cur),
		unix.RLIMIT_NOFILE: uint64(execFD),
		unix.RLIMIT_CORE:   0,
		// Each signal that waits costs memory of the kernel's, which no other limit of ours counts.
		unix.RLIMIT_SIGPENDING: pendingSignals,
	}
	if !layers.Limits {
		limits = map[int]uint64{unix.RLIMIT_NOFILE: uint64(execFD)} // the executable's descriptor number depends on it
	}
	if memory > 0 && layers.Limits {
		// Data, not address space: a mapped model counts as address space, and its memory can be reclaimed.
		limits[unix.RLIMIT_DATA] = uint64(memory)
	}
	for resource, value := range limits {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: value, Max: value}); err != nil {
			return 0, fmt.Errorf("setting a resource limit: %w", err)
		}
	}
	return execFD, nil
}

// taskShare is the number of threads and processes of the user above which the runtime is refused another: half of the
// user's limit. A runtime that starts threads without end then leaves the other half; a control group stops it much
// earlier. The kernel counts all of the user's tasks, so a small limit stays as it is.
func taskShare(limit uint64) uint64 {
	const least, most = 8192, 32768
	switch half := limit / 2; {
	case half > most: // an unlimited value is a large number
		return most
	case half < least:
		return limit
	default:
		return half
	}
}

func execute(p plan) error {
	args, err := syscall.SlicePtrFromStrings(p.Args)
	if err != nil {
		return err
	}
	env, err := syscall.SlicePtrFromStrings(p.Env)
	if err != nil {
		return err
	}
	empty, err := syscall.BytePtrFromString("")
	if err != nil {
		return err
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(p.Policy.ExecFD), uintptr(unsafe.Pointer(empty)),
		uintptr(unsafe.Pointer(&args[0])), uintptr(unsafe.Pointer(&env[0])), unix.AT_EMPTY_PATH, 0)
	return errno
}
