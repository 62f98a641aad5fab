package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thejerf/suture/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"companion/actors/actorkit"
	"companion/adapters/authority/oauth"
	"companion/adapters/authority/sessionnote"
	"companion/messages"
)

const (
	issuer = "https://hub.example/api/v1/auth/native"
	life   = 15 * time.Minute
)

// fakeHub rotates tokens like the real hub, detects reuse, and has faults that a test sets.
type fakeHub struct {
	mu           sync.Mutex
	oauth        *oauth.Client // decides
	serial       int
	good         map[string]bool // by refresh token: false after use or revocation
	running      int
	most         int // highest number of concurrent refreshes
	refreshes    int
	reused       int
	revoked      []string
	fault        func() error  // of Refresh, before the rotation
	lose         bool          // rotate, then lose the answer
	took         time.Duration // how long a refresh takes
	scope        string        // in the hub's answers
	noRevoke     bool          // the revocation endpoint cannot be reached
	refuseRevoke bool          // the revocation endpoint answers with an error code
	whoAmI       func(access string) (messages.User, error)
	callback     chan error // the result of Wait; nil is success
	began        int
	device       int
	pause        chan struct{} // if not nil, Decide waits until it is closed
	closed       []bool
}

func newFakeHub(t *testing.T) *fakeHub {
	c, err := oauth.New(oauth.Config{Issuer: issuer, SessionURL: "https://hub.example/session"})
	if err != nil {
		t.Fatal(err)
	}
	return &fakeHub{oauth: c, scope: "vault:read", good: map[string]bool{}, callback: make(chan error, 1)}
}

func (h *fakeHub) Decide(s messages.Session, now time.Time) messages.Reason {
	h.mu.Lock()
	pause := h.pause
	h.mu.Unlock()
	if pause != nil {
		<-pause
	}
	return h.oauth.Decide(s, now)
}

func (h *fakeHub) Issued(s messages.Session) bool { return h.oauth.Issued(s) }

func (h *fakeHub) issue() oauth.Tokens {
	h.serial++
	refresh := fmt.Sprintf("refresh-%d", h.serial)
	h.good[refresh] = true
	return oauth.Tokens{
		Access: messages.NewSecret(fmt.Sprintf("access-%d", h.serial)), Refresh: messages.NewSecret(refresh),
		Issued: time.Now().Round(0), Expires: time.Now().Round(0).Add(life), Scope: h.scope,
	}
}

func (h *fakeHub) Refresh(ctx context.Context, _ string, refresh messages.Secret, sending func() error) (oauth.Tokens, error) {
	if err := sending(); err != nil {
		return oauth.Tokens{}, &oauth.Error{Reason: messages.ReasonInternalError, Retry: oauth.RetryLater}
	}
	h.mu.Lock()
	h.refreshes++
	h.running++
	h.most = max(h.most, h.running)
	took := h.took
	h.mu.Unlock()
	defer func() { h.mu.Lock(); h.running--; h.mu.Unlock() }()
	select {
	case <-time.After(took):
	case <-ctx.Done():
		return oauth.Tokens{}, &oauth.Error{Reason: messages.ReasonTokenExchangeFailed, Retry: oauth.RetryUnsafe}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fault != nil {
		if err := h.fault(); err != nil {
			return oauth.Tokens{}, err
		}
	}
	if !h.good[refresh.Reveal()] {
		h.reused++
		return oauth.Tokens{}, &oauth.Error{Reason: messages.ReasonTokenExchangeFailed, Detail: "invalid_grant"}
	}
	h.good[refresh.Reveal()] = false
	t := h.issue()
	if h.lose {
		return oauth.Tokens{}, &oauth.Error{Reason: messages.ReasonTokenExchangeFailed, Retry: oauth.RetryUnsafe}
	}
	return t, nil
}

func (h *fakeHub) Revoke(_ context.Context, _ string, refresh messages.Secret) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.noRevoke {
		return &oauth.Error{Reason: messages.ReasonTokenExchangeFailed, Retry: oauth.RetryLater}
	}
	if h.refuseRevoke {
		return &oauth.Error{Reason: messages.ReasonTokenExchangeFailed, Detail: "invalid_client"}
	}
	h.revoked = append(h.revoked, refresh.Reveal())
	h.good[refresh.Reveal()] = false
	return nil
}

func (h *fakeHub) WhoAmI(_ context.Context, access messages.Secret) (messages.User, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.whoAmI != nil {
		return h.whoAmI(access.Reveal())
	}
	return messages.User{Subject: "s", Name: "Ada"}, nil
}

func (h *fakeHub) Begin(context.Context) (Attempt, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.began++
	return &fakeAttempt{h}, nil
}

