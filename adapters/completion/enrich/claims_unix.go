//go:build unix

package enrich

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

func lockByte(file *os.File, at int64) (bool, error) {
	err := setLock(file, unix.F_WRLCK, at)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return false, nil
	}
	return err == nil, err
}

func unlockByte(file *os.File, at int64) error { return setLock(file, unix.F_UNLCK, at) }

func setLock(file *os.File, kind int16, at int64) error {
	return unix.FcntlFlock(file.Fd(), setLockCommand, &unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: at, Len: 1})
}
