//go:build unix

package spawn

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"companion/messages"
)

// checkAddress refuses a socket that other users can reach or that has another owner.
func checkAddress(b messages.BackEnd) error {
	info, err := os.Lstat(b.Address)
	if err != nil {
		return pathless(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || int(stat.Uid) != os.Geteuid():
		return fmt.Errorf("%w: its socket has another owner", ErrNotOurChild)
	case info.Mode().Type() != fs.ModeSocket || info.Mode().Perm() != 0o600:
		return fmt.Errorf("%w: its socket has type and mode %s", ErrNotOurChild, info.Mode())
	}
	return nil
}
