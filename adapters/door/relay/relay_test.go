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

	"go.uber.org/goleak"

	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// L7: whatever answer is accepted, net/http reads the same from it.
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
			return // net/http is stricter about fields that are not looked at here
		}
		if head.status != theirs.StatusCode {
			t.Fatalf("status %d, net/http says %d: %q", head.status, theirs.StatusCode, in)
		}
		if head.status < 200 {
			return // these have no body; it is not read
		}
		a, errA := io.ReadAll(head.body(mine))
		b, errB := io.ReadAll(theirs.Body)
		if errA == nil && (errB != nil || !bytes.Equal(a, b)) {
			t.Fatalf("read %q, net/http %q (%v) of %q", a, b, errB, in)
		}
	})
}

// script is an upstream inside the test: f plays the runtime's side of each connection.
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

// T16: a connection that lies idle holds nothing of its last call: neither the texts, nor copies of
// them, nor whom they were for.
func TestIdleConnectionForgets(t *testing.T) {
	for name, size := range map[string]int{"small": 100, "large": 2 * copied} {
		r := New(script(func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n\"secret\"")
			_, _ = c.Read(make([]byte, 1)) // until the other side closes
		}))
		body, client := func() (weak.Pointer[byte], weak.Pointer[httptest.ResponseRecorder]) {
			b, w := bytes.Repeat([]byte("secret"), size/6), httptest.NewRecorder()
			if result := r.Do(t.Context(), w, Call{Target: there, Path: "/v1/x", Body: b}); result.Reason != messages.ReasonOK {
				t.Fatalf("%s: %+v", name, result)
			}
			return weak.Make(&b[0]), weak.Make(w)
		}()
		runtime.GC()
		if body.Value() != nil || client.Value() != nil {
			t.Errorf("%s: the body or the client is still held", name)
		}
		if len(r.pool.idle) != 1 {
			t.Fatalf("%s: %d connections are idle", name, len(r.pool.idle))
		}
		u := r.pool.idle[0]
		if bytes.Contains(u.out[:cap(u.out)], []byte("secret")) {
			t.Errorf("%s: a copy of the body is still held", name)
		}
		u.in.Reset(strings.NewReader(" "))
		head, _ := u.in.Peek(1) // the rest of the buffer is behind it
		if bytes.Contains(head[:cap(head)], []byte("secret")) {
			t.Errorf("%s: a copy of the answer is still held", name)
		}
		r.Close()
	}
}

// L10: what the runtime cannot take is the request's fault, whatever status it gives that.
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
			t.Errorf("%s: %+v", status, result)
		}
		r.Close()
	}
}

const streamHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

// L8: a comment every 15 s of silence, and no time-out of ours however long the runtime thinks.
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
			t.Errorf("%+v after %v", result, took)
		}
		comments := strings.Count(w.Body.String(), ": keep-alive\n\n")
		if want := int(time.Hour/(15*time.Second)) - 1; comments < want || comments > want+1 {
			t.Errorf("%d comments, want about %d", comments, want)
		}
		r.Close()
	})
}

// L8: an answer is whole with its last event, though the runtime says nothing more, or something else on
// and on.
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
				t.Errorf("%s: %+v, %q after %v", name, result, w.Body, took)
			}
			time.Sleep(2 * pause) // the runtime finds that its connection is closed
		})
	}
}

// L8: a client that leaves, and a front door that closes, end the wait within a look.
func TestNobodyWaits(t *testing.T) {
	for name, c := range map[string]struct {
		gone   bool
		closes bool
	}{"the client left": {true, false}, "the door closes": {false, true}} {
		synctest.Test(t, func(t *testing.T) {
			closed := make(chan struct{})
			r := New(script(func(c net.Conn) {
				readRequest(c)
				_, _ = c.Read(make([]byte, 1)) // until the other side closes
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
				t.Errorf("%s: %+v after %v", name, result, took)
			}
			cancel(nil)
			r.Close()
		})
	}
}

// L7: the connections of one launch die with it, and an older launch cannot come back.
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
			t.Errorf("connection %d ended", got)
		}
		if got := fetch(there); got != messages.ReasonRuntimeUnavailable {
			t.Errorf("an older launch: %s", got)
		}
		if got := fetch(second); got != messages.ReasonOK {
			t.Error(got)
		}
		time.Sleep(idleMax)
		if got := fetch(second); got != messages.ReasonOK {
			t.Error(got)
		}
		if got := <-ended; got != 2 {
			t.Errorf("connection %d ended", got)
		}
		r.Close()
		<-ended
		if got := fetch(second); got != messages.ReasonRuntimeUnavailable {
			t.Errorf("a closed relay: %s", got)
		}
	})
}

// Issue 4: a connection that the runtime closed in silence is replaced, also for a generation: the
// write fails, so nothing was sent.
func TestStaleConnection(t *testing.T) {
	dir, err := os.MkdirTemp("", "proxy") // socket paths are short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
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
		result := r.Do(t.Context(), httptest.NewRecorder(), Call{Target: Target{1, messages.BackEnd{Network: "unix", Address: dir + "/s"}}, Path: "/v1/x", Body: []byte("{}")})
		if result.Reason != messages.ReasonOK {
			t.Errorf("%+v", result)
		}
		<-closed
	}
	r.Close()
	_ = l.Close()
}

// L8: llama-server promises to keep the connection of a stream and closes it; a request that comes
// right after a stream is not lost in that.
func TestNoRequestFollowsAStream(t *testing.T) {
	options := script(func(c net.Conn) {
		readRequest(c)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=100\r\nContent-Type: text/event-stream\r\n"+
			"Transfer-Encoding: chunked\r\n\r\nE\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
		_, _ = c.Read(make([]byte, 1024)) // takes the next request, and is gone
		_ = c.Close()
	})
	r := New(options)
	defer r.Close()
	for range 3 {
		answer := httptest.NewRecorder()
		if result := r.Do(t.Context(), answer, Call{Target: there, Path: "/v1/x", Body: []byte("{}"), Stream: true}); result.Reason != messages.ReasonOK {
			t.Errorf("%+v: %s", result, answer.Body)
		}
	}
}

// L11: the counts come from the answer's own fields, never from what the model wrote.
func TestCountTokens(t *testing.T) {
	for in, want := range map[string]Tokens{
		`{"usage":{"completion_tokens":7,"prompt_tokens":3}}`: {3, 7},
		`{"timings":{"prompt_n":2,"predicted_n":9}}`:          {2, 9},
		`{"content":"\"completion_tokens\":99"}`:              {},
		`{}`:                                                  {},
		`{"completion_tokens":99999999999999999999999}`:       {0, 9999999999999}, // cut off, not wrapped round
	} {
		if got := countTokens([]byte(in)); got != want {
			t.Errorf("%s: %+v, want %+v", in, got, want)
		}
	}
}
