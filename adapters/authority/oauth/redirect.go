package oauth

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"companion/adapters/peer"
)

// Bounds of the redirect listener.
const (
	// maxConnections bounds the open connections of the redirect listener. A browser needs two or three.
	maxConnections = 512
	// readWithin bounds reading one request.
	readWithin = 5 * time.Second
	// showWithin bounds writing one page, to a browser on this machine.
	showWithin = 2 * time.Second
)

// listenLoopback binds a port that the system chooses, and checks that the bound address is the requested loopback literal
// (O2).
func listenLoopback(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // foreign asks about one connection
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, err
	}
	bound, ok := listener.Addr().(*net.TCPAddr)
	if !ok || !bound.IP.Equal(net.ParseIP(address)) || bound.Port == 0 || bound.Zone != "" {
		_ = listener.Close()
		return nil, fmt.Errorf("bound %s instead of %s", listener.Addr(), address)
	}
	return listener, nil
}

// crowd is a listener that accepts every connection. When it has limit connections, it closes the oldest one whose request has
// not been read yet, so that idle connections of another process do not block the user's browser.
type crowd struct {
	net.Listener
	limit int

	mu   sync.Mutex
	held []*guest // oldest first
}

type guest struct {
	net.Conn
	crowd  *crowd
	served bool // a handler has read its request; guarded by crowd.mu
}

// Accept implements net.Listener.
func (c *crowd) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g := &guest{Conn: conn, crowd: c}
	c.mu.Lock()
	var leaves *guest
	if len(c.held) >= c.limit {
		leaves = c.held[0] // every connection is being served: close the oldest
		for _, held := range c.held {
			if !held.served {
				leaves = held
				break
			}
		}
	}
	c.held = append(c.held, g)
	c.mu.Unlock()
	if leaves != nil {
		_ = leaves.Close()
	}
	return g, nil
}

// Close implements net.Conn.
func (g *guest) Close() error {
	c := g.crowd
	c.mu.Lock()
	for i, held := range c.held {
		if held == g {
			c.held = append(c.held[:i], c.held[i+1:]...)
			break
		}
	}
	c.mu.Unlock()
	return g.Conn.Close()
}

type guestKey struct{}

// serve answers requests until Close.
func (a *Attempt) serve(listener net.Listener) {
	a.server = &http.Server{
		Handler:                      a,
		ReadTimeout:                  readWithin,
		MaxHeaderBytes:               32 << 10,
		ErrorLog:                     discard,
		DisableGeneralOptionsHandler: true,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, guestKey{}, conn)
		},
	}
	a.server.SetKeepAlivesEnabled(false)
	a.serving.Go(func() { _ = a.server.Serve(&crowd{Listener: listener, limit: maxConnections}) })
}

// ServeHTTP answers the start page and the callback, and refuses everything else without ending the attempt (O3).
func (a *Attempt) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !a.enter() {
		return // the connection is closed
	}
	defer a.serving.Done()
	if g, ok := r.Context().Value(guestKey{}).(*guest); ok {
		g.crowd.mu.Lock()
		g.served = true
		g.crowd.mu.Unlock()
	}
	secure(w.Header())
	if status := refusal(r, a.host, a.startPath, a.callbackPath); status != 0 {
		if status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", http.MethodGet)
		}
		http.Error(w, strconv.Itoa(status)+" "+http.StatusText(status), status)
		return
	}
	if r.URL.Path == a.startPath {
		if foreign(r) {
			page(w, http.StatusForbidden, foreignPage)
			return
		}
		a.start(w)
		return
	}
	q, ok := parameters(r.URL.RawQuery)
	if !ok {
		http.Error(w, "400 "+http.StatusText(http.StatusBadRequest), http.StatusBadRequest)
		return
	}
	cb := checkCallback(q, a.want)
	if cb.ours && foreign(r) {
		page(w, http.StatusForbidden, foreignPage)
		return
	}
	a.callback(w, r, cb)
}

// foreign reports whether another user of this machine sent r. The start page's address is an argument of the browser's process,
// which every user can read. Another user who opens it could sign this user in with another account. Root is allowed: nothing keeps it
// out, and some SSH servers forward connections as root. Where the system does not tell the user, r is not foreign.
func foreign(r *http.Request) bool {
	g, ok := r.Context().Value(guestKey{}).(*guest)
	if !ok {
		return true
	}
	uid, err := peer.Owner(g.Conn)
	return strange(uid, err, os.Geteuid())
}

// strange judges the answer of peer.Owner for the user self.
func strange(uid int, err error, self int) bool {
	if err != nil {
		return !errors.Is(err, errors.ErrUnsupported)
	}
	return uid != self && uid != 0
}

// enter counts a handler that Close waits for. It reports false if the attempt is closing: a count that rises from zero while
// Close waits makes the sync.WaitGroup panic.
func (a *Attempt) enter() bool {
	a.gate.Lock()
	defer a.gate.Unlock()
	if !a.closed {
		a.serving.Add(1)
	}
	return !a.closed
}

// start redirects the browser to the hub, for every request until the callback has arrived: a link preview, a prefetch or a
// closed tab does not use up the page.
func (a *Attempt) start(w http.ResponseWriter) {
	if a.spent.Load() {
		page(w, http.StatusGone, usedPage)
		return
	}
	w.Header().Set("Location", a.authorize)
	w.WriteHeader(http.StatusFound)
}

// callback ends the attempt if cb has the attempt's state. A callback without it is recorded for the time-out, and the attempt
// goes on (RFC 6749 sections 4.1.2.1 and 10.12).
func (a *Attempt) callback(w http.ResponseWriter, r *http.Request, cb callback) {
	if !cb.ours {
		a.stray.Store(&cb)
		page(w, http.StatusBadRequest, strayPage)
		return
	}
	if !a.spent.CompareAndSwap(false, true) {
		page(w, http.StatusGone, usedPage)
		return
	}
	defer close(a.shown)
	a.answered <- cb
	select {
	case <-a.outcome:
	case <-r.Context().Done():
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(showWithin))
	if a.signedIn {
		page(w, http.StatusOK, signedInPage)
	} else {
		page(w, http.StatusBadRequest, failedPage)
	}
}

// Close shows the result in the waiting browser, closes the listener and every connection, and waits up to two seconds until
// all goroutines of the attempt have ended. Later calls do nothing.
func (a *Attempt) Close(signedIn bool) {
	a.closing.Do(func() {
		a.signedIn = signedIn
		close(a.outcome)
		if a.spent.Load() {
			late := time.NewTimer(showWithin)
			defer late.Stop()
			select {
			case <-a.shown:
			case <-late.C:
			}
		}
		_ = a.server.Close()
		a.gate.Lock()
		a.closed = true
		a.gate.Unlock()
		a.serving.Wait()
	})
}
