//go:build windows

package privatefs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// EnsureDir creates path. On Windows the access list of the profile folder keeps other users out. Tested
// under Wine, not on real machines.
func EnsureDir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("making the private folder %s: %w", path, err)
	}
	return CheckDir(path)
}

// CheckDir returns an *Error unless path is a directory.
func CheckDir(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("checking the private folder: %w", err)
	}
	if !info.IsDir() {
		return &Error{Path: path, Found: info.Mode().Type().String(), Want: "a directory"}
	}
	return nil
}

// CheckFile returns an *Error unless path is a regular file.
func CheckFile(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("checking the private file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return &Error{Path: path, Found: info.Mode().Type().String(), Want: "a regular file"}
	}
	return nil
}

// ReadRegular returns the content of a regular file.
func ReadRegular(path string) ([]byte, error) {
	if err := CheckFile(path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// WriteFile replaces the content of path through a temporary file in the same folder. Its name has the same
// prefix as on the other systems, so that the same clean-up finds it after a crash.
func WriteFile(path string, data []byte) error {
	if err := CheckDir(filepath.Dir(path)); err != nil {
		return err
	}
	return Replace(path, data)
}

// Replace is WriteFile for a folder that the user chooses, which other users may be able to enter.
func Replace(path string, data []byte) error {
	dir, name := filepath.Split(path)
	if err := CheckFile(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	temporary, err := os.CreateTemp(dir, "."+name+"-*")
	if err != nil {
		return fmt.Errorf("writing a private file: %w", err)
	}
	_, err = temporary.Write(data)
	if err = errors.Join(err, temporary.Sync(), temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing a private file: %w", errors.Join(err, os.Remove(temporary.Name())))
	}
	return nil
}

// SyncDir does nothing: Windows has no directory sync.
func SyncDir(string) error { return nil }
