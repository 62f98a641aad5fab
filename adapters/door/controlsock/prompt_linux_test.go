package controlsock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// accepted returns both ends of a connection to a listening control socket.
func accepted(t *testing.T) (server, client net.Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "c.sock")
	ln, err := Listen(path, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	if client, err = net.Dial("unix", path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server, client
}

// X2: an answer larger than the kernel's buffer arrives whole, whenever its reader comes.
func TestWholeAnswer(t *testing.T) {
	server, client := accepted(t)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	sent := make(chan error, 1)
	go func() {
		n, err := server.Write(want)
		if err == nil && n != len(want) {
			err = io.ErrShortWrite
		}
		sent <- errors.Join(err, server.Close())
	}()
	got, err := io.ReadAll(client)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes came, %v", len(got), len(want), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// X2: a watcher that reads nothing is given up at the deadline, and one that left is an error, not the
// end of the daemon.
func TestNobodyReads(t *testing.T) {
	server, client := accepted(t)
	if err := server.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := server.Write(make([]byte, 1<<22))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == 1<<22 {
		t.Errorf("%d bytes, %v", n, err)
	}
	_ = server.SetWriteDeadline(time.Time{})
	_ = client.Close()
	if _, err := server.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("to nobody: %v", err)
	}
}
