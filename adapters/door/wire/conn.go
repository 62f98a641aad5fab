// Package wire stands between the loopback socket and net/http. net/http hides things from handlers
// (a length dropped beside a chunked coding, an authority that replaces Host) and answers others
// itself; here each raw head is read whole and judged first (L3a), and one request is framed at a
// time, so that the second of two pipelined ones is judged like the first.
//
// A refused head never reaches net/http's parser: the handler is given a plain request in its place,
// with the verdict beside it, so that there is one place that answers, counts and logs. Here too are
// the deadlines and the number of connections (L9): Listener.
package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Limits bound one connection (L9).
type Limits struct {
	HeadBytes  int           // longest head
	HeadTime   time.Duration // from the first byte of a head to its last
	BodyTime   time.Duration // from the first wait for a body to its last byte
	WriteStall time.Duration // a reader that takes nothing for so long is cut off
}

type phase uint8

const (
	gathering  phase = iota // waiting for the rest of a head
	delivering              // held begins with headLeft bytes of a judged head
	body                    // left bytes of body follow
	chunked                 // everything follows: the connection ends with this request
	refused                 // the stand-in is delivered; nothing else will be
)

// Conn is one connection. Reading methods belong to net/http's goroutines, which take turns.
type Conn struct {
	net.Conn
	limits  Limits
	onClose func(*Conn)

	phase    phase
	held     []byte // read and not delivered; from the pool, nil while there is none
	headLeft int
	left     int64
	standIn  []byte
	next     Head // of the head being delivered
	current  Head // of the head delivered last

	deadlines sync.Mutex
	outer     time.Time // what net/http asked for
	inner     time.Time // what the head or body in progress is bound by

	wroteAt time.Time
	linger  atomic.Bool
	closed  sync.Once

	idle idleNode // owned by the Listener
}

// Judged returns the verdict on the head of the request that net/http handles now. Call it from the
// handler.
func (c *Conn) Judged() Head { return c.current }

// BodyDone says that the handler has read the body whole: its deadline ends.
func (c *Conn) BodyDone() { c.bind(0) }

// Refuse makes everything still unread unreadable, so that nobody waits for the body of a refused
// request. Call it from the handler, with a "Connection: close" answer, before the body was read to
// its end: from then on net/http reads ahead beside the handler.
func (c *Conn) Refuse() {
	if c.current.Length > 0 || c.current.Chunked {
		c.linger.Store(true)
		c.phase = refused
	}
}

var pool sync.Pool // of *[]byte, all with the capacity of HeadBytes+1

func (c *Conn) hold(b []byte) {
	if c.held == nil {
		if p, _ := pool.Get().(*[]byte); p != nil && cap(*p) > c.limits.HeadBytes {
			c.held = (*p)[:0]
		} else {
			c.held = make([]byte, 0, max(c.limits.HeadBytes+1, 4096))
		}
	}
	c.held = append(c.held, b...)
}

// take delivers the first bytes of held.
func (c *Conn) take(p []byte) int {
	n := copy(p, c.held)
	rest := copy(c.held, c.held[n:])
	c.held = c.held[:rest]
	if rest == 0 {
		c.drop()
	}
	return n
}

func (c *Conn) drop() {
	if c.held != nil {
		b := c.held[:0]
		c.held = nil
		pool.Put(&b)
	}
}

// Read gives net/http the next bytes of the request in progress, and never one of the next request
// before that was judged.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		switch c.phase {
		case gathering:
			n, err := c.gather(p)
			if n > 0 || err != nil {
				return n, err
			}
		case delivering:
			n := c.take(p[:min(len(p), c.headLeft)])
			if c.headLeft -= n; c.headLeft == 0 {
				c.begin(c.next)
			}
			return n, nil
		case body, chunked:
			return c.readBody(p)
		case refused:
			n := copy(p, c.standIn)
			if c.standIn = c.standIn[n:]; n == 0 {
				return 0, io.EOF
			}
			if len(c.standIn) == 0 {
				c.current = c.next
			}
			return n, nil
		}
	}
}

// gather reads until a head is complete, and judges it. In the common case the whole head, and
// perhaps its body, arrives in p at once and stays there; n is what of it net/http may see.
func (c *Conn) gather(p []byte) (n int, err error) {
	scanned := 0
	if len(c.held) == 0 {
		n, err := c.Conn.Read(p)
		if n == 0 || err != nil {
			return 0, err
		}
		if end := headEnd(p[:n], 0); end > 0 && end <= c.limits.HeadBytes {
			c.bind(0)
			head, method := inspect(p[:end])
			if head.Malformed || head.BadHost {
				c.refuse(head, method)
				return 0, nil
			}
			c.begin(head)
			visible := n
			if c.phase != chunked {
				visible = end + int(min(int64(n-end), c.left))
				c.consumed(int64(visible - end))
			}
			if visible < n {
				c.hold(p[visible:n])
			}
			return visible, nil
		}
		c.hold(p[:n])
	}
	for {
		end := headEnd(c.held, scanned)
		if end == 0 && len(c.held) <= c.limits.HeadBytes && classes[c.held[0]]&tokenByte != 0 {
			scanned = max(0, len(c.held)-2)
			c.bindOnce(c.limits.HeadTime)
			n, err := c.Conn.Read(c.held[len(c.held):cap(c.held)])
			c.held = c.held[:len(c.held)+n]
			if n == 0 || err != nil {
				return 0, err
			}
			continue
		}
		c.bind(0)
		if end == 0 || end > c.limits.HeadBytes {
			c.refuse(Head{Malformed: true}, nil)
			return 0, nil
		}
		head, method := inspect(c.held[:end])
		if head.Malformed || head.BadHost {
			c.refuse(head, method)
			return 0, nil
		}
		c.next, c.headLeft, c.phase = head, end, delivering
		return 0, nil
	}
}

