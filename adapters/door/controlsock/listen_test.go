//go:build unix

package controlsock

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"companion/adapters/privatefs"
)

func listen(t *testing.T, path string) error {
	t.Helper()
	ln, err := Listen(path, func(error) {})
	if err == nil {
		t.Cleanup(func() { ln.Close() })
	}
	return err
}

// X2, T3: the socket has mode 0600 in a folder of mode 0700, with any umask.
func TestListenMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "control.sock")
	if err := listen(t, path); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{path: 0o600 | os.ModeSocket, filepath.Dir(path): 0o700 | os.ModeDir} {
		info, err := os.Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s: got mode %v, want %v", filepath.Base(name), info.Mode(), want)
		}
	}
}

// T17, X2: a folder that other users can reach, or a path that holds another kind of file, is refused and unchanged.
func TestListenRefuses(t *testing.T) {
	var notPrivate *privatefs.Error
	t.Run("open folder", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "run")
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o755)); err != nil {
			t.Fatal(err)
		}
		if err := listen(t, filepath.Join(dir, "c.sock")); !errors.As(err, &notPrivate) {
			t.Errorf("got %v, want a refusal because the folder is not private", err)
		}
	})
	t.Run("linked folder", func(t *testing.T) {
		dir := t.TempDir()
		if err := errors.Join(os.Mkdir(dir+"/real", 0o700), os.Symlink(dir+"/real", dir+"/run")); err != nil {
			t.Fatal(err)
		}
		if err := listen(t, dir+"/run/c.sock"); !errors.As(err, &notPrivate) {
			t.Errorf("got %v, want a refusal because the folder is a link", err)
		}
	})
	for name, plant := range map[string]func(path string) error{
		"a file": func(path string) error { return os.WriteFile(path, []byte("mine"), 0o600) },
		"a link": func(path string) error { return os.Symlink("/dev/null", path) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "run")
			path := filepath.Join(dir, "c.sock")
			if err := errors.Join(os.Mkdir(dir, 0o700), plant(path)); err != nil {
				t.Fatal(err)
			}
			if err := listen(t, path); !errors.As(err, &notPrivate) {
				t.Errorf("got %v, want a refusal", err)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("got %v, want the file unchanged", err)
			}
		})
	}
	t.Run("long path", func(t *testing.T) {
		err := listen(t, filepath.Join(t.TempDir(), strings.Repeat("x", 100), "c.sock"))
		if err == nil || !strings.Contains(err.Error(), "at most 103") {
			t.Errorf("got %v, want the limit of 103 bytes", err)
		}
	})
}

// X1, X2: a socket that a dead daemon left is replaced; one with a listening daemon is not.
func TestListenStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "control.sock")
	if err := privatefs.EnsureDir(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if err := listen(t, path); err != nil {
		t.Fatalf("a stale socket: got %v, want a listener", err)
	}
	if err := listen(t, path); !errors.Is(err, ErrInUse) {
		t.Errorf("a socket in use: got %v, want ErrInUse", err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("connecting to the first daemon: got %v, want nil", err)
	}
	conn.Close()
}

// X2, T3: a connection of another user, as the kernel reports it, is closed without an answer. The test changes the
// expected user instead of its own, so that it needs no second account.
func TestOtherUserIsClosed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	inner, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 1)
	ln := &sameUser{Listener: inner, uid: ownUID() + 1, refused: func(err error) { refused <- err }}
	done := make(chan error, 1)
	go func() { _, err := ln.Accept(); done <- err }()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); len(got) != 0 || err != nil {
		t.Errorf("another user: got the answer %q, %v, want none", got, err)
	}
	if err := <-refused; !strings.Contains(err.Error(), "belongs to user") {
		t.Errorf("got the refusal %v, want one that names the user", err)
	}
	inner.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: got %v, want %v and no connection of the other user", err, net.ErrClosed)
	}
}

func TestNotRunning(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/dead.sock"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	for _, path := range []string{dir + "/none.sock", dir + "/none/c.sock", dir + "/dead.sock", dir + "/file/c.sock"} {
		if _, err := Dial(path).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
			t.Errorf("Status at %s: got %v, want ErrNotRunning", path, err)
		}
	}
}
