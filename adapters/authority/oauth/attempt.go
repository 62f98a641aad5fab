package oauth

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/oauth2"

	"companion/messages"
)

// Attempt is one sign-in: one redirect listener, one state, one verifier, at most one callback. Its
// owner calls Wait once, then Close once.
type Attempt struct {
	client      *Client
	metadata    metadata
	clientID    string
	redirectURI string
	verifier    string
	want        expectation
	authorize   string // the authorization URL: holds state and challenge, so it is never handed out

	host         string // exact Host of the redirect listener
	startPath    string
	callbackPath string
	started      atomic.Bool
	until        time.Time // when Wait gives up

	answered  chan callback // capacity one: the first callback
	spent     atomic.Bool   // the state is good for one callback
	outcome   chan struct{} // closed by Close
	signedIn  bool          // readable once outcome is closed
	server    *http.Server
	serveDone chan struct{}
	closing   sync.Once
}

type callback struct {
	code   string
	reason messages.Reason
	detail string
}

// Grant is what a finished sign-in brings.
type Grant struct {
	Tokens
	Issuer   string
	ClientID string
}

// Begin fetches the metadata, binds the redirect listener and registers the client. On any error no
// listener is left and nothing was shown to the user (O2).
func (c *Client) Begin(ctx context.Context) (*Attempt, error) {
	m, err := c.discover(ctx)
	if err != nil {
		return nil, err
	}
	listener, err := listenLoopback(ctx, c.config.Loopback)
	if err != nil {
		return nil, &Error{Doing: "binding the redirect listener", Reason: messages.ReasonBindFailed, cause: err}
	}
	a := &Attempt{
		client:       c,
		metadata:     m,
		clientID:     c.config.ClientID,
		verifier:     oauth2.GenerateVerifier(),
		host:         listener.Addr().String(),
		startPath:    "/start/" + random(),
		callbackPath: "/callback",
		answered:     make(chan callback, 1),
		outcome:      make(chan struct{}),
		serveDone:    make(chan struct{}),
		until:        time.Now().Add(c.config.Timeout),
	}
	a.want = expectation{state: random(), issuer: m.Issuer, issRequired: c.config.FirstParty || m.IssInResponse}
	register := a.clientID == "" && m.Registration != ""
	if register {
		a.callbackPath += "/" + random()
	}
	a.redirectURI = "http://" + a.host + a.callbackPath
	switch {
	case register:
		a.clientID, err = c.register(ctx, m, a.redirectURI)
	case a.clientID == "":
		err = &Error{Doing: "registering with the hub", Reason: messages.ReasonRegistrationFailed,
			cause: fmt.Errorf("the hub offers no registration and no client id is configured")}
	}
	if err != nil {
		_ = listener.Close()
		return nil, err
	}
	config := oauth2.Config{
		ClientID:    a.clientID,
		Endpoint:    oauth2.Endpoint{AuthURL: m.Authorization},
		RedirectURL: a.redirectURI,
		Scopes:      []string{c.config.Scope},
	}
	a.authorize = config.AuthCodeURL(a.want.state, oauth2.S256ChallengeOption(a.verifier))
	a.serve(listener)
	return a, nil
}

// Page is what the user needs: the page on loopback that sends the browser on to the hub, and until when it works.
func (a *Attempt) Page() messages.LoginPage {
	return messages.LoginPage{URL: "http://" + a.host + a.startPath, Until: a.until}
}

// Wait waits for the callback and exchanges its code. It ends by the attempt's time-out with
// ReasonCallbackTimeout, and with ctx.
func (a *Attempt) Wait(ctx context.Context) (Grant, error) {
	const doing = "waiting for the browser"
	late := time.NewTimer(time.Until(a.until))
	defer late.Stop()
	var cb callback
	select {
	case cb = <-a.answered:
	case <-late.C:
		return Grant{}, &Error{Doing: doing, Reason: messages.ReasonCallbackTimeout}
	case <-ctx.Done():
		return Grant{}, &Error{Doing: doing, Reason: messages.ReasonCallbackTimeout, cause: context.Cause(ctx)}
	}
	if cb.reason != messages.ReasonOK {
		return Grant{}, &Error{Doing: doing, Reason: cb.reason, Detail: cb.detail}
	}
	t, err := a.client.exchange(ctx, a.metadata, a.clientID, a.redirectURI, cb.code, a.verifier)
	if err != nil {
		return Grant{}, err
	}
	return Grant{Tokens: t, Issuer: a.metadata.Issuer, ClientID: a.clientID}, nil
}

// Close shows the waiting browser whether sign-in worked, closes the listener and waits until all has
// ended. Only the first call counts.
func (a *Attempt) Close(signedIn bool) {
	a.closing.Do(func() {
		a.signedIn = signedIn
		close(a.outcome)
		// The page is a kilobyte to a browser on this machine; whoever reads slower loses it.
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := a.server.Shutdown(ctx); err != nil {
			_ = a.server.Close()
		}
		<-a.serveDone
	})
}

// listenLoopback binds a port that the system picks and requires that what was bound is the loopback
// literal asked for (O2).
func listenLoopback(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
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

// random returns 32 bytes of the system's random source, base64url (O5).
func random() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand crashes the program instead
	return base64.RawURLEncoding.EncodeToString(b)
}

func (a *Attempt) serve(listener net.Listener) {
	a.server = &http.Server{
		Handler:                      a,
		ReadTimeout:                  5 * time.Second,
		MaxHeaderBytes:               32 << 10,
		ErrorLog:                     discard,
		DisableGeneralOptionsHandler: true,
	}
	a.server.SetKeepAlivesEnabled(false)
	go func() {
		defer close(a.serveDone)
		_ = a.server.Serve(netutil.LimitListener(listener, maxConnections))
	}()
}

// ServeHTTP answers the start page and the callback, and refuses everything else without ending the
// attempt (O3).
func (a *Attempt) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())
	if status := refusal(r, a.host, a.startPath, a.callbackPath); status != 0 {
		if status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", http.MethodGet)
		}
		http.Error(w, strconv.Itoa(status)+" "+http.StatusText(status), status)
		return
	}
	if r.URL.Path == a.startPath {
		a.start(w)
		return
	}
	q, ok := parameters(r.URL.RawQuery)
	if !ok {
		http.Error(w, "400 "+http.StatusText(http.StatusBadRequest), http.StatusBadRequest)
		return
	}
	if !a.spent.CompareAndSwap(false, true) {
		page(w, http.StatusGone, usedPage)
		return
	}
	var cb callback
	cb.code, cb.reason, cb.detail = checkCallback(q, a.want)
	a.answered <- cb
	select {
	case <-a.outcome:
	case <-r.Context().Done():
		return
	}
	if a.signedIn {
		page(w, http.StatusOK, signedInPage)
		return
	}
	page(w, http.StatusBadRequest, failedPage)
}

func (a *Attempt) start(w http.ResponseWriter) {
	if !a.started.CompareAndSwap(false, true) {
		page(w, http.StatusGone, usedPage)
		return
	}
	w.Header().Set("Location", a.authorize)
	w.WriteHeader(http.StatusFound)
}
