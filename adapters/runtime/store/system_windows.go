//go:build windows

package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"

	"companion/adapters/runtime/identity"
	"companion/messages"
)

// The Windows twin: the profile folder's access list stands for owner and mode, and NTFS's volume and
// file index for device and inode. Untested on real machines.

func openPrivate(path string, flag int) (*os.File, messages.FileIdentity, error) {
	var none messages.FileIdentity
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, none, ErrNotHere
	}
	if err != nil || !info.Mode().IsRegular() {
		return nil, none, &Error{Reason: messages.ReasonInvalidModelPath, what: "a stored file is no regular file"}
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, none, &Error{messages.ReasonInvalidModelPath, "opening a stored file", bare(err)}
	}
	id, err := identity.Of(f)
	if err != nil {
		_ = f.Close()
		return nil, none, err
	}
	return f, id, nil
}

func (s *Store) space(need int64) error {
	dir, err := windows.UTF16PtrFromString(s.dir)
	if err != nil {
		return storing(err)
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(dir, &free, nil, nil); err != nil {
		return storing(err)
	}
	if need > 0 && free < uint64(need) {
		return &Error{Reason: messages.ReasonNoSpace, what: "the disk has less free space than the artifact needs"}
	}
	return nil
}

func full(err error) bool { return errors.Is(err, windows.ERROR_DISK_FULL) }

// Unpinned describes the runtime binary that the configuration allows without a digest (M10).
func Unpinned(path string) (messages.VerifiedRuntime, error) {
	info, err := os.Lstat(path)
	if err != nil || !filepath.IsAbs(path) || filepath.Clean(path) != path || !info.Mode().IsRegular() {
		return messages.VerifiedRuntime{}, &Error{Reason: messages.ReasonInvalidBinaryPath, what: "the unpinned binary has no plain absolute path to a regular file"}
	}
	return messages.VerifiedRuntime{Name: "unpinned", Dir: filepath.Dir(path), Executable: filepath.Base(path)}, nil
}
