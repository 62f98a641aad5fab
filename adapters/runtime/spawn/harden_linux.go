package spawn

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Harden makes this process one that holds secrets (X8): no core file, and no attaching or reading
// of its memory by other programs of the same user. The daemon calls it first thing. Children are
// dumpable again when they execute, and inherit the limit of core files.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process undumpable: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbidding core files: %w", err)
	}
	return nil
}
