package download

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"companion/adapters/origin"
	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var object = bytes.Repeat([]byte("0123456789abcdef"), 20_000)

// memory is a Sink that keeps the bytes in memory.
type memory struct {
	bytes.Buffer
	begun     int
	offset    int64
	validator string
	refuse    error
}

func (m *memory) Begin(offset int64, validator string) error {
	m.begun++
	m.offset, m.validator = offset, validator
	m.Truncate(int(offset))
	return nil
}

func (m *memory) Write(p []byte) (int, error) {
	if m.refuse != nil {
		return 0, m.refuse
	}
	return m.Buffer.Write(p)
}

func serve(t *testing.T, handler http.HandlerFunc) (*httptest.Server, *Client) {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return server, New(roots, 5*time.Second)
}

func request(server *httptest.Server) Request {
	return Request{URL: server.URL + "/models/g", Origins: []string{server.URL + "/models/"}, PrivateHosts: []string{"127.0.0.1"}}
}

func content(tag string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(object))
	}
}

// M5: Fetch delivers every byte, and the entity tag.
func TestFetchPumpsEveryByte(t *testing.T) {
	server, client := serve(t, content(`"one"`))
	var sink memory
	if err := client.Fetch(t.Context(), request(server), &sink); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(sink.Bytes(), object) || sink.begun != 1 || sink.offset != 0 || sink.validator != `"one"` {
		t.Fatalf("got %d bytes, begun %d times at %d, validator %q; want the object, once at 0, \"one\"", sink.Len(), sink.begun, sink.offset, sink.validator)
	}
}

func bufferOf(n int) *memory {
	var m memory
	m.Buffer.Write(object[:n])
	return &m
}

// M8: a transfer continues only if the server confirms the same object; otherwise it starts from zero.
func TestResume(t *testing.T) {
	const at = 1000
	total := int64(len(object))
	partial := func(contentRange, tag string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") == "" {
				content(`"one"`)(w, r)
				return
			}
			w.Header().Set("ETag", tag)
			w.Header().Set("Content-Range", contentRange)
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(object[at:])
		}
	}
	good := fmt.Sprintf("bytes %d-%d/%d", at, total-1, total)
	for name, c := range map[string]struct {
		handler   http.HandlerFunc
		validator string
		offset    int64
	}{
		"same object":       {content(`"one"`), `"one"`, at},
		"exact 206":         {partial(good, `"one"`), `"one"`, at},
		"object changed":    {content(`"two"`), `"one"`, 0},
		"weak validator":    {content(`W/"one"`), `W/"one"`, 0},
		"no validator":      {content(""), "", 0},
		"206 of another":    {partial(good, `"two"`), `"one"`, 0},
		"206 without tag":   {partial(good, ""), `"one"`, 0},
		"206 elsewhere":     {partial(fmt.Sprintf("bytes 0-%d/%d", total-at-1, total), `"one"`), `"one"`, 0},
		"206 too short":     {partial(fmt.Sprintf("bytes %d-%d/%d", at, total-2, total), `"one"`), `"one"`, 0},
		"206 unknown total": {partial(fmt.Sprintf("bytes %d-%d/*", at, total-1), `"one"`), `"one"`, 0},
		"206 without range": {partial("", `"one"`), `"one"`, 0},
		"206 nonsense":      {partial("bytes x-y/z", `"one"`), `"one"`, 0},
		"416": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			content(`"one"`)(w, r)
		}, `"one"`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			server, client := serve(t, c.handler)
			req := request(server)
			req.Offset, req.Validator = at, c.validator
			sink := bufferOf(at)
			if err := client.Fetch(t.Context(), req, sink); err != nil {
				t.Fatal(err)
			}
			if sink.offset != c.offset || sink.begun != 1 || !bytes.Equal(sink.Bytes(), object) {
				t.Fatalf("got begun %d times, at %d, with %d bytes; want once, at %d, with the object", sink.begun, sink.offset, sink.Len(), c.offset)
			}
		})
	}
}

