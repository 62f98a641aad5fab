package http1

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"companion/adapters/lowlatency"
)

// Server serves one listener. When the limit of connections is reached, a new connection evicts the one that
// has been idle longest; if none is idle, the new one is closed (L9). A connection is idle until its next
// head is complete.
type Server struct {
	// Panicked, if set before Serve, is called with the value of a panic in a handler or in the server, on
	// the stack of the panic. It is not called for http.ErrAbortHandler, by which a handler closes its
	// connection. The connection is closed in any case.
	Panicked func(value any)

	listener net.Listener
	handler  http.Handler
	limits   Limits
	max      int
	base     context.Context

	served sync.WaitGroup // one goroutine per connection

	mu      sync.Mutex
	conns   map[*Conn]struct{}
	idle    idleNode // ring: next has been idle longest, prev shortest
	closing bool
}

// idleNode links the idle connections. Server.mu guards it.
type idleNode struct {
	prev, next *idleNode
	conn       *Conn
}

// New returns a server for l. base is the parent of the requests' contexts.
func New(base context.Context, l net.Listener, h http.Handler, maxConns int, limits Limits) *Server {
	s := &Server{listener: l, handler: h, limits: limits, max: maxConns, base: base, conns: map[*Conn]struct{}{}}
	s.idle.prev, s.idle.next = &s.idle, &s.idle
	return s
}

// Serve accepts connections until the listener is closed.
func (s *Server) Serve() error {
	pause := time.Duration(0)
	for {
		raw, err := s.listener.Accept()
		if err != nil {
			var temporary interface{ Temporary() bool } // for example: too many open files
			if !errors.As(err, &temporary) || !temporary.Temporary() {
				return fmt.Errorf("accepting connections: %w", err)
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(pause):
			case <-s.base.Done():
			}
			continue
		}
		pause = 0
		if c := newConn(lowlatency.Conn(raw), s); s.place(c) {
			go func() {
				defer s.served.Done()
				defer s.contain(c)
				c.serve(s.handler)
			}()
		} else {
			c.cancel()
			_ = raw.Close()
		}
	}
}

// contain recovers a panic of the goroutine that serves c.
func (s *Server) contain(c *Conn) {
	value := recover()
	if value == nil {
		return
	}
	c.Kill()
	err, _ := value.(error)
	if s.Panicked != nil && !errors.Is(err, http.ErrAbortHandler) {
		s.Panicked(value)
	}
}

// Serves reports whether the server has an open connection from client to server. Both ends count: a client has one address
// for connections to several servers.
func (s *Server) Serves(client, server netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !client.IsValid() || !server.IsValid() {
		return false
	}
	for c := range s.conns {
		if addrPort(c.raw.RemoteAddr()) == client && addrPort(c.raw.LocalAddr()) == server {
			return true
		}
	}
	return false
}

// addrPort is the address of one end of a TCP connection; the zero AddrPort for another kind, which equals none.
func addrPort(end net.Addr) netip.AddrPort {
	tcp, ok := end.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	at := tcp.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// Shutdown closes the listener and the idle connections, closes the others when ctx ends, and returns when
// every handler has returned.
func (s *Server) Shutdown(ctx context.Context) {
	s.mu.Lock()
	s.closing = true
	_ = s.listener.Close()
	var idle []*Conn
	for n := s.idle.next; n != &s.idle; n = n.next {
		idle = append(idle, n.conn)
	}
	s.mu.Unlock()
	for _, c := range idle {
		c.Kill()
	}
	stop := context.AfterFunc(ctx, s.killAll)
	s.served.Wait()
	stop()
}

func (s *Server) killAll() {
	s.mu.Lock()
	conns := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.Kill()
	}
}

// place registers c, if there is room or an idle connection to evict.
func (s *Server) place(c *Conn) bool {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return false
	}
	var evicted *Conn
	if len(s.conns) >= s.max {
		if evicted = s.idle.next.conn; evicted == nil {
			s.mu.Unlock()
			return false
		}
		s.forgetLocked(evicted)
	}
	s.conns[c] = struct{}{}
	s.linkLocked(c)
	s.served.Add(1)
	s.mu.Unlock()
	if evicted != nil {
		evicted.Kill()
	}
	return true
}

// busy removes c from the idle connections. It returns false when c has been evicted.
func (s *Server) busy(c *Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, here := s.conns[c]; !here {
		return false
	}
	unlink(&c.idle)
	return true
}

// idles adds c to the idle connections. It returns false when the server is closing.
func (s *Server) idles(c *Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, here := s.conns[c]; !here || s.closing {
		return false
	}
	s.linkLocked(c)
	return true
}

func (s *Server) forget(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetLocked(c)
}

func (s *Server) forgetLocked(c *Conn) {
	delete(s.conns, c)
	unlink(&c.idle)
}

func (s *Server) linkLocked(c *Conn) {
	unlink(&c.idle)
	n, last := &c.idle, s.idle.prev
	n.prev, n.next = last, &s.idle
	last.next, s.idle.prev = n, n
}

func unlink(n *idleNode) {
	if n.next != nil {
		n.prev.next, n.next.prev = n.next, n.prev
		n.prev, n.next = nil, nil
	}
}
