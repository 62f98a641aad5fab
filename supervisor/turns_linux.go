package supervisor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// turn is the time slice that the daemon's threads ask for, the shortest there is (Linux 6.12): whoever
// asks for less at a time is let in sooner. Beside a model that occupies all processors, or one that dies
// and frees its memory, a thread would else wait for a tick of the scheduler (4 ms), and with it the word
// that availability was lost (A5).
const turn = 100 * time.Microsecond

// shortTurns sets it for the threads that there are; later ones inherit it. A daemon without it is slower to
// tell, and no less right.
func shortTurns() error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("listing the daemon's threads: %w", err)
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			return fmt.Errorf("listing the daemon's threads: %w", err)
		}
		if err := shorten(id); err != nil && !errors.Is(err, unix.ESRCH) { // it may have ended since
			return fmt.Errorf("asking for short time slices: %w", err)
		}
	}
	return nil
}

func shorten(thread int) error {
	attributes, err := unix.SchedGetAttr(thread, 0)
	if err != nil {
		return err
	}
	attributes.Runtime = uint64(turn)
	return unix.SchedSetAttr(thread, attributes, 0)
}