func (h *fakeHub) BeginDevice(ctx context.Context) (Attempt, error) {
	h.mu.Lock()
	h.device++
	h.mu.Unlock()
	return h.Begin(ctx)
}

type fakeAttempt struct{ hub *fakeHub }

func (a *fakeAttempt) Page() messages.LoginPage {
	return messages.LoginPage{URL: "http://127.0.0.1:1/start/x"}
}

func (a *fakeAttempt) Wait(ctx context.Context) (oauth.Grant, error) {
	select {
	case err := <-a.hub.callback:
		if err != nil {
			return oauth.Grant{}, err
		}
		a.hub.mu.Lock()
		defer a.hub.mu.Unlock()
		return oauth.Grant{Tokens: a.hub.issue(), Issuer: issuer, ClientID: "c"}, nil
	case <-time.After(2 * time.Minute):
		return oauth.Grant{}, &oauth.Error{Reason: messages.ReasonCallbackTimeout}
	case <-ctx.Done():
		return oauth.Grant{}, &oauth.Error{Reason: messages.ReasonCallbackTimeout}
	}
}

func (a *fakeAttempt) Close(signedIn bool) {
	a.hub.mu.Lock()
	defer a.hub.mu.Unlock()
	a.hub.closed = append(a.hub.closed, signedIn)
}

// harness is the actor, a fake custody with faults that a test sets, and the mailboxes of the other actors.
type harness struct {
	hub      *fakeHub
	actor    *Actor
	commands chan messages.SessionCommand
	tokens   chan messages.AccessTokenRequest
	manifest chan messages.ManifestCommand
	view     *actorkit.Watch[messages.SessionView]
	logs     *observer.ObservedLogs

	changed *actorkit.Watch[int]
	stop    func() // ends the actor
	cut     func() // after it, no write reaches disk or keychain
	notes   *fakeNotes

	mu     sync.Mutex
	kept   messages.LoadedSession
	places [messages.PendingRevocations]messages.Secret
	left   *int            // writes before the process is killed; nil is never
	full   bool            // no revocation can be stored
	reason messages.Reason // of custody, ReasonOK unless set
	intact bool            // a failed store changes nothing
	stores int
	loads  int
	asks   int // messages that allow a dialog
}

// fakeNotes is a note in memory, with faults that a test sets.
type fakeNotes struct {
	mu     sync.Mutex
	note   sessionnote.Note
	broken bool // cannot be written
	unread bool // cannot be read
}

func (n *fakeNotes) Read() (sessionnote.Note, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.unread {
		return sessionnote.Note{}, errors.New("input/output error")
	}
	return n.note, nil
}

func (n *fakeNotes) Write(note sessionnote.Note) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.broken {
		return errors.New("no space left on device")
	}
	n.note, n.unread = note, false
	return nil
}

func (n *fakeNotes) get() sessionnote.Note { note, _ := n.Read(); return note }

func newHarness(t *testing.T) *harness {
	h := &harness{hub: newFakeHub(t), notes: &fakeNotes{}, reason: messages.ReasonOK, kept: messages.LoadedSession{Reason: messages.ReasonOK}}
	h.assemble(t.Context())
	return h
}

// assemble makes the actor and the fake actors around the hub, notes and keychain of h.
func (h *harness) assemble(ctx context.Context) {
	core, logs := observer.New(zap.DebugLevel)
	h.logs = logs
	h.commands, h.tokens = make(chan messages.SessionCommand, 8), make(chan messages.AccessTokenRequest, 8)
	h.manifest = make(chan messages.ManifestCommand, 1000)
	h.view, h.changed = actorkit.NewWatch(messages.SessionView{}), actorkit.NewWatch(0)
	custody := make(chan messages.ToCustody)
	ctx, h.cut = context.WithCancel(ctx)
	go h.custody(ctx, custody)
	h.actor = New(Deps{
		Inbox: h.commands, Tokens: h.tokens, Custody: custody, Manifest: h.manifest,
		Lifecycle: make(chan messages.ToLifecycle, 100), Hub: h.hub, View: h.view, Notes: notesUntil{h.notes, ctx, h}, KeychainChanged: h.changed,
		Log: zap.New(core),
	})
}

// notesUntil is a disk that accepts no write after the simulated kill of the process.
type notesUntil struct {
	*fakeNotes
	ctx     context.Context
	harness *harness
}

func (n notesUntil) Write(note sessionnote.Note) error {
	if n.ctx.Err() != nil {
		return n.ctx.Err()
	}
	n.harness.mu.Lock()
	passes := n.harness.wrote()
	n.harness.mu.Unlock()
	if !passes {
		<-n.ctx.Done() // the process has been killed
		return n.ctx.Err()
	}
	return n.fakeNotes.Write(note)
}

