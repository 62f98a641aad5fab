package supervisor

import (
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// A5, P1: the daemon's threads are let in at once beside a model, or a dying one, that holds every processor.
func TestShortTurns(t *testing.T) {
	before, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if before.Runtime == 0 {
		t.Skip("a kernel before 6.12, without time slices of a thread's own: nothing is proven by this test")
	}
	if err := shortTurns(); err != nil {
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
		if got, err := unix.SchedGetAttr(id, 0); err != nil || got.Runtime != uint64(turn) || got.Nice != before.Nice {
			t.Errorf("thread %d: %+v, %v", id, got, err)
		}
	}
}
