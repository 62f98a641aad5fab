package spawn

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"

	"companion/messages"
)

// openRegular opens a regular file that is no link. Untested on real machines.
func openRegular(path string) (*os.File, error) {
	before, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, errNotRegular
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err == nil && !os.SameFile(before, opened) {
		err = errNotRegular
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Identity is what pins a verified file (M9), read from an open descriptor.
func Identity(f *os.File) (messages.FileIdentity, error) {
	handle := windows.Handle(f.Fd())
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(handle, &info); err != nil {
		return messages.FileIdentity{}, fmt.Errorf("reading a file's identity: %w", err)
	}
	// winbase.h: FILE_BASIC_INFO, whose times are hundreds of nanoseconds since 1601.
	var basic struct {
		Creation, LastAccess, LastWrite, Change windows.Filetime
		Attributes                              uint32
	}
	if err := windows.GetFileInformationByHandleEx(handle, windows.FileBasicInfo,
		(*byte)(unsafe.Pointer(&basic)), uint32(unsafe.Sizeof(basic))); err != nil {
		return messages.FileIdentity{}, fmt.Errorf("reading a file's identity: %w", err)
	}
	return messages.FileIdentity{
		Device:       uint64(info.VolumeSerialNumber),
		Inode:        uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow),
		Size:         int64(info.FileSizeHigh)<<32 | int64(info.FileSizeLow),
		ModifiedNano: basic.LastWrite.Nanoseconds(), ChangeNano: basic.Change.Nanoseconds(),
	}, nil
}

var errUntrusted = errors.New("somebody else owns a file or folder of it")

// trusted reports whether the user, the administrators or the system own the file (M10). Who may
// write it is left to the access list of the user's profile.
func trusted(f *os.File) error { return trustedPath(f.Name()) }

func trustedPath(path string) error {
	security, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return err
	}
	owner, _, err := security.Owner()
	if err != nil {
		return err
	}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return err
	}
	if owner.Equals(user.User.Sid) || owner.IsWellKnown(windows.WinBuiltinAdministratorsSid) || owner.IsWellKnown(windows.WinLocalSystemSid) {
		return nil
	}
	return errUntrusted
}
