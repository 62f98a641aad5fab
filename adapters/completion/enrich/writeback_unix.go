//go:build unix

package enrich

import (
	"io/fs"
	"os"
	"syscall"
)

// replaceable reports whether a new file can take the place of this one: it has one name, and this user owns it.
func replaceable(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Nlink == 1 && int(stat.Uid) == os.Geteuid()
}
