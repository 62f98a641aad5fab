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
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"go.uber.org/goleak"

	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// L7: net/http reads every accepted answer in the same way.
func FuzzReadHead(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"HTTP/1.0 503 X\nConnection: close\n\nbody", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 204 X\r\nContent-Length: 1\r\n\r\na", "HTTP/1.1 200\r\nA\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		mine := bufio.NewReader(bytes.NewReader(in))
		head, err := readHead(mine)
		if err != nil {
			return
		}
		theirs, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(in)), nil)
		if err != nil {
			return // net/http is stricter about fields that readHead ignores
		}
		if head.status != theirs.StatusCode {
			t.Fatalf("got status %d, want %d as from net/http: %q", head.status, theirs.StatusCode, in)
		}
		if head.status < 200 {
			return // these have no body; it is not read
		}
		a, errA := io.ReadAll(head.body(mine))
		b, errB := io.ReadAll(theirs.Body)
		if errA == nil && (errB != nil || !bytes.Equal(a, b)) {
			t.Fatalf("got the body %q, want %q (%v) as from net/http: %q", a, b, errB, in)
		}
	})
}

// script is an upstream inside the test: f acts as the runtime on each connection.
func script(f func(net.Conn)) Options {
	return Options{Dial: func(context.Context, string, string) (net.Conn, error) {
		mine, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			f(theirs)
		}()
		return mine, nil
	}}
}

var there = Target{Launch: 1, BackEnd: messages.BackEnd{Network: "unix", Address: "/x"}}

func readRequest(c net.Conn) *http.Request {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err == nil {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	return r
}

// T16: an idle connection holds nothing of its last call: neither request and answer, nor copies of them, nor the
// client.
func TestIdleConnectionForgets(t *testing.T) {
	for name, size := range map[string]int{"small": 100, "large": 2 * copied} {
		r := New(script(func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n\"secret\"")
			_, _ = c.Read(make([]byte, 1)) // until the other end closes
		}))
		body, client := func() (weak.Pointer[byte], weak.Pointer[httptest.ResponseRecorder]) {
			b, w := bytes.Repeat([]byte("secret"), size/6), httptest.NewRecorder()
			if result := r.Do(t.Context(), w, Call{Target: there, Path: "/v1/x", Body: b}); result.Reason != messages.ReasonOK {
				t.Fatalf("%s: got %+v, want ok", name, result)
			}
			return weak.Make(&b[0]), weak.Make(w)
		}()
		runtime.GC()
		if body.Value() != nil || client.Value() != nil {
			t.Errorf("%s: got a reference to the body or the client, want none", name)
		}
		if len(r.pool.idle) != 1 {
			t.Fatalf("%s: got %d idle connections, want 1", name, len(r.pool.idle))
		}
		u := r.pool.idle[0]
		if bytes.Contains(u.out[:cap(u.out)], []byte("secret")) {
			t.Errorf("%s: got a copy of the body, want none", name)
		}
		u.in.Reset(strings.NewReader(" "))
		head, _ := u.in.Peek(1) // its capacity reaches to the end of the buffer
		if bytes.Contains(head[:cap(head)], []byte("secret")) {
			t.Errorf("%s: got a copy of the answer, want none", name)
		}
		r.Close()
	}
}

// L10: a prompt that is too long for the runtime is the request's fault, with any status of the runtime.
func TestTooLong(t *testing.T) {
	for status, text := range map[string]string{
		"400 Bad Request":           `{"error":{"code":400,"message":"x","type":"exceed_context_size_error"}}`,
		"500 Internal Server Error": `{"error":{"code":500,"message":"input (600 tokens) is too large to process. increase the physical batch size (current batch size: 512)","type":"server_error"}}`,
	} {
		r := New(script(func(c net.Conn) {
			readRequest(c)
			_, _ = fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", status, len(text), text)
		}))
		result := r.Do(t.Context(), httptest.NewRecorder(), Call{Target: there, Path: "/v1/embeddings", Body: []byte("{}")})
		if result.Reason != messages.ReasonBadRequest || !result.TooLong {
			t.Errorf("%s: got %+v, want bad_request and TooLong", status, result)
		}
		r.Close()
	}
}

const streamHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

// L8: a comment after every 15 s of silence, and no time-out however long the runtime computes.
func TestCommentsOnAFakeClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(script(func(c net.Conn) {
			readRequest(c)
			time.Sleep(time.Hour)
			_, _ = io.WriteString(c, streamHead+"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
			_, _ = c.Read(make([]byte, 1))
		}))
		w := httptest.NewRecorder()
		begin := time.Now()
		result := r.Do(t.Context(), w, Call{Target: there, Path: "/v1/x", Body: []byte("{}"), Stream: true})
		if took := time.Since(begin); result.Reason != messages.ReasonOK || took != time.Hour {
			t.Errorf("got %+v after %v, want ok after an hour", result, took)
		}
		comments := strings.Count(w.Body.String(), ": keep-alive\n\n")
		if want := int(time.Hour/(15*time.Second)) - 1; comments < want || comments > want+1 {
			t.Errorf("got %d comments, want about %d", comments, want)
		}
		r.Close()
	})
}