// begin makes h the head of the request in progress.
func (c *Conn) begin(h Head) {
	c.current = h
	switch {
	case h.Chunked:
		c.phase = chunked
	case h.Length > 0:
		c.phase, c.left = body, h.Length
	default:
		c.phase, c.left = gathering, 0
	}
}

// refuse puts a plain request in the place of the refused one. It keeps the method, because a
// forbidden method is told before a bad Host (L3).
func (c *Conn) refuse(h Head, method []byte) {
	if h.Malformed || len(method) == 0 {
		h, method = Head{Malformed: true}, []byte("GET")
	}
	c.standIn = append([]byte(nil), method...)
	c.standIn = append(c.standIn, " /refused HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n\r\n"...)
	c.next, c.phase = h, refused
	c.linger.Store(true)
	c.drop()
}

func (c *Conn) readBody(p []byte) (n int, err error) {
	if c.phase == body {
		p = p[:min(int64(len(p)), c.left)]
	}
	if len(c.held) > 0 {
		n = c.take(p)
	} else {
		c.bindOnce(c.limits.BodyTime)
		n, err = c.Conn.Read(p)
	}
	if c.phase == body {
		c.consumed(int64(n))
	}
	return n, err
}

func (c *Conn) consumed(n int64) {
	if c.left -= n; c.left == 0 && c.phase == body {
		c.phase = gathering
		c.bind(0)
	}
}

// SetReadDeadline keeps net/http's deadline apart from ours; the earlier one holds.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	c.outer = t
	return c.applyLocked()
}

// SetWriteDeadline is net/http's; Write sets its own.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline is net/http's; only its reading half counts.
func (c *Conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// bind starts our deadline, or ends it.
func (c *Conn) bind(d time.Duration) {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	switch {
	case d > 0:
		c.inner = time.Now().Add(d)
	case c.inner.IsZero():
		return
	default:
		c.inner = time.Time{}
	}
	_ = c.applyLocked() // a closed connection tells at the next read
}

// bindOnce starts our deadline unless it runs.
func (c *Conn) bindOnce(d time.Duration) {
	c.deadlines.Lock()
	running := !c.inner.IsZero()
	c.deadlines.Unlock()
	if !running && d > 0 {
		c.bind(d)
	}
}

func (c *Conn) applyLocked() error {
	t := c.outer
	if !c.inner.IsZero() && (t.IsZero() || c.inner.Before(t)) {
		t = c.inner
	}
	return c.Conn.SetReadDeadline(t)
}

// Write gives a reader that takes nothing WriteStall at most. The deadline moves in steps of a
// quarter, so that a stream of small events does not set it for each.
func (c *Conn) Write(p []byte) (int, error) {
	if now := time.Now(); now.Sub(c.wroteAt) > c.limits.WriteStall/4 {
		c.wroteAt = now
		if err := c.Conn.SetWriteDeadline(now.Add(c.limits.WriteStall)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}

// Bounds of the wait for a refused client to read its answer; without it the unread bytes of the
// request would make the system reset the connection and throw the answer away.
const (
	lingerTime  = 300 * time.Millisecond
	lingerBytes = 256 << 10
)

// CloseWrite ends the answer.
func (c *Conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}

// Close ends the connection, after a refused client had a moment to read why.
func (c *Conn) Close() error {
	if c.linger.Load() && c.CloseWrite() == nil {
		_ = c.Conn.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.CopyN(io.Discard, onlyReader{c.Conn}, lingerBytes)
	}
	return c.Kill()
}

// onlyReader hides WriteTo, which would splice.
type onlyReader struct{ io.Reader }

// Kill ends the connection at once. Safe from any goroutine.
func (c *Conn) Kill() error {
	err := os.ErrClosed
	c.closed.Do(func() {
		err = c.Conn.Close()
		if c.onClose != nil {
			c.onClose(c)
		}
	})
	return err
}

type connKey struct{}

// Context is for http.Server.ConnContext: it lets a handler find its connection.
func Context(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// From returns the connection of a request's context, or nil when it came by another way.
func From(ctx context.Context) *Conn {
	c, _ := ctx.Value(connKey{}).(*Conn)
	return c
}
