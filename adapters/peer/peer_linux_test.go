package peer

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// R3: Check accepts only the process that listens. It refuses every other one, and a connection without credentials.
func TestCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := Check(c, os.Getpid()); err != nil {
		t.Errorf("the listening process: got %v, want nil", err)
	}
	for name, pid := range map[string]int{"the parent": os.Getppid(), "init": 1, "no process": 0} {
		if err := Check(c, pid); !errors.Is(err, ErrOtherProcess) {
			t.Errorf("%s: got %v, want %v", name, err, ErrOtherProcess)
		}
	}
	pipe, other := net.Pipe()
	defer pipe.Close()
	defer other.Close()
	if err := Check(pipe, os.Getpid()); err == nil {
		t.Error("a pipe inside the process: got nil, want an error")
	}
	_ = c.Close()
	if err := Check(c, os.Getpid()); err == nil {
		t.Error("a closed connection: got nil, want an error")
	}
}

// R3: a socket of another user is refused, whatever process listens.
func TestCheckOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can listen as another user")
	}
	dir, err := os.MkdirTemp("", "peer")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	done := make(chan error, 1)
	go func() { // listens as another user, on a thread of its own that ends with it
		done <- asUser(65534, func() error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
				return err
			}
			return unix.Listen(fd, 1)
		})
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := Check(c, os.Getpid()); !errors.Is(err, ErrOtherProcess) {
		t.Errorf("got %v, want %v", err, ErrOtherProcess)
	}
}

// asUser runs f with another effective user, on a thread that is not used again.
func asUser(uid int, f func() error) error {
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
		return errno
	}
	return f()
}
