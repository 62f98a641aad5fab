//go:build unix

package enrich

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// openNoFollow refuses a symbolic link and waits for no writer of a named pipe.
const openNoFollow = unix.O_NOFOLLOW | unix.O_NONBLOCK

// tryLock takes the file's advisory lock, and reports whether it could. Closing the file gives it back.
func tryLock(file *os.File) (bool, error) {
	err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return false, nil
	}
	return err == nil, err
}