// M8: for each status, whether the same URL may be tried again.
func TestStatuses(t *testing.T) {
	for status, permanent := range map[int]bool{
		204: true, 206: true, 300: true, 304: true, 400: true, 401: true, 403: true, 404: true, 410: true, 416: true,
		408: false, 425: false, 429: false, 500: false, 511: false, 502: false, 503: false, 504: false,
	} {
		server, client := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		var sink memory
		err := client.Fetch(t.Context(), request(server), &sink)
		var e *Error
		if !errors.As(err, &e) || e.Reason != messages.ReasonBadStatus || e.Status != status || e.Permanent != permanent || sink.begun != 0 {
			t.Errorf("status %d: got %#v, sink begun %d times; want bad_status, permanent %t, never", status, err, sink.begun, permanent)
		}
		quiet(t, err, server)
	}
}

// M8, T6: a connection cut in the middle is a failure that may be tried again.
func TestCutConnection(t *testing.T) {
	server, client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(object)))
		_, _ = w.Write(object[:5000])
		panic(http.ErrAbortHandler)
	})
	var sink memory
	err := client.Fetch(t.Context(), request(server), &sink)
	var e *Error
	if !errors.As(err, &e) || e.Permanent || e.Reason != messages.ReasonTransferFailed {
		t.Fatalf("Fetch: got %v, want a temporary transfer_failed", err)
	}
	if !bytes.Equal(sink.Bytes(), object[:sink.Len()]) {
		t.Fatal("bytes before the cut: got other bytes, want those of the object")
	}
	quiet(t, err, server)
}

func TestEncodedAnswerIsRefused(t *testing.T) {
	server, client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(object)
	})
	var sink memory
	err := client.Fetch(t.Context(), request(server), &sink)
	if reasonOf(err) != messages.ReasonTransferFailed || sink.begun != 0 {
		t.Fatalf("Fetch: got %v, sink begun %d times; want transfer_failed, never", err, sink.begun)
	}
}

// M8: a server that sends nothing, or single bytes, causes a failure that may be tried again.
func TestStall(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"no head": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"no body": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
		"drip": func(w http.ResponseWriter, r *http.Request) {
			beat := time.NewTicker(5 * time.Millisecond)
			defer beat.Stop()
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte("x"))
				_ = http.NewResponseController(w).Flush()
				<-beat.C
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			server, client := serve(t, handler)
			client.stall = 200 * time.Millisecond
			err := client.Fetch(t.Context(), request(server), &memory{})
			var e *Error
			if !errors.As(err, &e) || e.Permanent || !errors.Is(err, errStalled) {
				t.Fatalf("Fetch: got %v, want a temporary errStalled", err)
			}
		})
	}
}

// M5: a transfer that the caller cancels is not a success, even if the server then ends its response properly.
func TestCancel(t *testing.T) {
	reached := make(chan struct{})
	server, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		close(reached)
		<-r.Context().Done()
	})
	cause := errors.New("replaced")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-reached; cancel(cause) }()
	if err := client.Fetch(ctx, request(server), &memory{}); !errors.Is(err, cause) {
		t.Fatalf("Fetch: got %v, want %v", err, cause)
	}
}

// M6: an error of the sink stops the transfer at once.
func TestSinkRefuses(t *testing.T) {
	server, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(object); err != nil {
				return
			}
		}
	})
	refusal := errors.New("too many")
	if err := client.Fetch(t.Context(), request(server), &memory{refuse: refusal}); !errors.Is(err, refusal) {
		t.Fatalf("Fetch: got %v, want %v", err, refusal)
	}
}

// M5: the server's certificate is verified.
func TestUntrustedCertificate(t *testing.T) {
	server, _ := serve(t, content(`"one"`))
	err := New(x509.NewCertPool(), time.Second).Fetch(t.Context(), request(server), &memory{})
	var e *Error
	if !errors.As(err, &e) || !e.Permanent || e.Reason != messages.ReasonTransferFailed {
		t.Fatalf("Fetch: got %v, want a permanent transfer_failed", err)
	}
	quiet(t, err, server)
}

// heap is a Sink that measures the live heap early and late in a transfer.
type heap struct {
	bytes       int64
	early, late uint64
}

func (*heap) Begin(int64, string) error { return nil }

func (h *heap) Write(p []byte) (int, error) {
	h.bytes += int64(len(p))
	switch {
	case h.early == 0 && h.bytes > 4<<20:
		h.early = live()
	case h.late == 0 && h.bytes > 120<<20:
		h.late = live()
	}
	return len(p), nil
}

