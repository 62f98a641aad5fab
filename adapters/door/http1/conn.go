// Package http1 is an HTTP/1.1 server for the loopback socket that accepts a strict subset of requests (L3a):
// no HTTP/1.0 or HTTP/2, no absolute or percent-encoded targets, no upgrades, no message framed in two ways.
// It reads each head whole and judges its raw bytes. Pipelined requests are judged one by one. The handler
// gets the verdict and answers every request, also a malformed one.
//
// It replaces net/http's server for two reasons. net/http hides from handlers what the guard must see (a
// Content-Length that it drops in favour of a chunked coding, an authority that replaces Host), and answers some
// requests itself. And it starts a reading goroutine for each request to notice that the client has left, which costs
// as much as all our checks together; here a handler that waits for the runtime polls Conn.Gone. A fuzz test compares
// every accepted head with net/http's parser.
//
// Server has the deadlines and the limit on connections (L9).
package http1

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// Limits bounds one connection (L9).
type Limits struct {
	HeadBytes  int           // bytes of the longest head
	HeadTime   time.Duration // from the first byte of a head to its last
	BodyTime   time.Duration // from the first wait for a body to its last byte
	IdleTime   time.Duration // between requests
	WriteStall time.Duration // for a client to take what is written at once
}

// Conn is one connection. It belongs to the goroutine that serves it. Other goroutines may only call Kill.
type Conn struct {
	raw    net.Conn
	limits *Limits
	server *Server

	in     []byte // read buffer
	from   int    // in[from:to] has been read and is not used yet
	to     int
	fields fields
	head   Head
	isHead bool      // the method is HEAD, even if the head is malformed
	left   int64     // unread bytes of the body
	chunks io.Reader // decoder of a chunked body, once it is read
	unread bool      // the body is not read to its end

	ctx     context.Context
	cancel  context.CancelFunc // called when the client has left
	request *http.Request      // reused for every request
	answer  response
	wroteAt time.Time
	linger  bool

	peer   peer
	closed sync.Once
	idle   idleNode // owned by the Server
}

// inBytes is the usual size of a connection's buffer.
const inBytes = 4 << 10

func newConn(raw net.Conn, s *Server) *Conn {
	c := &Conn{raw: raw, limits: &s.limits, server: s, in: make([]byte, inBytes)}
	ctx := context.WithValue(s.base, connKey{}, c)
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.request = (&http.Request{URL: new(url.URL), Body: body{c}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}).WithContext(c.ctx)
	c.answer = response{conn: c, header: make(http.Header, 8)}
	c.idle.conn = c
	return c
}

type connKey struct{}

// From returns the connection of a request's context, or nil when the request has none.
func From(ctx context.Context) *Conn {
	c, _ := ctx.Value(connKey{}).(*Conn)
	return c
}

// Judged returns the verdict on the head of the current request.
func (c *Conn) Judged() Head { return c.head }

// End writes the rest of the answer and its end before the handler returns, so that the client does not wait
// for what the handler does afterwards. Call it once, on the handler's goroutine, and write nothing after it.
func (c *Conn) End() { c.answer.end() }

// serve handles the requests of the connection one after another.
func (c *Conn) serve(h http.Handler) {
	defer c.close()
	for c.readHead() && c.server.busy(c) {
		r := c.request
		r.Method, r.Host, r.Header, r.URL.Path = c.fields.method, c.fields.host, c.fields.header, c.fields.path
		r.ContentLength = c.head.Length
		if c.head.Chunked {
			r.ContentLength = -1
		}
		c.answer.reset()
		h.ServeHTTP(&c.answer, r)
		if !c.answer.finish() || c.unread || !c.server.idles(c) {
			c.linger = c.answer.err == nil && (c.unread || !c.head.closes)
			return
		}
	}
}

// readHead waits for the next head and judges it. It returns false when the connection has ended or a
// deadline has passed.
func (c *Conn) readHead() bool {
	c.shrink()
	wait := c.limits.IdleTime
	if c.head == (Head{}) && c.fields.method == "" {
		wait = c.limits.HeadTime // a new connection must send a head soon
	}
	start, scanned, whole := c.from, c.from, false
	for partial := false; ; {
		if c.to > c.from {
			if end := headEnd(c.in[c.from:c.to], scanned-c.from); end > 0 && end <= c.limits.HeadBytes {
				c.head = c.fields.read(c.in[c.from : c.from+end])
				c.from += end
				whole = true
			}
			if whole || c.to-c.from > c.limits.HeadBytes || classes[c.in[c.from]]&tokenByte == 0 {
				break
			}
			scanned = max(c.from, c.to-2)
			wait = c.limits.HeadTime
		}
		if !partial {
			partial = c.to > c.from
			if c.raw.SetReadDeadline(time.Now().Add(wait)) != nil {
				return false
			}
		}
		if c.fill() != nil {
			return false
		}
	}
	c.isHead = bytes.HasPrefix(c.in[start:c.to], headMethod)
	if !whole || c.head.Malformed {
		c.head = Head{Malformed: true}
		c.fields.reset()
		c.fields.method, c.fields.path, c.fields.host = http.MethodGet, "/", ""
	}
	c.left, c.chunks, c.unread = c.head.Length, nil, c.head.Length > 0 || c.head.Chunked
	return true
}

