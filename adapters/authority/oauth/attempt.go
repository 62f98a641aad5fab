package oauth

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"companion/messages"
)

// Attempt is one sign-in in a browser, with one redirect listener, one state, one verifier and at most one callback. Its owner
// calls Wait once, then Close once.
type Attempt struct {
	client      *Client
	metadata    metadata
	clientID    string
	redirectURI string
	verifier    string
	want        expectation
	authorize   string    // the authorization URL: it contains state and challenge, so no caller gets it
	until       time.Time // deadline of Wait

	host         string // exact Host of the redirect listener
	startPath    string
	callbackPath string

	answered chan callback            // capacity one: the callback with the right state
	stray    atomic.Pointer[callback] // the last callback with another state
	spent    atomic.Bool              // the callback with the state has arrived
	outcome  chan struct{}            // closed by Close
	shown    chan struct{}            // closed when the browser has received its last page
	signedIn bool                     // readable once outcome is closed
	server   *http.Server
	serving  sync.WaitGroup
	gate     sync.Mutex // no handler joins serving once closed is set
	closed   bool
	closing  sync.Once
}

// callback is a request to the callback path. The code is empty unless the reason is ReasonOK.
type callback struct {
	ours   bool // it carries the attempt's state
	code   string
	reason messages.Reason
	detail string
}

// Grant is the result of a finished sign-in.
type Grant struct {
	Tokens
	Issuer   string
	ClientID string
}

// Begin fetches the metadata, binds the redirect listener and registers the client. After an error the listener is closed and
// the user has seen nothing (O2).
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
		until:        time.Now().Add(c.config.Timeout),
		host:         listener.Addr().String(),
		startPath:    "/start/" + random(),
		callbackPath: "/callback",
		answered:     make(chan callback, 1),
		outcome:      make(chan struct{}),
		shown:        make(chan struct{}),
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
		err = errNoClient
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

var errNoClient = &Error{
	Doing: "registering with the hub", Reason: messages.ReasonRegistrationFailed,
	cause: errors.New("the hub offers no registration and no client id is configured"),
}

// Page returns the start page on loopback, which redirects the browser to the hub, and its deadline.
func (a *Attempt) Page() messages.LoginPage {
	return messages.LoginPage{URL: "http://" + a.host + a.startPath, Until: a.until}
}

// Wait waits for the callback and exchanges its code. It ends with ctx. At the attempt's time-out the reason is
// ReasonCallbackTimeout, or the reason of the last callback that did not belong to the attempt.
func (a *Attempt) Wait(ctx context.Context) (Grant, error) {
	const doing = "waiting for the browser"
	late := time.NewTimer(time.Until(a.until))
	defer late.Stop()
	var cb callback
	select {
	case cb = <-a.answered:
	case <-late.C:
		if stray := a.stray.Load(); stray != nil {
			return Grant{}, &Error{Doing: doing, Reason: stray.reason, Detail: stray.detail}
		}
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

// random returns 32 bytes from the system's random source in base64url (O5).
func random() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand crashes the program instead
	return base64.RawURLEncoding.EncodeToString(b)
}
