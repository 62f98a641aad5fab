package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"companion/messages"
)

const dribble = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"

// L8, T7: a runtime that sends a little at a time, or that does not read, holds neither the slot of a client that left
// nor a front door that closes.
func TestHostileRuntimeHoldsNobody(t *testing.T) {
	drip := func(before, drop string) func(net.Conn) {
		return func(c net.Conn) {
			readRequest(c)
			_, err := io.WriteString(c, before)
			for err == nil {
				time.Sleep(look / 5)
				_, err = io.WriteString(c, drop)
			}
		}
	}
	for name, c := range map[string]struct {
		runtime func(net.Conn)
		stream  bool
	}{
		"dribbles its answer":     {drip(dribble, " "), false},
		"dribbles its head":       {drip("HTTP/1.1 200 OK\r\nA: ", "b"), false},
		"dribbles an event":       {drip(streamHead, "1\r\nx\r\n"), true},
		"dribbles its error":      {drip(strings.Replace(dribble, "200", "500", 1), " "), false},
		"does not read":           {func(c net.Conn) { _, _ = c.Write([]byte("x")) }, false},
		"does not read, a stream": {func(c net.Conn) { _, _ = c.Write([]byte("x")) }, true},
	} {
		for _, closes := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan struct{})
				r := New(script(func(conn net.Conn) { c.runtime(conn); close(ended) }))
				defer r.Close()
				begin := time.Now()
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("the test gave up"))
				defer cancel()
				call := Call{Target: there, Path: "/v1/x", Body: []byte("{}"), Stream: c.stream, Gone: func() bool { return !closes && time.Since(begin) > time.Second }}
				if closes {
					closing, end := context.WithCancelCause(ctx)
					time.AfterFunc(time.Second, func() { end(errors.New("closing")) })
					ctx = closing
				}
				result := r.Do(ctx, httptest.NewRecorder(), call)
				<-ended
				if took := time.Since(begin); took > time.Second+2*look || result.Gone == closes || result.Reason != messages.ReasonUpstreamFailed {
					t.Errorf("%s, the door closes: %v: got %+v after %v, want upstream_failed within a look", name, closes, result, took)
				}
			})
		}
	}
}

// L7: the body of an answer that has none by its status is not waited for.
func TestNoContent(t *testing.T) {
	for _, head := range []string{"HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"} {
		synctest.Test(t, func(t *testing.T) {
			r := New(script(func(c net.Conn) {
				readRequest(c)
				_, _ = io.WriteString(c, head)
				_, _ = c.Read(make([]byte, 1)) // until the other end closes
			}))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			begin := time.Now()
			result := r.Do(ctx, httptest.NewRecorder(), Call{Target: there, Path: "/v1/x", Body: []byte("{}")})
			if took := time.Since(begin); took > 0 || result.Reason != messages.ReasonUpstreamFailed {
				t.Errorf("got %+v after %v, want upstream_failed at once", result, took)
			}
			r.Close()
		})
	}
}

// L8: a listing whose client left while a pooled connection was in use is not sent again.
func TestGoneIsNotAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dials := 0
		r := New(script(func(c net.Conn) {
			dials++
			readRequest(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
			readRequest(c)
			_, _ = c.Read(make([]byte, 1)) // until the other end closes
		}))
		for _, gone := range []bool{false, true} {
			_, result := r.Fetch(t.Context(), Call{Target: there, Path: "/v1/models", Gone: func() bool { return gone }})
			if result.Gone != gone {
				t.Errorf("got %+v, want Gone %v", result, gone)
			}
		}
		synctest.Wait()
		if dials != 1 {
			t.Errorf("got %d connections, want 1", dials)
		}
		r.Close()
	})
}

// L8: an event longer than the buffer passes unchanged, wherever it is split and whatever it contains, and the
// following events are parsed as usual.
func TestLongEvents(t *testing.T) {
	const done = "data: [DONE]\n\n"
	fill := func(size int) string { return "data: " + strings.Repeat("x", size-len("data: ")) }
	for name, c := range map[string]struct {
		sent   string
		passed string // expected output; empty: all of it
		reason messages.Reason
	}{
		"cut in its end":           {fill(streamBytes-1) + "\n\n" + done, "", messages.ReasonOK},
		"cut before its end":       {fill(streamBytes) + "\n\n" + done, "", messages.ReasonOK},
		"cut at a line":            {fill(streamBytes-1) + "\ndata: y\n\n" + done, "", messages.ReasonOK},
		"goes on like an error":    {fill(streamBytes) + `data: {"error"` + "\n\n" + done, "", messages.ReasonOK},
		"goes on like the end":     {fill(streamBytes) + done, fill(streamBytes) + done + "error", messages.ReasonUpstreamFailed},
		"an error after its end":   {fill(streamBytes-1) + "\n\n" + `data: {"error":{"message":"/secret"}}` + "\n\n", fill(streamBytes-1) + "\n\nerror", messages.ReasonUpstreamFailed},
		"three buffers, then done": {fill(3*streamBytes) + "\n\n" + done, "", messages.ReasonOK},
	} {
		options := script(func(conn net.Conn) {
			readRequest(conn)
			_, _ = io.WriteString(conn, strings.Replace(streamHead, "Transfer-Encoding: chunked", "Connection: close", 1)+c.sent)
		})
		options.ErrorEvent = func(messages.Reason) []byte { return []byte("error") }
		r := New(options)
		w := httptest.NewRecorder()
		result := r.Do(t.Context(), w, Call{Target: there, Path: "/v1/x", Body: []byte("{}"), Stream: true})
		want := c.passed
		if want == "" {
			want = c.sent
		}
		if got := w.Body.String(); got != want || result.Reason != c.reason {
			t.Errorf("%s: got %+v and %d bytes, want %d; the last are %q", name, result, len(got), len(want), got[max(0, len(got)-60):])
		}
		r.Close()
	}
}

// A4: Heard is called when the runtime sends data, during a stream and for a short answer, and not while it is silent.
func TestHeard(t *testing.T) {
	for name, c := range map[string]struct {
		runtime     func(net.Conn)
		stream      bool
		least, most int
	}{
		"silent": {func(c net.Conn) { readRequest(c); _, _ = c.Read(make([]byte, 1)) }, false, 0, 0},
		"short": {func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
		}, false, 1, 1},
		"stream": {func(c net.Conn) {
			readRequest(c)
			_, err := io.WriteString(c, streamHead)
			for i := 0; i < 1000 && err == nil; i++ {
				time.Sleep(time.Millisecond)
				_, err = io.WriteString(c, "9\r\ndata: x\n\n\r\n")
			}
		}, true, int(time.Second / look), int(2*time.Second/look) + 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := New(script(func(conn net.Conn) { defer conn.Close(); c.runtime(conn) }))
			defer r.Close()
			begin, heard := time.Now(), 0
			gone := func() bool { return time.Since(begin) > 2*time.Second }
			r.Do(t.Context(), httptest.NewRecorder(), Call{Target: there, Path: "/v1/x", Body: []byte("{}"), Stream: c.stream, Gone: gone, Heard: func(int) { heard++ }})
			if heard < c.least || heard > c.most {
				t.Errorf("%s: got %d calls of Heard, want %d to %d", name, heard, c.least, c.most)
			}
		})
	}
}
