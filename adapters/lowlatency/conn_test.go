package lowlatency

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

// pairs returns both ends of a TCP and of a Unix connection, each wrapped by Conn.
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

// L9, X2: data larger than the kernel's buffers arrives complete, then the end.
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
			t.Errorf("%s: got %d bytes, %v; want all %d", network, len(got), err, len(want))
		}
		if err := <-sent; err != nil {
			t.Errorf("%s: %v", network, err)
		}
	}
}

// L9, X2: reads and writes that make no progress end at the deadline.
func TestDeadlines(t *testing.T) {
	for network, ends := range pairs(t) {
		soon := time.Now().Add(10 * time.Millisecond)
		if err := ends[0].SetDeadline(soon); err != nil {
			t.Fatal(err)
		}
		if n, err := ends[0].Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: Read = %d, %v; want 0 and a timeout", network, n, err)
		}
		much := make([]byte, 1<<26) // allocate before setting the deadline: it takes long on a busy machine
		if err := ends[0].SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if n, err := ends[0].Write(much); n == 0 || n == len(much) || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: Write = %d, %v; want a part and a timeout", network, n, err)
		}
		var timeout net.Error
		if _, err := ends[0].Write(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%s: got %v, want a net.Error with Timeout()", network, err)
		}
	}
}

// L9: a peer that has closed gives an error and no SIGPIPE; so does a connection that this side has closed.
func TestGone(t *testing.T) {
	for network, ends := range pairs(t) {
		_ = ends[1].Close()
		for err := error(nil); err == nil; {
			_, err = ends[0].Write(make([]byte, 1<<10))
		}
		if n, err := ends[0].Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%s: Read = %d, %v; want 0 and an error", network, n, err)
		}
		_ = ends[0].Close()
		if _, err := ends[0].Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: Read = %v, want net.ErrClosed", network, err)
		}
		if _, err := ends[0].Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: got %v, want net.ErrClosed", network, err)
		}
	}
}

// A connection that is not a socket is returned unchanged, and so is every connection when the measures
// are off.
func TestConnLeftAlone(t *testing.T) {
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	if got := Conn(a); got != a {
		t.Errorf("Conn of a pipe: got %T, want the pipe itself", got)
	}
	SetEnabled(false)
	defer SetEnabled(true)
	for network, ends := range pairs(t) {
		switch ends[0].(type) {
		case *net.TCPConn, *net.UnixConn:
		default:
			t.Errorf("%s: got %T with measures off, want the net package's own connection", network, ends[0])
		}
	}
}

// Every measure is on by default; the switch turns all off, and the link-time list turns off only its own.
func TestUses(t *testing.T) {
	defer func() { SetEnabled(true); without = "" }()
	for _, m := range Measures() {
		if without = ""; !Uses(m) {
			t.Errorf("%s: got off, want on by default", m)
		}
		without = "none," + string(m)
		for _, other := range Measures() {
			if got, want := Uses(other), other != m; got != want {
				t.Errorf("without %s: got Uses(%s) = %t, want %t", m, other, got, want)
			}
		}
		without = ""
		if SetEnabled(false); Uses(m) {
			t.Errorf("%s: got on, want off when the switch is off", m)
		}
		SetEnabled(true)
	}
}
