package http1

import (
	"errors"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// response is the http.ResponseWriter of a connection; it is reused for each request. Its header values come
// from the front door and never from input, so they are not validated.
type response struct {
	conn      *Conn
	header    http.Header
	out       []byte // buffered bytes; from the pool while a request is handled
	declared  int64  // Content-Length; -1 for chunked
	empty     bool   // the answer has no content (RFC 9110, 6.4.1)
	sent      int64
	begun     bool // the head is in out, or written
	ended     bool // the end is in out, or written
	closes    bool // the connection closes after this answer
	bodyTimed bool // the deadline of the request's body is set
	err       error
}

// outBytes is the amount of an answer that is buffered before it is written.
const outBytes = 8 << 10

var outs = sync.Pool{New: func() any { b := make([]byte, 0, outBytes+1024); return &b }}

func (w *response) reset() {
	clear(w.header)
	w.declared, w.sent, w.begun, w.ended, w.bodyTimed, w.err = -1, 0, false, false, false, nil
	w.empty = w.conn.isHead
	w.closes = w.conn.head.closes || w.conn.head.Malformed || w.conn.head.Chunked
}

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. It ignores a second call, and an informational status (1xx):
// 100 Continue is sent when the handler reads the body.
//
// An answer to HEAD, and one with status 204 or 304, has no content. The content that the handler writes is dropped,
// and neither Content-Length nor Transfer-Encoding is sent: for HEAD the length would have to be the length for GET
// (RFC 9110, 8.6), which the handler does not compute.
func (w *response) WriteHeader(status int) {
	if w.begun || status < 200 {
		return
	}
	w.begun = true
	w.empty = w.empty || status == http.StatusNoContent || status == http.StatusNotModified
	if w.out == nil {
		w.out = (*outs.Get().(*[]byte))[:0]
	}
	out := append(w.out, "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(status), 10)
	out = append(append(append(out, ' '), http.StatusText(status)...), "\r\nDate: "...)
	out = append(append(out, now()...), "\r\n"...)
	for name, values := range w.header {
		switch name {
		case "Connection":
			w.closes = true
			continue
		case "Transfer-Encoding":
			continue // this type decides the framing
		case "Content-Length":
			if w.empty {
				continue
			}
			n, err := strconv.ParseInt(values[0], 10, 64)
			if err != nil {
				continue
			}
			w.declared = n
		}
		for _, v := range values {
			out = append(append(append(append(out, name...), ": "...), v...), "\r\n"...)
		}
	}
	if w.declared < 0 && !w.empty {
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	if w.closes {
		out = append(out, "Connection: close\r\n"...)
	}
	w.out = append(out, "\r\n"...)
}

var errTooMuch = errors.New("more was written than declared")

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	n := len(p)
	if w.err != nil || n == 0 {
		return 0, w.err
	}
	if w.empty {
		return n, nil
	}
	if w.sent += int64(len(p)); w.declared >= 0 && w.sent > w.declared {
		w.Flush()
		w.err = errTooMuch
		return 0, w.err
	}
	if w.declared < 0 {
		w.out = append(strconv.AppendInt(w.out, int64(len(p)), 16), "\r\n"...)
	}
	if len(w.out)+len(p) > outBytes {
		w.Flush()
		if len(p) > outBytes {
			// Keep some bytes, for any length: only end sends the last ones.
			if w.err == nil {
				_, w.err = w.conn.write(p[:len(p)-outBytes])
			}
			p = p[len(p)-outBytes:]
		}
	}
	w.out = append(w.out, p...)
	if w.declared < 0 {
		w.out = append(w.out, "\r\n"...)
	}
	if w.err != nil {
		return 0, w.err
	}
	return n, nil
}

// FlushError implements the interface of http.ResponseController.
func (w *response) FlushError() error {
	w.Flush()
	return w.err
}

// Flush writes the buffered bytes.
func (w *response) Flush() {
	if w.err == nil && len(w.out) > 0 {
		_, w.err = w.conn.write(w.out)
	}
	w.out = w.out[:0]
}

// end writes the rest of the answer and its end. Nothing may be written after it.
func (w *response) end() {
	if w.ended {
		return
	}
	w.ended = true
	if !w.begun {
		w.header["Content-Length"] = []string{"0"}
		w.WriteHeader(http.StatusOK)
	}
	if w.declared < 0 && !w.empty {
		w.out = append(w.out, "0\r\n\r\n"...)
	}
	w.Flush()
}

// finish ends the answer and reports whether the connection can be used again.
func (w *response) finish() bool {
	w.end()
	w.release()
	return w.err == nil && !w.closes && (w.declared < 0 || w.sent == w.declared)
}

// release returns the buffer, so that an idle connection holds none.
func (w *response) release() {
	if out := w.out; cap(out) <= outBytes+1024 {
		outs.Put(&out)
	}
	w.out = nil
}

// date is the value of the Date field for one second.
type date struct {
	second int64
	text   string
}

var today atomic.Pointer[date]

func now() string {
	t := time.Now()
	d := today.Load()
	if d == nil || d.second != t.Unix() {
		d = &date{t.Unix(), t.UTC().Format(http.TimeFormat)}
		today.Store(d)
	}
	return d.text
}