func live() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// M5: memory does not grow with the size of the object.
func TestBoundedMemory(t *testing.T) {
	const size = 128 << 20
	server, client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.CopyN(w, endless{}, size)
	})
	var sink heap
	if err := client.Fetch(t.Context(), request(server), &sink); err != nil || sink.bytes != size {
		t.Fatalf("got %d bytes, %v; want %d, no error", sink.bytes, err, size)
	}
	if sink.late == 0 || sink.late > sink.early+2<<20 {
		t.Fatalf("live heap: got %d bytes early and %d late, want at most 2 MiB more", sink.early, sink.late)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func reasonOf(err error) messages.Reason {
	var e *Error
	var s *origin.Error
	switch {
	case err == nil:
		return messages.ReasonOK
	case errors.As(err, &e):
		return e.Reason
	case errors.As(err, &s):
		return s.Reason
	}
	return ""
}

// quiet fails if the error's text contains the host or path of the URL.
func quiet(t *testing.T, err error, server *httptest.Server) {
	t.Helper()
	if err == nil {
		return
	}
	u, _ := url.Parse(server.URL)
	if text := err.Error(); strings.Contains(text, u.Hostname()) || strings.Contains(text, "models") {
		t.Errorf("got error %q, want it without host and path", text)
	}
}

// M14, M5: with a Length exactly that range is requested, and delivered. A server that ignores it, or answers with another
// range, delivers the object from zero.
func TestFetchRange(t *testing.T) {
	const at, length = 1000, 5000
	total := int64(len(object))
	answer := func(contentRange string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") == "" {
				content("")(w, r)
				return
			}
			w.Header().Set("Content-Range", contentRange)
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(object[at : at+length])
		}
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		offset  int64
		want    []byte
	}{
		"ranges":        {content(""), at, object[at : at+length]},
		"exact":         {answer(fmt.Sprintf("bytes %d-%d/%d", at, at+length-1, total)), at, object[at : at+length]},
		"another end":   {answer(fmt.Sprintf("bytes %d-%d/%d", at, at+length, total)), 0, object},
		"another total": {answer(fmt.Sprintf("bytes %d-%d/%d", at, at+length-1, total+1)), 0, object},
		"beyond":        {answer(fmt.Sprintf("bytes %d-%d/%d", at, at+length-1, at+length-1)), 0, object},
		"no ranges":     {func(w http.ResponseWriter, r *http.Request) { r.Header.Del("Range"); content("")(w, r) }, 0, object},
	} {
		t.Run(name, func(t *testing.T) {
			server, client := serve(t, c.handler)
			req := request(server)
			req.Offset, req.Length, req.Size = at, length, total
			var sink fromZero
			if err := client.Fetch(t.Context(), req, &sink); err != nil {
				t.Fatal(err)
			}
			if sink.offset != c.offset || !bytes.Equal(sink.Bytes(), c.want) {
				t.Fatalf("got %d bytes from %d, want %d from %d", sink.Len(), sink.offset, len(c.want), c.offset)
			}
		})
	}
}

// fromZero is a memory that has no bytes before the offset.
type fromZero struct{ memory }

func (s *fromZero) Begin(offset int64, _ string) error { s.offset = offset; return nil }

// M14: the requests of a Line use one connection, and Close closes it. A body that ends early is a failure.
func TestLine(t *testing.T) {
	var connections, open atomic.Int32
	server := httptest.NewUnstartedServer(content(""))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	closed := make(chan struct{}, 10)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			connections.Add(1)
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
			closed <- struct{}{}
		}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	client := New(roots, 5*time.Second)
	line := &Line{}
	for i := range 5 {
		req := request(server)
		req.Offset, req.Length, req.Size, req.Line = int64(i)*1000, 1000, int64(len(object)), line
		var sink fromZero
		if err := client.Fetch(t.Context(), req, &sink); err != nil || !bytes.Equal(sink.Bytes(), object[i*1000:i*1000+1000]) {
			t.Fatalf("request %d: got %d bytes, %v; want 1000", i, sink.Len(), err)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("got %d connections, want 1", n)
	}
	line.Close()
	<-closed
	if n := open.Load(); n != 0 {
		t.Errorf("after Close: got %d connections, want none", n)
	}
}