func (h *harness) custody(ctx context.Context, box <-chan messages.ToCustody) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-box:
			h.mu.Lock()
			switch m := m.(type) {
			case messages.LoadSession:
				h.loads++
				h.count(m.Ask)
				answer := h.kept
				if h.reason != messages.ReasonOK {
					answer = messages.LoadedSession{Reason: h.reason}
				}
				m.Reply <- answer
			case messages.StoreSession:
				if !h.wrote() {
					break
				}
				h.stores++
				h.count(m.Ask)
				if !h.intact {
					h.kept = messages.LoadedSession{Reason: messages.ReasonOK}
				}
				if h.reason == messages.ReasonOK {
					h.kept = messages.LoadedSession{Session: m.Session, Found: true, Reason: messages.ReasonOK}
				}
				m.Reply <- h.reason
			case messages.ClearSession:
				if !h.wrote() {
					break
				}
				h.count(m.Ask)
				if h.reason == messages.ReasonOK {
					h.kept = messages.LoadedSession{Reason: messages.ReasonOK}
				}
				m.Reply <- h.reason
			case messages.LoadRevocation:
				answer := messages.LoadedRevocation{Reason: h.reason}
				if h.reason == messages.ReasonOK {
					answer.Token = h.places[m.Place]
				}
				m.Reply <- answer
			case messages.StoreRevocation:
				if !h.wrote() {
					break
				}
				m.Reply <- h.setPlace(m.Place, m.Token)
			case messages.ClearRevocation:
				if !h.wrote() {
					break
				}
				m.Reply <- h.setPlace(m.Place, messages.Secret{})
			}
			h.mu.Unlock()
		}
	}
}

func (h *harness) count(ask bool) {
	if ask {
		h.asks++
	}
}

// signedIn puts a session into custody whose access token expires after left.
func (h *harness) signedIn(left time.Duration) {
	t := h.hub.issue()
	h.kept = messages.LoadedSession{Found: true, Reason: messages.ReasonOK, Session: messages.Session{
		AccessToken: t.Access, RefreshToken: t.Refresh,
		Meta: messages.SessionMeta{Issuer: issuer, ClientID: "c", AccessExpires: time.Now().Add(left), User: messages.User{Name: "Ada"}},
	}}
}

func (h *harness) breakCustody(r messages.Reason) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reason = r
}

// change sets a fault of the hub while the actor runs.
func (h *harness) change(set func(*fakeHub)) {
	h.hub.mu.Lock()
	defer h.hub.mu.Unlock()
	set(h.hub)
}

func (h *harness) revoked() []string {
	h.hub.mu.Lock()
	defer h.hub.mu.Unlock()
	return slices.Clone(h.hub.revoked)
}

func (h *harness) refreshes() int {
	h.hub.mu.Lock()
	defer h.hub.mu.Unlock()
	return h.hub.refreshes
}

func (h *harness) stored() messages.LoadedSession {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kept
}

func (h *harness) start(t *testing.T) {
	s := suture.New("test", suture.Spec{FailureBackoff: time.Second, EventHook: func(suture.Event) {}})
	s.Add(h.actor)
	ctx, cancel := context.WithCancel(t.Context())
	done := s.ServeBackground(ctx)
	h.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(h.stop)
	synctest.Wait()
}

func (h *harness) token() messages.AccessToken {
	reply := make(chan messages.AccessToken, 1)
	h.tokens <- messages.AccessTokenRequest{Reply: reply}
	return <-reply
}

func (h *harness) logout() messages.Reason {
	reply := make(chan messages.LogoutResult, 1)
	h.commands <- messages.Logout{Reply: reply}
	return (<-reply).Reason
}

func (h *harness) logoutResult() messages.LogoutResult {
	reply := make(chan messages.LogoutResult, 1)
	h.commands <- messages.Logout{Reply: reply}
	return <-reply
}

func (h *harness) login() (page chan messages.LoginPage, done chan messages.LoginResult, cancel context.CancelFunc) {
	page, done = make(chan messages.LoginPage, 1), make(chan messages.LoginResult, 1)
	ctx, cancel := context.WithCancel(context.Background())
	h.commands <- messages.Login{Page: page, Done: done, Cancelled: ctx.Done()}
	return page, done, cancel
}

func (h *harness) wantView(t *testing.T, state messages.SessionState, reason messages.Reason) {
	t.Helper()
	synctest.Wait()
	if v := h.view.Get(); v.State != state || v.Reason != reason {
		t.Fatalf("view: got %+v, want %s %s", v, state, reason)
	}
}

func wantToken(t *testing.T, got messages.AccessToken, token string, reason messages.Reason) {
	t.Helper()
	if got.Token.Reveal() != token || got.Reason != reason {
		t.Fatalf("token: got %q %s, want %q %s", got.Token.Reveal(), got.Reason, token, reason)
	}
}
