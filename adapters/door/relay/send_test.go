package relay

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"companion/messages"
)

// L8: while a hung runtime does not read the request, the client can leave and the front door can close. A slow runtime
// gets the whole body.
func TestRuntimeThatDoesNotRead(t *testing.T) {
	l, backEnd := listenUnix(t) // connections wait in its backlog
	defer l.Close()
	target := Target{1, backEnd}
	body := []byte(strings.Repeat("x", 4<<20))
	r := New(Options{})
	defer r.Close()

	begin := time.Now()
	result := r.Do(t.Context(), httptest.NewRecorder(), Call{Target: target, Path: "/v1/x", Body: body, Gone: func() bool { return true }})
	if took := time.Since(begin); !result.Gone || took > 2*time.Second {
		t.Errorf("the client left: got %+v after %v, want Gone within 2s", result, took)
	}
	closing, cancel := context.WithCancelCause(t.Context())
	cancelled := time.AfterFunc(2*look, func() { cancel(errors.New("closing")) })
	defer cancelled.Stop()
	begin = time.Now()
	result = r.Do(closing, httptest.NewRecorder(), Call{Target: target, Path: "/v1/x", Body: body})
	if took := time.Since(begin); result.Gone || result.Reason != messages.ReasonUpstreamFailed || took > 2*time.Second {
		t.Errorf("the door closes: got %+v after %v, want upstream_failed within 2s", result, took)
	}

	read := make(chan string, 1)
	go func() {
		for range 2 { // the two connections from above
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		time.Sleep(3 * look) // the runtime pauses, in real time
		got := readBody(c)
		_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"))
		read <- got
	}()
	result = r.Do(t.Context(), httptest.NewRecorder(), Call{Target: target, Path: "/v1/x", Body: body})
	if result.Reason != messages.ReasonOK {
		t.Fatalf("a slow runtime: got %+v, want ok", result)
	}
	if got := <-read; got != string(body) {
		t.Errorf("a slow runtime: got %d bytes, want %d", len(got), len(body))
	}
}

func readBody(c net.Conn) string {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return ""
	}
	b, _ := io.ReadAll(r.Body)
	return string(b)
}

// T7: decoding the list of models takes many times its size, so a listing from a hostile runtime has a small limit. An
// answer of the model has a much larger one.
func TestLongAnswers(t *testing.T) {
	r := New(script(func(c net.Conn) {
		readRequest(c)
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", fetchBytes+1)
		_, _ = c.Write(make([]byte, fetchBytes+1))
	}))
	defer r.Close()
	if got, result := r.Fetch(t.Context(), Call{Target: there, Path: "/v1/models"}); result.Reason != messages.ReasonUpstreamFailed {
		t.Errorf("got %+v with %d bytes, want upstream_failed", result, len(got))
	}
	if result := r.Do(t.Context(), httptest.NewRecorder(), Call{Target: there, Path: "/v1/x", Body: []byte("{}")}); result.Reason != messages.ReasonOK {
		t.Errorf("got %+v, want ok", result)
	}
	if kept := cap(answerBuffers.Get().(*answerBuffer).bytes); kept > keptAnswer {
		t.Errorf("got a kept buffer of %d bytes, want at most %d", kept, keptAnswer)
	}
}

// stalled is a client that reads nothing: a write to it fails when it is flushed.
type stalled struct {
	*httptest.ResponseRecorder
	err error
}

func (s *stalled) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	return s.ResponseRecorder.Write(p)
}
func (s *stalled) FlushError() error { s.err = os.ErrDeadlineExceeded; return s.err }
func (s *stalled) Flush()            { _ = s.FlushError() }

// L9: the relay gives up a client that was disconnected at once, and not only when the runtime sends more.
func TestCutOffInSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(script(func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, streamHead+"9\r\ndata: 1\n\n\r\n")
			_, _ = c.Read(make([]byte, 1)) // until the other end closes
		}))
		begin := time.Now()
		result := r.Do(t.Context(), &stalled{httptest.NewRecorder(), nil}, Call{Target: there, Path: "/v1/x", Body: []byte("{}"), Stream: true})
		if took := time.Since(begin); !result.Gone || took > time.Second {
			t.Errorf("got %+v after %v, want Gone within 1s", result, took)
		}
		r.Close()
	})
}

