//go:build unix

package archive

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// owned reports whether the user owns the file, and whether a file that is not a folder has exactly one hard link.
func owned(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid() && (info.IsDir() || stat.Nlink == 1)
}

func sameMode(info fs.FileInfo, want fs.FileMode) bool {
	return info.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) == want
}

// settleFolder makes a complete folder read-only and syncs it.
func settleFolder(d *os.File) error { return errors.Join(cause(d.Chmod(folderMode)), cause(d.Sync())) }
