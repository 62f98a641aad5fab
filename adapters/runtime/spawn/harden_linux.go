package spawn

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Harden protects the secrets of this process (X8): no core file, and no other program of the same user can attach to
// it or read its memory. The daemon calls it first. Children become dumpable again when they execute, and inherit the
// limit of core files.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process undumpable: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbidding core files: %w", err)
	}
	return nil
}
