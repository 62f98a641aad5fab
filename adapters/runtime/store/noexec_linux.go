package store

import "golang.org/x/sys/unix"

// noexec reports whether the file system of dir is mounted noexec. An error counts as no: the start tells.
func noexec(dir string) bool {
	var stat unix.Statfs_t
	return unix.Statfs(dir, &stat) == nil && stat.Flags&unix.ST_NOEXEC != 0
}
