package http1

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// L3a: net/http reads every accepted head in the same way, so that no head has two meanings.
func FuzzHead(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a:1\r\n\r\n", "POST /v1/models?a=%20 HTTP/1.1\r\nhost: [::1]:9\r\nContent-Length: 12\r\nX-API-Key:  k \r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\nConnection: x, close\r\n\r\n", "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET //a//b/ HTTP/1.1\r\nHost: x\r\n\r\n", "GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
		"GET /%61 HTTP/1.1\r\nHost: x\r\n\r\n", "GET /a HTTP/1.1\nHost: x\n\n", "GET /a HTTP/1.1\r\nA: b\r\n c\r\nHost: x\r\n\r\n", "GET /a HTTP/1.0\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "GET /a HTTP/1.1\r\nHost: x\r\nOrigin: o\r\nOrigin: p\r\nAuthorization: Bearer x\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		end := headEnd(in, 0)
		if end == 0 {
			return
		}
		var mine fields
		head := mine.read(in[:end])
		if head.Malformed || head.BadHost {
			return
		}
		theirs, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(in[:end])))
		if err != nil {
			t.Fatalf("%q: got accepted, want refused as by net/http: %v", in[:end], err)
		}
		length := head.Length
		if head.Chunked {
			length = -1
		}
		if mine.method != theirs.Method || mine.path != theirs.URL.Path || mine.path != theirs.URL.EscapedPath() || mine.host != theirs.Host || length != theirs.ContentLength ||
			theirs.ProtoMajor != 1 || theirs.ProtoMinor != 1 || theirs.URL.Host != "" || head.closes && !theirs.Close {
			t.Fatalf("%q: got %s %s %s %d, want %s %s %s %d as from net/http", in[:end], mine.method, mine.path, mine.host, length, theirs.Method, theirs.URL, theirs.Host, theirs.ContentLength)
		}
		for _, k := range kept {
			if k.canonical != "Upgrade" && k.canonical != "Http2-Settings" && !slices.Equal(mine.header[k.canonical], theirs.Header[k.canonical]) {
				t.Fatalf("%s: got %q, want %q as from net/http", k.canonical, mine.header[k.canonical], theirs.Header[k.canonical])
			}
		}
	})
}

// pipes is a listener whose connections are pipes inside the test, so that the clock can be a fake.
type pipes struct {
	next chan net.Conn
	done chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.next:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

var limits = Limits{HeadBytes: 16 << 10, HeadTime: 10 * time.Second, BodyTime: 30 * time.Second, IdleTime: 2 * time.Minute, WriteStall: 25 * time.Second}

// serving runs a server over pipes; dial returns a client's end.
func serving(t *testing.T, h http.HandlerFunc) (dial func() net.Conn) {
	return servingWith(t, func(*Server) {}, h)
}

func servingWith(t *testing.T, change func(*Server), h http.HandlerFunc) (dial func() net.Conn) {
	p := &pipes{make(chan net.Conn), make(chan struct{})}
	s := New(context.Background(), p, h, 1024, limits)
	change(s)
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
		<-done
	})
	return func() net.Conn {
		mine, theirs := net.Pipe()
		p.next <- theirs
		return mine
	}
}

const good = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"

// lasts measures how long the server keeps a connection after the client's last action.
func lasts(c net.Conn) time.Duration {
	begin := time.Now()
	_, _ = io.Copy(io.Discard, c)
	return time.Since(begin)
}