// headMethod begins a HEAD request. The method is case-sensitive (RFC 9110, 9.1).
var headMethod = []byte("HEAD ")

// shrink moves unread bytes to the front of the buffer, and drops a large buffer.
func (c *Conn) shrink() {
	held := c.in[c.from:c.to]
	if len(c.in) > inBytes && len(held) <= inBytes {
		c.in = make([]byte, inBytes)
	}
	c.to = copy(c.in, held)
	c.from = 0
}

// fill reads more bytes into the buffer, which grows up to the longest head.
func (c *Conn) fill() error {
	if c.to == len(c.in) {
		larger := make([]byte, min(2*len(c.in), c.limits.HeadBytes+inBytes))
		copy(larger, c.in)
		c.in = larger
	}
	n, err := c.raw.Read(c.in[c.to:])
	c.to += n
	if n > 0 {
		return nil
	}
	return err
}

// body reads the request's body.
type body struct{ c *Conn }

func (b body) Close() error { return nil }

func (b body) Read(p []byte) (int, error) {
	c := b.c
	if !c.unread {
		return 0, io.EOF
	}
	if !c.head.Chunked {
		n, err := c.readRaw(p[:min(int64(len(p)), c.left)])
		c.left -= int64(n)
		if c.unread = c.left > 0; !c.unread {
			err = io.EOF
		}
		return n, err
	}
	if c.chunks == nil {
		c.chunks = httputil.NewChunkedReader(rawReader{c})
		c.answer.closes = true // the decoder reads ahead, so a following request would be lost
	}
	n, err := c.chunks.Read(p)
	if err == io.EOF {
		c.unread = false
	}
	return n, err
}

type rawReader struct{ c *Conn }

func (r rawReader) Read(p []byte) (int, error) { return r.c.readRaw(p) }

// readRaw returns bytes that were read ahead, and then reads the socket under the body's deadline.
func (c *Conn) readRaw(p []byte) (int, error) {
	if c.to > c.from {
		n := copy(p, c.in[c.from:c.to])
		c.from += n
		return n, nil
	}
	if c.head.continues {
		c.head.continues = false
		if _, err := c.write([]byte("HTTP/1.1 100 Continue\r\n\r\n")); err != nil {
			return 0, err
		}
	}
	if !c.answer.bodyTimed {
		c.answer.bodyTimed = true
		if err := c.raw.SetReadDeadline(time.Now().Add(c.limits.BodyTime)); err != nil {
			return 0, err
		}
	}
	n, err := c.raw.Read(p)
	if errors.Is(err, io.EOF) && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// write gives a client WriteStall to take the whole of p; taking a part of it does not extend the time. The
// deadline moves in steps of a quarter of WriteStall, so that a stream of small events does not set it for
// each event.
func (c *Conn) write(p []byte) (int, error) {
	if time.Since(c.wroteAt) > c.limits.WriteStall/4 {
		c.wroteAt = time.Now()
		if err := c.raw.SetWriteDeadline(c.wroteAt.Add(c.limits.WriteStall)); err != nil {
			return 0, err
		}
	}
	return c.raw.Write(p)
}

// Bounds of the wait for a refused client to read its answer. Without the wait the system would reset the
// connection because of the unread bytes of the request, and drop the answer.
const (
	lingerTime  = 300 * time.Millisecond
	lingerBytes = 256 << 10
)

// close closes the connection. A client whose request was refused first gets a short time to read the answer;
// meanwhile the connection counts as idle, so that a new connection can evict it.
func (c *Conn) close() {
	if half, ok := c.raw.(interface{ CloseWrite() error }); ok && c.linger && c.server.idles(c) && half.CloseWrite() == nil {
		_ = c.raw.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.CopyN(io.Discard, onlyReader{c.raw}, lingerBytes)
	}
	c.cancel()
	c.Kill()
}

// onlyReader hides WriteTo, which would call splice.
type onlyReader struct{ io.Reader }

// Kill closes the connection at once.
func (c *Conn) Kill() {
	c.closed.Do(func() {
		_ = c.raw.Close()
		c.server.forget(c)
	})
}
