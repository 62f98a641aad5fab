package lowlatency

import (
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// attributes returns the time slice and niceness of a thread; 0 means the calling one.
func attributes(t *testing.T, thread int) (slice time.Duration, nice int32) {
	t.Helper()
	got, err := unix.SchedGetAttr(thread, 0)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(got.Runtime), got.Nice
}

// A5, P1: all threads of the daemon get the short time slice and keep their niceness, unless the measures
// are off.
func TestShortenSlices(t *testing.T) {
	usual, nice := attributes(t, 0)
	if usual == 0 {
		t.Skip("not proven: this kernel is older than 6.12 and has no time slices per thread")
	}
	SetEnabled(false)
	err := ShortenSlices()
	SetEnabled(true)
	if got, _ := attributes(t, 0); err != nil || got != usual {
		t.Errorf("measures off: got a slice of %v, %v; want %v unchanged", got, err, usual)
	}
	if err := ShortenSlices(); err != nil {
		t.Fatal(err)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		if got, gotNice := attributes(t, id); got != shortSlice || gotNice != nice {
			t.Errorf("thread %d: got slice %v and niceness %d, want %v and %d", id, got, gotNice, shortSlice, nice)
		}
	}
}

// R2: LowerPriority changes nothing when the measures are off, and LowerAutogroup ignores a group that is
// closed or absent. TestRuntimePriority of adapters/runtime/spawn shows what they do when on.
func TestLowerPriorityOff(t *testing.T) {
	// Not unlocked: if this fails, the thread ends with the goroutine, since niceness cannot be lowered.
	runtime.LockOSThread()
	usual, nice := attributes(t, 0)
	SetEnabled(false)
	LowerPriority(true)
	SetEnabled(true)
	if got, gotNice := attributes(t, 0); got != usual || gotNice != nice {
		t.Errorf("measures off: got slice %v and niceness %d, want %v and %d", got, gotNice, usual, nice)
	}
	if autogroup := OpenAutogroup(os.Getpid()); autogroup != nil {
		_ = autogroup.Close()
		LowerAutogroup(autogroup) // closed: ignored
	}
	LowerAutogroup(nil)
}
