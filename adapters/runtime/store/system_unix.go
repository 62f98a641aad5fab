//go:build unix

package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"companion/adapters/runtime/fileid"
	"companion/messages"
)

// openLinked opens a file of the links folder, as openPrivate does. It allows further hard links, because the user has the
// file under another name, and readers, because the user decides who may read that one. It refuses a file that another user
// owns or may write.
func openLinked(path string) (*os.File, messages.FileIdentity, error) {
	return openChecked(path, os.O_RDONLY, linkedIdentity)
}

func linkedIdentity(f *os.File) (messages.FileIdentity, error) {
	if info, err := f.Stat(); err == nil && info.Mode().Perm()&0o022 != 0 {
		return messages.FileIdentity{}, notPrivate(fmt.Sprintf("mode %04o", info.Mode().Perm()), "no write access for others")
	}
	return ownIdentity(f)
}

// openPrivate opens a file of the store and returns its identity. It refuses a symbolic link, a file with several hard links,
// another owner, and a mode that gives access to other users (T17). If there is no file, it returns ErrNotHere.
func openPrivate(path string, flag int) (*os.File, messages.FileIdentity, error) {
	return openChecked(path, flag, privateIdentity)
}

func openChecked(path string, flag int, check func(*os.File) (messages.FileIdentity, error)) (*os.File, messages.FileIdentity, error) {
	var none messages.FileIdentity
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, none, ErrNotHere
	case errors.Is(err, unix.ELOOP):
		return nil, none, notPrivate("a symbolic link", "a regular file")
	case err != nil:
		return nil, none, &Error{messages.ReasonInvalidModelPath, "opening a stored file", bare(err)}
	}
	id, err := check(f)
	if err != nil {
		_ = f.Close()
		return nil, none, err
	}
	return f, id, nil
}

// createPrivate creates a file that must not exist yet.
func createPrivate(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

func notPrivate(found, want string) error {
	return &Error{Reason: messages.ReasonInvalidModelPath, what: fmt.Sprintf("a stored file is not private: found %s, want %s", found, want)}
}

func privateIdentity(f *os.File) (messages.FileIdentity, error) {
	id, err := ownIdentity(f)
	if err != nil {
		return id, err
	}
	info, err := f.Stat()
	if err != nil {
		return messages.FileIdentity{}, &Error{messages.ReasonInvalidModelPath, "looking at a stored file", bare(err)}
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Nlink != 1 {
		return messages.FileIdentity{}, notPrivate(fmt.Sprintf("%d hard links", stat.Nlink), "exactly one")
	}
	if info.Mode().Perm()&0o077 != 0 {
		return messages.FileIdentity{}, notPrivate(fmt.Sprintf("mode %04o", info.Mode().Perm()), "no access for others")
	}
	return id, nil
}

// ownIdentity returns the identity of a regular file of this user.
func ownIdentity(f *os.File) (messages.FileIdentity, error) {
	info, err := f.Stat()
	if err != nil {
		return messages.FileIdentity{}, &Error{messages.ReasonInvalidModelPath, "looking at a stored file", bare(err)}
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch uid := os.Geteuid(); {
	case !ok || !info.Mode().IsRegular():
		return messages.FileIdentity{}, notPrivate("something else", "a regular file")
	case int(stat.Uid) != uid:
		return messages.FileIdentity{}, notPrivate(fmt.Sprintf("owner %d", stat.Uid), fmt.Sprintf("owner %d", uid))
	}
	return fileid.Of(f)
}

// space returns no_space if fewer than need bytes are free for this user.
func (s *Store) space(need int64) error { return space(s.dir, need) }

func space(dir string, need int64) error {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return storing(err)
	}
	if free := uint64(stat.Bavail) * uint64(stat.Bsize); need > 0 && free < uint64(need) {
		return noSpace(need, free)
	}
	return nil
}

// Unpinned describes the runtime binary that the configuration allows without a digest (M10): an
// absolute path to a regular file of the user or root that no other user can write. Errors: *Error with
// invalid_binary_path or binary_untrusted.
func Unpinned(path string) (messages.VerifiedRuntime, error) {
	invalid := func(what string) (messages.VerifiedRuntime, error) {
		return messages.VerifiedRuntime{}, &Error{Reason: messages.ReasonInvalidBinaryPath, what: "the unpinned binary " + what}
	}
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return invalid("has no plain absolute path")
	}
	info, err := os.Lstat(path)
	if err != nil {
		return invalid("cannot be read")
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || !info.Mode().IsRegular():
		return invalid("is not a regular file")
	case info.Mode().Perm()&0o111 == 0:
		return invalid("is no program")
	case stat.Uid != 0 && int(stat.Uid) != os.Geteuid(), info.Mode().Perm()&0o022 != 0:
		return messages.VerifiedRuntime{}, &Error{Reason: messages.ReasonBinaryUntrusted, what: "another user could replace the unpinned binary"}
	}
	return messages.VerifiedRuntime{Name: "unpinned", Dir: filepath.Dir(path), Executable: filepath.Base(path)}, nil
}

// linkable reports whether a file can stay the user's own and be a model of the store too: the user owns it.
func linkable(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