// L8: an answer is complete with its last event, even if the runtime then sends nothing more, or never stops sending.
func TestWholeWithoutItsEnd(t *testing.T) {
	for name, pause := range map[string]time.Duration{"silent": time.Hour, "dribbles": 10 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			r := New(script(func(c net.Conn) {
				readRequest(c)
				_, err := io.WriteString(c, streamHead+"e\r\ndata: [DONE]\n\n\r\n")
				for err == nil {
					time.Sleep(pause)
					_, err = io.WriteString(c, "2\r\n:\n\r\n")
				}
			}))
			defer r.Close()
			w := httptest.NewRecorder()
			begin := time.Now()
			result := r.Do(t.Context(), w, Call{Target: there, Path: "/v1/x", Body: []byte("{}"), Stream: true})
			if took := time.Since(begin); result.Reason != messages.ReasonOK || w.Body.String() != "data: [DONE]\n\n" || took > settleTime+look {
				t.Errorf("%s: got %+v, %q after %v, want ok with the last event within settleTime", name, result, w.Body, took)
			}
			time.Sleep(2 * pause) // the runtime finds that its connection is closed
		})
	}
}

// L8: when the client leaves or the front door closes, the wait ends within the duration look.
func TestNobodyWaits(t *testing.T) {
	for name, c := range map[string]struct {
		gone   bool
		closes bool
	}{"the client left": {true, false}, "the door closes": {false, true}} {
		synctest.Test(t, func(t *testing.T) {
			closed := make(chan struct{})
			r := New(script(func(c net.Conn) {
				readRequest(c)
				_, _ = c.Read(make([]byte, 1)) // until the other end closes
				close(closed)
			}))
			ctx, cancel := context.WithCancelCause(t.Context())
			begin := time.Now()
			if c.closes {
				time.AfterFunc(time.Second, func() { cancel(errors.New("closing")) })
			}
			result := r.Do(ctx, httptest.NewRecorder(), Call{Target: there, Path: "/v1/x", Body: []byte("{}"), Gone: func() bool { return c.gone && time.Since(begin) > time.Second }})
			<-closed
			if took := time.Since(begin); took > time.Second+2*look || result.Gone != c.gone || result.Reason != messages.ReasonUpstreamFailed {
				t.Errorf("%s: got %+v after %v, want upstream_failed within a look", name, result, took)
			}
			cancel(nil)
			r.Close()
		})
	}
}

// L7: the connections of one launch end with it, and a request of an older launch is refused.
func TestTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan int, 8)
		n := 0
		r := New(script(func(c net.Conn) {
			n++
			mine := n
			in := bufio.NewReader(c)
			for {
				req, err := http.ReadRequest(in)
				if err != nil {
					ended <- mine
					return
				}
				_, _ = io.Copy(io.Discard, req.Body)
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
			}
		}))
		fetch := func(target Target) messages.Reason {
			_, result := r.Fetch(t.Context(), Call{Target: target, Path: "/v1/models"})
			return result.Reason
		}
		second := there
		second.Launch = 2
		for range 2 {
			if got := fetch(there); got != messages.ReasonOK {
				t.Fatal(got)
			}
		}
		r.Use(second)
		if got := <-ended; got != 1 {
			t.Errorf("got the end of connection %d, want 1", got)
		}
		if got := fetch(there); got != messages.ReasonRuntimeUnavailable {
			t.Errorf("an older launch: got %s, want runtime_unavailable", got)
		}
		if got := fetch(second); got != messages.ReasonOK {
			t.Error(got)
		}
		time.Sleep(idleMax)
		if got := fetch(second); got != messages.ReasonOK {
			t.Error(got)
		}
		if got := <-ended; got != 2 {
			t.Errorf("got the end of connection %d, want 2", got)
		}
		r.Close()
		<-ended
		if got := fetch(second); got != messages.ReasonRuntimeUnavailable {
			t.Errorf("a closed relay: got %s, want runtime_unavailable", got)
		}
	})
}

// Issue 4: a pooled connection that the runtime has closed is replaced, also for a generation: the write fails, so
// nothing was sent.
func TestStaleConnection(t *testing.T) {
	l, backEnd := listenUnix(t)
	closed := make(chan struct{})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			readRequest(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
			_ = c.Close()
			closed <- struct{}{}
		}
	}()
	r := New(Options{})
	for range 3 {
		result := r.Do(t.Context(), httptest.NewRecorder(), Call{Target: Target{1, backEnd}, Path: "/v1/x", Body: []byte("{}")})
		if result.Reason != messages.ReasonOK {
			t.Errorf("got %+v, want ok", result)
		}
		<-closed
	}
	r.Close()
	_ = l.Close()
}

// L8: llama-server announces that it keeps the connection of a stream and then closes it. A request right after a
// stream is not lost.
func TestNoRequestFollowsAStream(t *testing.T) {
	options := script(func(c net.Conn) {
		readRequest(c)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=100\r\nContent-Type: text/event-stream\r\n"+
			"Transfer-Encoding: chunked\r\n\r\nE\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
		_, _ = c.Read(make([]byte, 1024)) // reads the next request and closes
		_ = c.Close()
	})
	r := New(options)
	defer r.Close()
	for range 3 {
		answer := httptest.NewRecorder()
		if result := r.Do(t.Context(), answer, Call{Target: there, Path: "/v1/x", Body: []byte("{}"), Stream: true}); result.Reason != messages.ReasonOK {
			t.Errorf("got %+v: %s, want ok", result, answer.Body)
		}
	}
}

// L11: the counts come from the answer's own fields, never from generated text.
func TestCountTokens(t *testing.T) {
	for in, want := range map[string]Tokens{
		`{"usage":{"completion_tokens":7,"prompt_tokens":3}}`: {3, 7},
		`{"timings":{"prompt_n":2,"predicted_n":9}}`:          {2, 9},
		`{"content":"\"completion_tokens\":99"}`:              {},
		`{}`:                                                  {},
		`{"completion_tokens":99999999999999999999999}`:       {0, 9999999999999}, // truncated, no overflow
	} {
		if got := countTokens([]byte(in)); got != want {
			t.Errorf("%s: got %+v, want %+v", in, got, want)
		}
	}
}
