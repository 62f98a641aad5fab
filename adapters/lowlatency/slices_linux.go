package lowlatency

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// shortSlice is the shortest time slice that a thread can ask for (Linux 6.12).
const shortSlice = 100 * time.Microsecond

// ShortenSlices asks for short time slices for the threads of this process (ShortSlices). The scheduler
// runs a thread that asks for less time earlier. Without it, while a model uses all processors or frees its
// memory, a thread of the daemon may wait for the next scheduler tick (4 ms).
//
// It changes the existing threads; new ones, and new processes, inherit the slice.
func ShortenSlices() error {
	if !Uses(ShortSlices) {
		return nil
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("listing the daemon's threads: %w", err)
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			return fmt.Errorf("listing the daemon's threads: %w", err)
		}
		if err := setSlice(id, shortSlice); err != nil && !errors.Is(err, unix.ESRCH) { // it may have ended
			return fmt.Errorf("asking for short time slices: %w", err)
		}
	}
	return nil
}

func setSlice(thread int, slice time.Duration) error {
	attributes, err := unix.SchedGetAttr(thread, 0)
	if err != nil {
		return err
	}
	attributes.Runtime = uint64(slice)
	return unix.SchedSetAttr(thread, attributes, 0)
}
