//go:build unix

package privatefs

import (
	"errors"
	"syscall"
)

// Full reports whether err says that the disk, or the user's share of it, is full.
func Full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }
