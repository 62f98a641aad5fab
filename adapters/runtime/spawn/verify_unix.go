//go:build unix

package spawn

import (
	"errors"
	"os"
	"syscall"
)

// openRegular opens a regular file. It follows no symbolic link and does not block.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO) { // a link, a socket
		return nil, errNotRegular
	} else if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

var errUntrusted = errors.New("another user owns or may write one of its files or folders")

// trusted reports whether the user or root owns the file and no other user may write it (M10).
func trusted(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return trustedInfo(info)
}

func trustedPath(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	return trustedInfo(info)
}

func trustedInfo(info os.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || (stat.Uid != 0 && int(stat.Uid) != os.Geteuid()) || info.Mode().Perm()&0o022 != 0 {
		return errUntrusted
	}
	return nil
}
