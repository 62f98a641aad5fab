package store

import (
	"syscall"

	"companion/messages"
)

func identity(stat *syscall.Stat_t) messages.FileIdentity {
	return messages.FileIdentity{
		Device:       uint64(stat.Dev),
		Inode:        stat.Ino,
		Size:         stat.Size,
		ModifiedNano: stat.Mtimespec.Nano(),
		ChangeNano:   stat.Ctimespec.Nano(),
	}
}
