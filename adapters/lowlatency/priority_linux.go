package lowlatency

import (
	"fmt"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What LowerPriority sets.
const (
	// niceness is added to the niceness of the process, and set for its session (sched(7), autogroup).
	niceness = 5
	// longSlice is far longer than the default time slice (at most 3 ms), so that a program with the
	// default preempts the runtime as soon as it wakes, not at a later scheduler tick.
	longSlice = 10 * time.Millisecond
	// lowest is the highest niceness.
	lowest = "19"
)

// LowerPriority makes the calling process, and what it executes, give way to other programs that wake
// (RuntimePriority): the helper stage calls it before it executes the model runtime. A runtime that uses all
// processors then delays the daemon and the user's programs less. With background set, it also gets a smaller
// share than programs that compute. A runtime that has the machine to itself is as fast as without. It is
// best effort: what the system does not allow is left out.
func LowerPriority(background bool) {
	if !Uses(RuntimePriority) {
		if Uses(ShortSlices) {
			_ = setSlice(0, 0) // the runtime must not inherit the daemon's short slice
		}
		return
	}
	if attributes, err := unix.SchedGetAttr(0, 0); err == nil {
		attributes.Runtime = uint64(longSlice)
		if background {
			attributes.Nice = min(attributes.Nice+niceness, 19)
		}
		_ = unix.SchedSetAttr(0, attributes, 0)
	}
}

// LowerSession does the same for the session of pid, against other sessions (sched(7), autogroup). The daemon calls
// it for the helper stage: the kernel limits how often a process without privileges may write that file, and a stage
// in a user namespace has none.
func LowerSession(pid int) {
	if Uses(RuntimePriority) {
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", pid), []byte(strconv.Itoa(niceness)), 0)
	}
}

// OpenAutogroup opens the scheduling group of the session of pid for LowerAutogroup. It returns nil if the
// kernel has none or ExitPriority is off.
func OpenAutogroup(pid int) *os.File {
	if !Uses(ExitPriority) {
		return nil
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/autogroup", pid), os.O_WRONLY, 0)
	if err != nil {
		return nil
	}
	return f
}

// LowerAutogroup gives a session the lowest priority (ExitPriority). It is for a runtime that is exiting: its last
// thread frees memory, and nothing waits for that. It uses a raw system call for the same reason as Conn. A nil or
// closed group is ignored.
func LowerAutogroup(group *os.File) {
	raw, err := group.SyscallConn()
	if err != nil {
		return
	}
	// Control keeps the descriptor open meanwhile, because the number of a closed one may be reused.
	_ = raw.Control(func(fd uintptr) {
		text := []byte(lowest)
		_, _, _ = unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&text[0])), uintptr(len(text)))
	})
}

// Sleep blocks the thread for d by a raw system call that bypasses Go's entersyscall (ExitPause), so d must be far
// less than a millisecond. If the measure is off, it returns at once.
func Sleep(d time.Duration) {
	if !Uses(ExitPause) {
		return
	}
	t := unix.NsecToTimespec(d.Nanoseconds())
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
}
