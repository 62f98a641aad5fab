//go:build windows

package privatefs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// EnsureDir makes path. On Windows the profile folder's own access list keeps other users out;
// tested under Wine, untested on real machines.
func EnsureDir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("making the private folder %s: %w", path, err)
	}
	return CheckDir(path)
}

// CheckDir refuses what is not a plain directory.
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

// CheckFile refuses what is not a regular file.
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

// WriteFile replaces path by data through a temporary file beside it, whose name begins as that of
// the other systems does, so that the same sweep finds what a crash left.
func WriteFile(path string, data []byte) error {
	if err := CheckDir(filepath.Dir(path)); err != nil {
		return err
	}
	return Replace(path, data)
}

// Replace is WriteFile in a folder of the user's choice, which may be open to others.
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
