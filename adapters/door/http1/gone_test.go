package http1

import (
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// listening runs a server over TCP and applies tune to each accepted connection; dial returns a client's end.
func listening(t *testing.T, limits Limits, tune func(*net.TCPConn), h http.HandlerFunc) (dial func() *net.TCPConn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(context.Background(), tuned{l, tune}, h, 1024, limits)
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
		<-done
	})
	return func() *net.TCPConn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.(*net.TCPConn)
	}
}

type tuned struct {
	net.Listener
	tune func(*net.TCPConn)
}

func (t tuned) Accept() (net.Conn, error) {
	c, err := t.Listener.Accept()
	if err == nil && t.tune != nil {
		t.tune(c.(*net.TCPConn))
	}
	return c, err
}

// L8: Gone notices every way in which a client leaves, also after data that it sent ahead. It returns false for a
// client that waits, and allocates nothing.
func TestGone(t *testing.T) {
	ahead := strings.Repeat(good, 1000) // more than any buffer of ours
	for name, c := range map[string]struct {
		sent  string
		leave func(*net.TCPConn)
	}{
		"stays":                 {"", nil},
		"stays, sends ahead":    {ahead, nil},
		"closes":                {"", func(c *net.TCPConn) { c.Close() }},
		"closes, sent ahead":    {ahead, func(c *net.TCPConn) { c.Close() }},
		"half closes":           {good, func(c *net.TCPConn) { _ = c.CloseWrite() }},
		"half closes, ahead":    {ahead, func(c *net.TCPConn) { _ = c.CloseWrite() }},
		"resets":                {"", func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }},
		"resets, sent a little": {good[:9], func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }},
	} {
		if runtime.GOOS != "linux" && c.leave != nil && len(c.sent) > inBytes {
			continue // only Linux asks the kernel
		}
		t.Run(name, func(t *testing.T) {
			began, acted, told := make(chan struct{}), make(chan struct{}), make(chan bool)
			dial := listening(t, limits, nil, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/first" {
					return
				}
				conn := From(r.Context())
				if conn.Gone() {
					t.Error("before the client left: got gone, want not")
				}
				began <- struct{}{}
				<-acted
				if c.leave == nil {
					if n := testing.AllocsPerRun(100, func() { conn.Gone() }); n > 0 && runtime.GOOS == "linux" {
						t.Errorf("got %v allocations, want 0", n)
					}
				} else {
					for end := time.Now().Add(2 * time.Second); !conn.Gone() && time.Now().Before(end); {
						time.Sleep(time.Millisecond) // the kernel reports the end after some time
					}
				}
				if gone := conn.Gone(); gone != (r.Context().Err() != nil) {
					t.Errorf("got gone %v and context error %v, want both or neither", gone, r.Context().Err())
				}
				told <- conn.Gone()
			})
			client := dial()
			_, _ = io.WriteString(client, strings.Replace(good, "/a", "/first", 1))
			<-began
			if _, err := io.WriteString(client, c.sent); err != nil {
				t.Fatal(err)
			}
			if c.leave != nil {
				c.leave(client)
			}
			close(acted)
			if gone := <-told; gone != (c.leave != nil) {
				t.Errorf("got gone %v, want %v", gone, c.leave != nil)
			}
		})
	}
}
