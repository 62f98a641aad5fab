//go:build unix

package privatefs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// T17: a folder or file that another user could access, owns or has replaced by a link is refused, and the error
// says what would be right.
func TestCheckDirRefuses(t *testing.T) {
	base := t.TempDir()
	open := filepath.Join(base, "open")
	closed := filepath.Join(base, "closed")
	link := filepath.Join(base, "link")
	file := filepath.Join(base, "file")
	foreign := filepath.Join(base, "foreign")
	must(t, os.Mkdir(open, 0o755), os.Mkdir(closed, 0o700), os.Symlink(closed, link), os.WriteFile(file, nil, 0o600))
	tests := map[string]struct{ path, found string }{
		"mode":    {open, "mode 0755"},
		"symlink": {link, "a symbolic link"},
		"file":    {file, "a regular file"},
	}
	if os.Geteuid() == 0 {
		must(t, os.Mkdir(foreign, 0o700), os.Chown(foreign, 12345, 12345))
		tests["owner"] = struct{ path, found string }{foreign, "owner 12345"}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var refused *Error
			if err := CheckDir(test.path); !errors.As(err, &refused) || refused.Found != test.found || refused.Want == "" {
				t.Fatalf("CheckDir = %v, want a refusal that found %q", err, test.found)
			}
		})
	}
	must(t, CheckDir(closed))
	must(t, EnsureDir(filepath.Join(base, "new", "deep")))
}

// T17, L2: a file is replaced atomically, with mode 0600, and never through a link.
func TestWriteFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "private")
	must(t, EnsureDir(dir))
	path := filepath.Join(dir, "file")
	must(t, WriteFile(path, []byte("one")), WriteFile(path, []byte("two")), CheckFile(path))
	if data, err := os.ReadFile(path); err != nil || string(data) != "two" {
		t.Fatalf("read %q, %v, want two", data, err)
	}
	target := filepath.Join(dir, "target")
	must(t, os.Chmod(dir, 0o755))
	if err := WriteFile(path, []byte("three")); err == nil {
		t.Fatal("written into a folder that others may enter")
	}
	must(t, Replace(path, []byte("three")), CheckFile(path), os.Chmod(dir, 0o700))
	must(t, os.WriteFile(target, []byte("keep"), 0o600), os.Remove(path), os.Symlink(target, path))
	if err := WriteFile(path, []byte("evil")); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Fatalf("WriteFile through a link: got %v, want an error that says symbolic link", err)
	}
	must(t, os.Remove(path), os.Link(target, path))
	if err := CheckFile(path); err == nil || !strings.Contains(err.Error(), "2 hard links") {
		t.Fatalf("CheckFile of a hard link: got %v, want an error that says 2 hard links", err)
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// T17: what has the name of our file and is none is neither followed nor waited for.
func TestReadRegular(t *testing.T) {
	dir := t.TempDir()
	file, link, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	must(t, os.WriteFile(file, []byte("x"), 0o600), os.Symlink(file, link), syscall.Mkfifo(pipe, 0o600))
	if got, err := ReadRegular(file); err != nil || string(got) != "x" {
		t.Errorf("a file: got %q, %v, want x", got, err)
	}
	for path, found := range map[string]string{link: "a symbolic link", pipe: "a special file", dir: "a directory"} {
		var refused *Error
		if _, err := ReadRegular(path); !errors.As(err, &refused) || refused.Found != found {
			t.Errorf("%s: got %v, want a refusal that found %q", path, err, found)
		}
	}
	if _, err := ReadRegular(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: got %v, want %v", err, fs.ErrNotExist)
	}
}

// M15: exactly the unfinished versions of the named files are removed.
func TestRemoveUnfinished(t *testing.T) {
	dir := t.TempDir()
	for name, stays := range map[string]bool{
		"a.json": true, ".a.json": true, ".a.json12": false, ".a.json0": false, ".a.json1x": true, ".b.json12": true, "a.json12": true,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if _, err := os.Lstat(filepath.Join(dir, name)); (err == nil) != stays {
				t.Errorf("%s: got %v, want it kept: %t", name, err, stays)
			}
		}()
	}
	RemoveUnfinished(dir, "a.json", "c.json")
}