// L9: exactly 10 s for a head, 30 s for a body and 2 minutes idle, on a fake clock.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := serving(t, func(w http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			if err != nil {
				w.Header()["Connection"] = []string{"close"}
			}
			w.Header()["Content-Length"] = []string{"0"}
			w.WriteHeader(200)
		})
		for name, c := range map[string]struct {
			text string
			want time.Duration
		}{
			"says nothing":      {"", 10 * time.Second},
			"half a head":       {good[:9], 10 * time.Second},
			"idle after one":    {good, 2 * time.Minute},
			"half a second one": {good + good[:9], 10 * time.Second},
			"half a body":       {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234", 30 * time.Second},
			"half a chunk":      {"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n1234", 30 * time.Second},
		} {
			conn := dial()
			go func() { _, _ = io.WriteString(conn, c.text) }()
			if got := lasts(conn); got != c.want {
				t.Errorf("%s: got %v, want %v", name, got, c.want)
			}
			conn.Close()
		}
		// Sending one byte per second does not extend the head's deadline.
		conn := dial()
		var loris sync.WaitGroup
		loris.Go(func() {
			for i := range len(good) {
				if _, err := conn.Write([]byte(good[i : i+1])); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		if got := lasts(conn); got != 10*time.Second {
			t.Errorf("slow loris: got %v, want 10s", got)
		}
		conn.Close()
		loris.Wait()
	})
}

// L9: a client that reads nothing is disconnected after WriteStall.
func TestWriteStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := make(chan time.Duration, 1)
		dial := serving(t, func(w http.ResponseWriter, r *http.Request) {
			begin := time.Now()
			for {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					failed <- time.Since(begin)
					return
				}
			}
		})
		conn := dial()
		_, _ = io.WriteString(conn, good)
		if took := <-failed; took > 25*time.Second {
			t.Errorf("got cut off after %v, want within 25s", took)
		}
		conn.Close()
	})
}

// An answer whose length differs from the declared one ends its connection.
func TestAnswerLengths(t *testing.T) {
	big := strings.Repeat("x", 3*outBytes)
	for name, c := range map[string]struct {
		length string
		writes []string
		body   string
		reused bool
	}{
		"right":         {"5", []string{"he", "llo"}, "hello", true},
		"none declared": {"", []string{"he", "llo"}, "hello", true},
		"large":         {"24576", []string{big}, big, true},
		"large chunks":  {"", []string{big, "x", big}, big + "x" + big, true},
		"nothing":       {"", nil, "", true},
		"too short":     {"5", []string{"he"}, "he", false},
		"too long":      {"2", []string{"he", "llo"}, "he", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			dial := serving(t, func(w http.ResponseWriter, r *http.Request) {
				if c.length != "" {
					w.Header()["Content-Length"] = []string{c.length}
				}
				for _, s := range c.writes {
					_, _ = io.WriteString(w, s)
				}
			})
			conn := dial()
			in := bufio.NewReader(conn)
			for round := range 2 {
				if _, err := io.WriteString(conn, good); err != nil {
					if c.reused || round == 0 {
						t.Errorf("%s: request %d: got %v, want it sent", name, round, err)
					}
					break
				}
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Errorf("%s: got %v, want an answer", name, err)
					break
				}
				got, _ := io.ReadAll(resp.Body)
				if string(got) != c.body {
					t.Errorf("%s: got %d bytes, want %d", name, len(got), len(c.body))
				}
				if round == 1 && !c.reused {
					t.Errorf("%s: got a second answer on the connection, want it closed", name)
				}
			}
			conn.Close()
		})
	}
}

// A panic of a handler closes only its own connection. Its value is reported on the stack of the panic, except
// http.ErrAbortHandler, which is not an error.
func TestPanicIsContained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reported := make(chan string, 9)
		dial := servingWith(t, func(s *Server) {
			s.Panicked = func(value any) { reported <- fmt.Sprintf("%v at %s", value, debug.Stack()) }
		}, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/bad":
				panic("x")
			case "/abort":
				panic(http.ErrAbortHandler)
			}
		})
		bad, abort, fine := dial(), dial(), dial()
		for c, path := range map[net.Conn]string{bad: "/bad", abort: "/abort"} {
			_, _ = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
			if rest, err := io.ReadAll(c); len(rest) > 0 || err != nil {
				t.Errorf("%s: got %q, %v, want a closed connection", path, rest, err)
			}
			c.Close()
		}
		_, _ = io.WriteString(fine, good)
		if resp, err := http.ReadResponse(bufio.NewReader(fine), nil); err != nil || resp.StatusCode != 200 {
			t.Errorf("another connection: got %v, %v, want status 200", resp, err)
		}
		fine.Close()
		synctest.Wait()
		if len(reported) != 1 {
			t.Fatalf("got %d reports, want 1", len(reported))
		}
		if got := <-reported; !strings.HasPrefix(got, "x at ") || !strings.Contains(got, "TestPanicIsContained") {
			t.Errorf("got the report %s, want x on the stack of the handler", got)
		}
	})
}
