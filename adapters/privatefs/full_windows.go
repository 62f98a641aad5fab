package privatefs

import (
	"errors"

	"golang.org/x/sys/windows"
)

// Full reports whether err says that the disk is full.
func Full(err error) bool { return errors.Is(err, windows.ERROR_DISK_FULL) }
