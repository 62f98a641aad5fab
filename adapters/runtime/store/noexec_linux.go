package store

import "golang.org/x/sys/unix"

// noexec reports whether the file system of dir is mounted noexec. After an error it returns false: the start of the program
// then fails.
func noexec(dir string) bool {
	var stat unix.Statfs_t
	return unix.Statfs(dir, &stat) == nil && stat.Flags&unix.ST_NOEXEC != 0
}
