package identity

import (
	"os"
	"unsafe"

	"golang.org/x/sys/windows"

	"companion/messages"
)

// of takes NTFS's volume and file index for device and inode. Untested on real machines.
func of(f *os.File) (messages.FileIdentity, error) {
	handle := windows.Handle(f.Fd())
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(handle, &info); err != nil {
		return messages.FileIdentity{}, err
	}
	// winbase.h: FILE_BASIC_INFO, whose times are hundreds of nanoseconds since 1601.
	var basic struct {
		Creation, LastAccess, LastWrite, Change windows.Filetime
		Attributes                              uint32
	}
	if err := windows.GetFileInformationByHandleEx(handle, windows.FileBasicInfo,
		(*byte)(unsafe.Pointer(&basic)), uint32(unsafe.Sizeof(basic))); err != nil {
		return messages.FileIdentity{}, err
	}
	return messages.FileIdentity{
		Device:       uint64(info.VolumeSerialNumber),
		Inode:        uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow),
		Size:         int64(info.FileSizeHigh)<<32 | int64(info.FileSizeLow),
		ModifiedNano: basic.LastWrite.Nanoseconds(), ChangeNano: basic.Change.Nanoseconds(),
	}, nil
}
