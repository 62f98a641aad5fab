//go:build unix

package privatefs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
)

// EnsureDir creates path and its parents with mode 0700. If path exists, it is checked as by CheckDir.
func EnsureDir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("making the private folder %s: %w", path, err)
	}
	return CheckDir(path)
}

// CheckDir returns an *Error unless path is a directory, not a symbolic link, that the user of this process
// owns and no other user may enter.
func CheckDir(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("checking the private folder: %w", err)
	}
	return check(path, info, fs.ModeDir, 0o700)
}

// CheckFile returns an *Error unless path is a regular file with one link that the user of this process owns
// and no other user may read or write.
func CheckFile(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("checking the private file: %w", err)
	}
	if err := check(path, info, 0, 0o600); err != nil {
		return err
	}
	if stat := info.Sys().(*syscall.Stat_t); stat.Nlink != 1 {
		return &Error{Path: path, Found: fmt.Sprintf("%d hard links", stat.Nlink), Want: "exactly one"}
	}
	return nil
}

func check(path string, info fs.FileInfo, kind fs.FileMode, mode fs.FileMode) error {
	if found := info.Mode().Type(); found != kind {
		want := "a regular file"
		if kind == fs.ModeDir {
			want = "a directory"
		}
		return &Error{Path: path, Found: describe(found), Want: want}
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return &Error{Path: path, Found: "no owner", Want: "an owner that the system tells"}
	}
	if uid := os.Geteuid(); int(stat.Uid) != uid {
		return &Error{Path: path, Found: fmt.Sprintf("owner %d", stat.Uid), Want: fmt.Sprintf("owner %d", uid)}
	}
	if extra := info.Mode().Perm() &^ 0o700; extra != 0 {
		return &Error{
			Path:  path,
			Found: fmt.Sprintf("mode %04o", info.Mode().Perm()),
			Want:  fmt.Sprintf("mode %04o (chmod %o %s)", mode, mode, path),
		}
	}
	return nil
}

func describe(kind fs.FileMode) string {
	switch {
	case kind&fs.ModeSymlink != 0:
		return "a symbolic link"
	case kind&fs.ModeDir != 0:
		return "a directory"
	case kind == 0:
		return "a regular file"
	default:
		return "a special file"
	}
}

// ReadRegular returns the content of a regular file. It neither follows a symbolic link nor waits for the writer of a named
// pipe: both are an *Error. It does not look at owner and mode; CheckFile does.
func ReadRegular(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, &Error{Path: path, Found: describe(fs.ModeSymlink), Want: "a regular file"}
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &Error{Path: path, Found: describe(info.Mode().Type()), Want: "a regular file"}
	}
	return io.ReadAll(file)
}

// WriteFile atomically replaces the content of path, with mode 0600, and syncs the directory: after a crash
// the file has the old content or the new one. The directory must be private.
func WriteFile(path string, data []byte) error {
	if err := CheckDir(filepath.Dir(path)); err != nil {
		return err
	}
	return Replace(path, data)
}

// Replace is WriteFile for a folder that the user chooses, which other users may be able to enter.
func Replace(path string, data []byte) error {
	dir := filepath.Dir(path)
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return &Error{Path: path, Found: describe(info.Mode().Type()), Want: "a regular file"}
	}
	if err := renameio.WriteFile(path, data, 0o600, renameio.WithTempDir(dir), renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("writing a private file: %w", err)
	}
	return SyncDir(dir)
}

// SyncDir makes the entries of dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("opening a folder to sync it: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