// R11: Lost says that the runtime ended the connection of an answer that is not whole, and not that it reported an error, or
// that the relay gave up.
func TestLost(t *testing.T) {
	const jsonHead = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
	for name, c := range map[string]struct {
		answer string
		ends   bool // the runtime ends the connection
		stream bool
		want   bool
	}{
		"ends before the head":   {"", true, false, true},
		"ends in the head":       {"HTTP/1.1 200", true, true, true},
		"ends in the answer":     {jsonHead + "{", true, false, true},
		"ends in a stream":       {streamHead + "9\r\ndata: {}\n\r\n", true, true, true},
		"ends in an error":       {strings.Replace(jsonHead, "200", "500", 1) + "{", true, false, true},
		"an error in a stream":   {streamHead + "15\r\ndata: {\"error\":\"x\"}\n\n\r\n", false, true, false},
		"a longer answer":        {jsonHead + strings.Repeat(" ", 100), false, false, false},
		"a whole refusal":        {"HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\n{}", false, false, false},
		"a refusal, then closes": {"HTTP/1.1 400 Bad\r\nConnection: close\r\n\r\n{}", true, false, false},
		"silence":                {"", false, false, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			options := script(func(conn net.Conn) {
				readRequest(conn)
				_, _ = io.WriteString(conn, c.answer)
				if !c.ends {
					_, _ = conn.Read(make([]byte, 1)) // until the other end closes
				}
			})
			options.AnswerBytes = 50
			r := New(options)
			defer r.Close()
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(errors.New("closing")) })
			if got := r.Do(ctx, httptest.NewRecorder(), Call{Target: there, Path: "/v1/x", Body: []byte("{}"), Stream: c.stream}); got.Lost != c.want {
				t.Errorf("%s: got %+v, want Lost %v", name, got, c.want)
			}
			cancel(nil)
		})
	}
}

// R11: a request that meets a runtime which has ended, by a pooled connection and by a new one, counts as not sent. One of
// which a part was sent counts as sent.
func TestSent(t *testing.T) {
	l, backEnd := listenUnix(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = l.Close()
		readRequest(c)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
		_ = c.Close()
	}()
	r := New(Options{})
	defer r.Close()
	target := Target{1, backEnd}
	attempts := 0
	call := Call{Target: target, Path: "/v1/x", Body: []byte("{}"), Sending: func() { attempts++ }}
	if got := r.Do(t.Context(), httptest.NewRecorder(), call); got.Reason != messages.ReasonOK || !got.Sent || attempts != 1 {
		t.Fatalf("got %+v after %d attempts to send, want ok, Sent and 1", got, attempts)
	}
	<-ended
	if got := r.Do(t.Context(), httptest.NewRecorder(), call); got.Reason != messages.ReasonRuntimeUnavailable || got.Sent || attempts != 2 {
		t.Errorf("the runtime has ended: got %+v after %d attempts to send, want runtime_unavailable, not Sent and 2", got, attempts)
	}

	there, here := net.Pipe()
	go func() { _, _ = there.Read(make([]byte, 1)); _ = there.Close() }()
	partly := New(Options{Dial: func(context.Context, string, string) (net.Conn, error) { return here, nil }})
	defer partly.Close()
	if got := partly.Do(t.Context(), httptest.NewRecorder(), call); !got.Sent {
		t.Errorf("one byte was read: got %+v, want Sent", got)
	}
}

// T16, R11: a connection whose client has left holds nothing of the request while the runtime still works for it.
func TestHungUpConnectionForgets(t *testing.T) {
	l, backEnd := listenUnix(t)
	defer l.Close()
	r := New(Options{})
	defer r.Close()
	target := Target{1, backEnd}
	for name, size := range map[string]int{"small": 100, "large": 2 * copied} {
		var ending *Ending
		body := func() weak.Pointer[byte] {
			b := bytes.Repeat([]byte("secret"), size/6)
			gone := func() bool { return true }
			result := r.Do(t.Context(), httptest.NewRecorder(), Call{Target: target, Path: "/v1/x", Body: b, Gone: gone})
			ending = result.Ending
			return weak.Make(&b[0])
		}()
		if ending == nil {
			t.Fatalf("%s: got no Ending, want one", name)
		}
		runtime.GC()
		if body.Value() != nil {
			t.Errorf("%s: got a reference to the body, want none", name)
		}
		if u := ending.up; u.watch != nil || u.in != nil || u.out != nil {
			t.Errorf("%s: got a connection with buffers, want none", name)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		if !ending.Wait(t.Context()) {
			t.Errorf("%s: the runtime closes the connection: got not noticed, want noticed", name)
		}
	}
}

// L8, R11: Wait says whether the runtime notices that the connection is closed.
func TestNoticed(t *testing.T) {
	for name, test := range map[string]struct {
		runtime func(net.Conn)
		want    bool
	}{
		"closes":            {func(c net.Conn) { _ = c.Close() }, true},
		"sends on":          {func(c net.Conn) { _, _ = io.Copy(c, zeros{}) }, true},
		"neither, for long": {func(net.Conn) {}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				defer there.Close()
				go test.runtime(there)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				paced := &paced{Conn: here}
				if got := (&Ending{&upstream{Conn: paced}}).Wait(ctx); got != test.want {
					t.Errorf("got noticed %v, want %v", got, test.want)
				}
			})
		})
	}
}

// paced lets time pass with each read, which a fake clock does not do by itself.
type paced struct{ net.Conn }

func (p *paced) Read(b []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return p.Conn.Read(b)
}

// listenUnix listens on a Unix socket, whose folder is removed with the test.
func listenUnix(t *testing.T) (net.Listener, messages.BackEnd) {
	t.Helper()
	dir, err := os.MkdirTemp("", "proxy") // socket paths are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	return l, messages.BackEnd{Network: "unix", Address: l.Addr().String()}
}
