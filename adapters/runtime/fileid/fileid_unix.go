//go:build unix

package fileid

import (
	"errors"
	"os"
	"syscall"

	"companion/messages"
)

func of(f *os.File) (messages.FileIdentity, error) {
	info, err := f.Stat()
	if err != nil {
		return messages.FileIdentity{}, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return messages.FileIdentity{}, errors.New("the system does not tell it")
	}
	modified, changed := times(stat)
	return messages.FileIdentity{
		Device: uint64(stat.Dev), Inode: stat.Ino, Size: stat.Size,
		ModifiedNano: modified, ChangeNano: changed,
	}, nil
}
