package wire

import (
	"net"
	"net/http"
	"sync"
)

// Listener bounds the number of connections: when all places are taken, the connection that has
// been idle longest makes room for a new one; when none is idle, the new one is closed (L9). A
// connection is idle until its next head is complete.
type Listener struct {
	net.Listener
	limits Limits
	max    int

	mu    sync.Mutex
	conns map[*Conn]struct{}
	idle  idleNode // ring: next is the longest idle, prev the latest

	served sync.WaitGroup // connections that net/http still serves
}

// idleNode links the idle connections; guarded by Listener.mu.
type idleNode struct {
	prev, next *idleNode
	conn       *Conn
}

// Listen wraps l. The caller gives ConnState and Context to its http.Server.
func Listen(l net.Listener, maxConns int, limits Limits) *Listener {
	w := &Listener{Listener: l, limits: limits, max: maxConns, conns: map[*Conn]struct{}{}}
	w.idle.prev, w.idle.next = &w.idle, &w.idle
	return w
}

// Accept waits for the next connection that has a place.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &Conn{Conn: raw, limits: l.limits, onClose: l.forget}
		c.idle.conn = c
		c.bind(l.limits.HeadTime) // a connection that says nothing is no client
		if l.place(c) {
			l.served.Add(1)
			return c, nil
		}
		_ = raw.Close()
	}
}

func (l *Listener) place(c *Conn) bool {
	l.mu.Lock()
	var evicted *Conn
	full := len(l.conns) >= l.max
	if full {
		if evicted = l.idle.next.conn; evicted == nil {
			l.mu.Unlock()
			return false
		}
		l.forgetLocked(evicted)
	}
	l.conns[c] = struct{}{}
	l.idleLocked(c)
	l.mu.Unlock()
	if evicted != nil {
		_ = evicted.Kill()
	}
	return true
}

// ConnState is for http.Server.ConnState.
func (l *Listener) ConnState(nc net.Conn, s http.ConnState) {
	c, ok := nc.(*Conn)
	if !ok {
		return
	}
	if s == http.StateClosed {
		l.served.Done()
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, mine := l.conns[c]; !mine {
		return
	}
	switch s {
	case http.StateActive:
		unlink(&c.idle)
	case http.StateIdle:
		l.idleLocked(c)
	}
}

// Count is the number of open connections.
func (l *Listener) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// Wait returns when every connection's handlers have ended. Call it after http.Server.Serve returned.
func (l *Listener) Wait() { l.served.Wait() }

// KillAll ends every connection at once.
func (l *Listener) KillAll() {
	l.mu.Lock()
	conns := make([]*Conn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	for _, c := range conns {
		_ = c.Kill()
	}
}

func (l *Listener) forget(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgetLocked(c)
}

func (l *Listener) forgetLocked(c *Conn) {
	delete(l.conns, c)
	unlink(&c.idle)
}

func (l *Listener) idleLocked(c *Conn) {
	unlink(&c.idle)
	n, last := &c.idle, l.idle.prev
	n.prev, n.next = last, &l.idle
	last.next, l.idle.prev = n, n
}

func unlink(n *idleNode) {
	if n.next != nil {
		n.prev.next, n.next.prev = n.next, n.prev
		n.prev, n.next = nil, nil
	}
}
