package enrich

import (
	"errors"
	"math"
	"os"

	"golang.org/x/sys/windows"
)

// openNoFollow adds nothing: Windows needs a privilege to make a symbolic link, and has no named pipes in folders.
const openNoFollow = 0

// tryLock locks one byte far behind the content, and reports whether it could: Windows enforces locks, and
// readers of the results must not be refused. Closing the file gives the lock back.
func tryLock(file *os.File) (bool, error) {
	err := windows.LockFileEx(windows.Handle(file.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, 1, 0, &windows.Overlapped{OffsetHigh: math.MaxInt32})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return false, nil
	}
	return err == nil, err
}
