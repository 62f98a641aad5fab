package fileid

import (
	"os"
	"unsafe"

	"golang.org/x/sys/windows"

	"companion/messages"
)

// of uses the volume serial number and file index of NTFS as device and inode. Tested under Wine, not on
// real machines.
func of(f *os.File) (messages.FileIdentity, error) {
	handle := windows.Handle(f.Fd())
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(handle, &info); err != nil {
		return messages.FileIdentity{}, err
	}
	// FILE_BASIC_INFO of winbase.h. Its times have 64 bits; Windows refuses a smaller buffer.
	var basic struct {
		Creation, LastAccess, LastWrite, Change int64
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
		ModifiedNano: nano(basic.LastWrite), ChangeNano: nano(basic.Change),
	}, nil
}

// nano converts units of 100 ns since 1601 to nanoseconds since 1970.
func nano(t int64) int64 {
	return (&windows.Filetime{LowDateTime: uint32(t), HighDateTime: uint32(t >> 32)}).Nanoseconds()
}
