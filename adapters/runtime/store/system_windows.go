//go:build windows

package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"

	"companion/adapters/runtime/fileid"
	"companion/messages"
)

// On Windows the access list of the profile folder replaces owner and mode, and the volume and file index of NTFS replace
// device and inode. This is tested under Wine, not on real machines.

func openPrivate(path string, flag int) (*os.File, messages.FileIdentity, error) {
	var none messages.FileIdentity
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, none, ErrNotHere
	}
	if err != nil || !info.Mode().IsRegular() {
		return nil, none, &Error{Reason: messages.ReasonInvalidModelPath, what: "a stored file is not a regular file"}
	}
	f, err := openShared(path, flag)
	if err != nil {
		return nil, none, &Error{messages.ReasonInvalidModelPath, "opening a stored file", bare(err)}
	}
	id, err := fileid.Of(f)
	if err != nil {
		_ = f.Close()
		return nil, none, err
	}
	return f, id, nil
}

// openLinked is not used: on Windows nothing is linked.
func openLinked(path string) (*os.File, messages.FileIdentity, error) {
	return openPrivate(path, os.O_RDONLY)
}

func linkable(os.FileInfo) bool { return false }

// createPrivate creates a file that must not exist yet.
func createPrivate(path string) (*os.File, error) {
	return openShared(path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

// openShared opens a file so that it can be renamed, removed and made read-only while it is open, as on Unix. Package os does
// not request these sharing modes.
func openShared(path string, flag int) (*os.File, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	access, disposition := uint32(windows.GENERIC_READ|windows.FILE_WRITE_ATTRIBUTES), uint32(windows.OPEN_EXISTING)
	if flag&os.O_RDWR != 0 {
		access |= windows.GENERIC_WRITE
	}
	if flag&os.O_CREATE != 0 {
		disposition = windows.CREATE_NEW
	}
	// A link is opened itself and not followed.
	handle, err := windows.CreateFile(name, access, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE,
		nil, disposition, windows.FILE_ATTRIBUTE_NORMAL|windows.FILE_FLAG_OPEN_REPARSE_POINT, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(handle), path), nil
}

func (s *Store) space(need int64) error { return space(s.dir, need) }

func space(folder string, need int64) error {
	dir, err := windows.UTF16PtrFromString(folder)
	if err != nil {
		return storing(err)
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(dir, &free, nil, nil); err != nil {
		return storing(err)
	}
	if need > 0 && free < uint64(need) {
		return noSpace(need, free)
	}
	return nil
}

// Unpinned describes the runtime binary that the configuration allows without a digest (M10).
func Unpinned(path string) (messages.VerifiedRuntime, error) {
	info, err := os.Lstat(path)
	if err != nil || !filepath.IsAbs(path) || filepath.Clean(path) != path || !info.Mode().IsRegular() {
		return messages.VerifiedRuntime{}, &Error{Reason: messages.ReasonInvalidBinaryPath, what: "the unpinned binary has no plain absolute path to a regular file"}
	}
	return messages.VerifiedRuntime{Name: "unpinned", Dir: filepath.Dir(path), Executable: filepath.Base(path)}, nil
}
