package prompt

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pairs are both ends of a connection of each kind that the program has, each end prompt.
func pairs(t *testing.T) map[string][2]net.Conn {
	t.Helper()
	made := map[string][2]net.Conn{}
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": t.TempDir() + "/s"} {
		ln, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		client, err := net.Dial(network, ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _, _ = ln.Close(), client.Close(), server.Close() })
		made[network] = [2]net.Conn{Conn(server), Conn(client)}
	}
	return made
}

// L9, X2: what is larger than the kernel's buffers arrives whole, then the end.
func TestWhole(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	for network, ends := range pairs(t) {
		sent := make(chan error, 1)
		go func() {
			n, err := ends[0].Write(want)
			if err == nil && n != len(want) {
				err = io.ErrShortWrite
			}
			sent <- errors.Join(err, ends[0].Close())
		}()
		if got, err := io.ReadAll(ends[1]); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d of %d bytes came, %v", network, len(got), len(want), err)
		}
		if err := <-sent; err != nil {
			t.Errorf("%s: %v", network, err)
		}
	}
}

// L9, X2: a reader that stalls and a writer that says nothing are given up at their deadline.
func TestDeadlines(t *testing.T) {
	for network, ends := range pairs(t) {
		soon := time.Now().Add(10 * time.Millisecond)
		if err := ends[0].SetDeadline(soon); err != nil {
			t.Fatal(err)
		}
		if n, err := ends[0].Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: read %d, %v", network, n, err)
		}
		much := make([]byte, 1<<26) // before the deadline is set: it takes longer on a busy machine
		if err := ends[0].SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if n, err := ends[0].Write(much); n == 0 || n == len(much) || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: wrote %d, %v", network, n, err)
		}
		var timeout net.Error
		if _, err := ends[0].Write(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%s: %v is no time-out", network, err)
		}
	}
}

// L9: an other end that left is an error, and no signal; so is this end when it is closed.
func TestGone(t *testing.T) {
	for network, ends := range pairs(t) {
		_ = ends[1].Close()
		for err := error(nil); err == nil; {
			_, err = ends[0].Write(make([]byte, 1<<10))
		}
		if n, err := ends[0].Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%s: read %d, %v", network, n, err)
		}
		_ = ends[0].Close()
		if _, err := ends[0].Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v", network, err)
		}
		if _, err := ends[0].Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v", network, err)
		}
	}
}

// A connection that is no socket stays itself.
func TestNoSocket(t *testing.T) {
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	if Conn(a) != a {
		t.Error("it was changed")
	}
}
