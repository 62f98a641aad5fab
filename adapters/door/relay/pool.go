package relay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"companion/adapters/lowlatency"
	"companion/adapters/peer"
	"companion/messages"
)

// Target is the back end of one launch. A request never uses a connection to another launch's back end.
type Target struct {
	Launch  messages.Launch
	BackEnd messages.BackEnd
}

const (
	// The runtime closes connections that are idle for 5 s. One second less avoids the race.
	idleMax = 4 * time.Second
	// trusted is how long an idle Unix connection is used without a check that it is open: a write to a closed one
	// fails with nothing sent, and the request is sent again.
	trusted = 100 * time.Millisecond
	// copied is the size in bytes of the largest body that is copied behind its head, so that one write sends
	// both.
	copied = 8 << 10
	// headBytes is the size of the longest head of an answer. The runtime may be hostile (T7).
	headBytes = 256 << 10
	// dialTime bounds the wait for a runtime that accepts no connection. dialPause is the time between two
	// attempts.
	dialTime  = 5 * time.Second
	dialPause = 2 * time.Millisecond
)

// pool holds the idle connections to the current target. The Relay owns it.
type pool struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	max  int

	mu     sync.Mutex
	target Target
	idle   []*upstream // ordered by last use, the most recent at the end
	closed bool
}

// upstream is one connection to the runtime.
type upstream struct {
	net.Conn
	target Target
	reused bool
	usedAt time.Time
	in     *bufio.Reader
	out    []byte // buffer for the next request: a head and at most copied bytes

	headLeft int  // while a head is read: how many bytes of it may follow
	heard    bool // something arrived since the flag was last reset
	ended    bool // the other end has ended the connection

	// While watch is set, Read calls it at that interval on the reading goroutine, whether or not data arrives: a
	// runtime that sends a little at a time must not hold a request longer than a silent one.
	watch func() error
	every time.Duration
}

var errLongHead = errors.New("the head of the answer is too long")

var errForeign = errors.New("the back end is not the runtime's process")

var errStaleTarget = errors.New("the back end belongs to an earlier launch")

// use makes t the target, and closes the connections to the earlier one. It fails if the current target is of
// a later launch.
func (p *pool) use(t Target) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case t == p.target:
		return nil
	case p.closed || t.Launch < p.target.Launch:
		return errStaleTarget
	}
	p.target = t
	p.closeIdleLocked()
	return nil
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.target = true, Target{Launch: ^messages.Launch(0)}
	p.closeIdleLocked()
}

func (p *pool) closeIdleLocked() {
	for _, u := range p.idle {
		_ = u.Close()
	}
	p.idle = nil
}

// get returns a connection to t: an idle one that is open, or a new one. While it waits it calls look, which
// decides whether to go on.
func (p *pool) get(ctx context.Context, t Target, fresh bool, look func() error) (*upstream, error) {
	for !fresh {
		u := p.pop(t)
		if u == nil {
			break
		}
		if age := time.Since(u.usedAt); age < idleMax && (age < trusted && t.BackEnd.Network == "unix" || alive(u.Conn)) {
			u.reused = true
			return u, nil
		}
		_ = u.Close()
	}
	c, err := p.connect(ctx, t.BackEnd, look)
	if err != nil {
		return nil, fmt.Errorf("reaching the runtime: %w", err)
	}
	if err := checkPeer(c, t.BackEnd.PID); err != nil {
		return nil, fmt.Errorf("reaching the runtime: %w", errors.Join(err, c.Close()))
	}
	u := &upstream{Conn: lowlatency.Conn(c), target: t}
	u.in = bufio.NewReaderSize(u, 8<<10)
	return u, nil
}

// connect opens a connection. A Unix socket whose backlog is full refuses at once, where TCP waits, so the
// wait is here.
func (p *pool) connect(ctx context.Context, b messages.BackEnd, look func() error) (net.Conn, error) {
	c, err := p.dial(ctx, b.Network, b.Address)
	for end := time.Now().Add(dialTime); errors.Is(err, syscall.EAGAIN) && time.Now().Before(end); {
		if err := look(); err != nil {
			return nil, err
		}
		select {
		case <-time.After(dialPause):
		case <-ctx.Done():
		}
		c, err = p.dial(ctx, b.Network, b.Address)
	}
	return c, err
}

// checkPeer refuses a new connection whose other end is not the runtime's process (R3). Any program of the
// user can replace the runtime's socket by its own.
func checkPeer(c net.Conn, pid int) error {
	if pid == 0 {
		return nil
	}
	if err := peer.Check(c, pid); err != nil {
		return errors.Join(errForeign, err)
	}
	return nil
}

func (p *pool) pop(t Target) *upstream {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.target != t || len(p.idle) == 0 {
		return nil
	}
	u := p.idle[len(p.idle)-1]
	p.idle = p.idle[:len(p.idle)-1]
	return u
}

// put takes back a connection whose last answer was read to its end. It overwrites the buffers, because the
// connection may be idle for long and the last call is private.
func (p *pool) put(u *upstream) {
	u.usedAt, u.watch = time.Now(), nil
	clear(u.out)
	u.in.Reset(zeros{})
	_, _ = u.in.Peek(u.in.Size())
	u.in.Reset(u)
	p.mu.Lock()
	var out *upstream
	if p.target != u.target {
		out = u
	} else {
		if len(p.idle) >= p.max {
			out, p.idle = p.idle[0], p.idle[1:]
		}
		p.idle = append(p.idle, u)
	}
	p.mu.Unlock()
	if out != nil {
		_ = out.Close()
	}
}

// zeros is an endless reader of zeros. It overwrites the buffer of a bufio.Reader.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// listen makes Read call f every d while the answer is read. A write also waits d at most.
func (u *upstream) listen(f func() error, d time.Duration) error {
	u.watch, u.every, u.heard = f, d, false
	return u.SetDeadline(time.Now().Add(d))
}

// Read calls watch below the buffered reader, so that no reader above sees a time-out. The deadline moves
// when watch has run, not with each read. And watch runs when the deadline has passed, not after a successful
// read: otherwise the events of all streams that arrived together would wait for it.
func (u *upstream) Read(b []byte) (int, error) {
	for {
		n, err := u.Conn.Read(b)
		u.heard = u.heard || n > 0
		u.ended = u.ended || err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
		if u.headLeft > 0 {
			if u.headLeft -= n; u.headLeft <= 0 {
				return 0, errLongHead
			}
		}
		if u.watch == nil || n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if err := u.watch(); err != nil {
			return 0, err
		}
		if err := u.SetReadDeadline(time.Now().Add(u.every)); err != nil {
			return 0, err
		}
	}
}
