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

// Target is the back end of one launch. Connections to another launch's back end are never used.
type Target struct {
	Launch  messages.Launch
	BackEnd messages.BackEnd
}

const (
	// The runtime closes what was idle for 5 s; a second less leaves no race.
	idleMax = 4 * time.Second
	// trusted is how long an idle Unix connection is not asked whether it lives: a write to a closed
	// one fails with nothing sent, and the request is sent again.
	trusted = 100 * time.Millisecond
	// copied is the largest body that is copied behind its head, to be sent by one plain write.
	copied = 8 << 10
	// headBytes is the longest head of an answer: the runtime may be hostile (T7).
	headBytes = 256 << 10
	// dialTime bounds the wait for a runtime that does not take a new connection, and dialPause is
	// between two tries.
	dialTime  = 5 * time.Second
	dialPause = 2 * time.Millisecond
)

// pool holds the idle connections to the current target. It has one owner, the Relay.
type pool struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	max  int

	mu     sync.Mutex
	target Target
	idle   []*upstream // the latest used is last
	closed bool
}

// upstream is one connection to the runtime.
type upstream struct {
	net.Conn
	target Target
	reused bool
	usedAt time.Time
	in     *bufio.Reader
	out    []byte // for the next request; at most copied and a head

	headLeft int  // while a head is read: how much more of it there may be
	heard    bool // something arrived since the flag was last taken down

	// While watch is set it runs every so often, on the reading goroutine, whether anything arrives
	// or not: a runtime that dribbles must not hold whom a silent one lets go.
	watch func() error
	every time.Duration
}

var errLongHead = errors.New("the head of the answer is too long")

var errForeign = errors.New("the back end is not the runtime's process")

var errStaleTarget = errors.New("the back end belongs to an earlier launch")

// use makes t the target, unless a later launch is already; the connections to the old one die.
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

// get returns a connection to t: an idle one that still lives, or a new one. While it waits it asks
// look whether to go on.
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

// connect makes a new connection. A Unix socket whose queue of new ones is full refuses at once where
// TCP waits, so the waiting is done here.
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

// checkPeer refuses a new connection whose other end is not the runtime's process (R3): any program of the user
// can put a socket of its own in the place of the runtime's.
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

// put takes back a connection whose last answer was read to its end. It may lie idle for long: of the
// last call, whose text is private, it keeps nothing.
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

// zeros overwrites a buffer that is filled from it.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// listen makes f run every d while the answer is read. For d nothing that is written waits either.
func (u *upstream) listen(f func() error, d time.Duration) error {
	u.watch, u.every, u.heard = f, d, false
	return u.SetDeadline(time.Now().Add(d))
}

// Read keeps the watch below the buffered reader, so that no reader above ever sees a time-out. The
// deadline moves only with the watch, not with each read; and the watch runs when it has passed, not
// after what was read: there the events of all streams that came together would wait for it.
func (u *upstream) Read(b []byte) (int, error) {
	for {
		n, err := u.Conn.Read(b)
		u.heard = u.heard || n > 0
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
