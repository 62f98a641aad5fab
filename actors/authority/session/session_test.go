package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"companion/actors/mailbox"
	"companion/adapters/authority/oauth"
	"companion/messages"

	"github.com/thejerf/suture/v4"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	issuer = "https://hub.example/api/v1/auth/native"
	life   = 15 * time.Minute
)

// fakeHub rotates tokens as the real one does, notices reuse, and has faults that a test sets.
type fakeHub struct {
	mu        sync.Mutex
	oauth     *oauth.Client // decides
	serial    int
	good      map[string]bool // by refresh token: false once it was spent or revoked
	running   int
	most      int // refreshes that ran at once
	refreshes int
	reused    int
	revoked   []string
	fault     func() error  // of Refresh, before anything is rotated
	lose      bool          // rotate, then lose the answer
	took      time.Duration // how long a refresh takes
	whoAmI    func(access string) (messages.User, error)
	callback  chan error // what the browser brings to Wait; nil is success
	began     int
	closed    []bool
}

func newFakeHub(t *testing.T) *fakeHub {
	c, err := oauth.New(oauth.Config{Issuer: issuer, SessionURL: "https://hub.example/session"})
	if err != nil {
		t.Fatal(err)
	}
	return &fakeHub{oauth: c, good: map[string]bool{}, callback: make(chan error, 1)}
}

func (h *fakeHub) Decide(s messages.Session, now time.Time) messages.Reason {
	return h.oauth.Decide(s, now)
}

func (h *fakeHub) issue() oauth.Tokens {
	h.serial++
	refresh := fmt.Sprintf("refresh-%d", h.serial)
	h.good[refresh] = true
	return oauth.Tokens{
		Access: messages.NewSecret(fmt.Sprintf("access-%d", h.serial)), Refresh: messages.NewSecret(refresh),
		Expires: time.Now().Add(life), Scope: "vault:read",
	}
}

func (h *fakeHub) Refresh(ctx context.Context, _ string, refresh messages.Secret) (oauth.Tokens, error) {
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

type fakeAttempt struct{ hub *fakeHub }

func (a *fakeAttempt) StartURL() string { return "http://127.0.0.1:1/start/x" }

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

// house is the actor, a custody that a test can break, and the mailboxes of the others.
type house struct {
	hub      *fakeHub
	actor    *Actor
	commands chan messages.SessionCommand
	tokens   chan messages.AccessTokenRequest
	manifest chan messages.ManifestCommand
	view     *mailbox.Watch[messages.SessionView]
	logs     *observer.ObservedLogs
	opened   chan string
	openErr  error

	mu     sync.Mutex
	kept   messages.LoadedSession
	reason messages.Reason // of custody, ReasonOK unless set
	stores int
}

func newHouse(t *testing.T) *house {
	core, logs := observer.New(zap.DebugLevel)
	h := &house{
		hub: newFakeHub(t), commands: make(chan messages.SessionCommand, 8), tokens: make(chan messages.AccessTokenRequest, 8),
		manifest: make(chan messages.ManifestCommand, 100), logs: logs, opened: make(chan string, 8),
		view: mailbox.NewWatch(messages.SessionView{}), reason: messages.ReasonOK,
		kept: messages.LoadedSession{Reason: messages.ReasonOK},
	}
	custody := make(chan messages.ToCustody)
	go h.custody(t.Context(), custody)
	h.actor = New(Deps{
		Mailbox: h.commands, Tokens: h.tokens, Custody: custody, Manifest: h.manifest,
		Lifecycle: make(chan messages.ToLifecycle, 100), Hub: h.hub, View: h.view, Log: zap.New(core),
		OpenBrowser: func(_ context.Context, url string) error { h.opened <- url; return h.openErr },
	})
	return h
}

func (h *house) custody(ctx context.Context, box <-chan messages.ToCustody) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-box:
			h.mu.Lock()
			switch m := m.(type) {
			case messages.LoadSession:
				answer := h.kept
				if h.reason != messages.ReasonOK {
					answer = messages.LoadedSession{Reason: h.reason}
				}
				m.Reply <- answer
			case messages.StoreSession:
				h.stores++
				h.kept = messages.LoadedSession{Reason: messages.ReasonOK}
				if h.reason == messages.ReasonOK {
					h.kept = messages.LoadedSession{Session: m.Session, Found: true, Reason: messages.ReasonOK}
				}
				m.Reply <- h.reason
			case messages.ClearSession:
				if h.reason == messages.ReasonOK {
					h.kept = messages.LoadedSession{Reason: messages.ReasonOK}
				}
				m.Reply <- h.reason
			}
			h.mu.Unlock()
		}
	}
}

// signedIn puts a session into custody whose access token lives for left.
func (h *house) signedIn(left time.Duration) {
	t := h.hub.issue()
	h.kept = messages.LoadedSession{Found: true, Reason: messages.ReasonOK, Session: messages.Session{
		AccessToken: t.Access, RefreshToken: t.Refresh,
		Meta: messages.SessionMeta{Issuer: issuer, ClientID: "c", AccessExpires: time.Now().Add(left), User: messages.User{Name: "Ada"}},
	}}
}

func (h *house) breakCustody(r messages.Reason) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reason = r
}

func (h *house) stored() messages.LoadedSession {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kept
}

func (h *house) start(t *testing.T) {
	s := suture.New("test", suture.Spec{FailureBackoff: time.Second, EventHook: func(suture.Event) {}})
	s.Add(h.actor)
	ctx, cancel := context.WithCancel(t.Context())
	done := s.ServeBackground(ctx)
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
}

func (h *house) token() messages.AccessToken {
	reply := make(chan messages.AccessToken, 1)
	h.tokens <- messages.AccessTokenRequest{Reply: reply}
	return <-reply
}

func (h *house) logout() messages.Reason {
	reply := make(chan messages.Reason, 1)
	h.commands <- messages.Logout{Reply: reply}
	return <-reply
}

func (h *house) login(open bool) (url chan string, done chan messages.LoginResult, cancel context.CancelFunc) {
	url, done = make(chan string, 1), make(chan messages.LoginResult, 1)
	ctx, cancel := context.WithCancel(context.Background())
	h.commands <- messages.Login{OpenBrowser: open, URL: url, Done: done, Cancelled: ctx.Done()}
	return url, done, cancel
}

func (h *house) wantView(t *testing.T, state messages.SessionState, reason messages.Reason) {
	t.Helper()
	synctest.Wait()
	if v := h.view.Get(); v.State != state || v.Reason != reason {
		t.Fatalf("view %+v, want %s %s", v, state, reason)
	}
}

func wantToken(t *testing.T, got messages.AccessToken, token string, reason messages.Reason) {
	t.Helper()
	if got.Token.Reveal() != token || got.Reason != reason {
		t.Fatalf("%q %s, want %q %s", got.Token.Reveal(), got.Reason, token, reason)
	}
}

// O8: a valid token is handed out as it is; within the skew it is refreshed first, and what the hub
// rotated is stored.
func TestAccessToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.signedIn(time.Minute)
		h.start(t)
		h.wantView(t, messages.SessionSignedIn, messages.ReasonOK)
		wantToken(t, h.token(), "access-1", messages.ReasonOK)
		time.Sleep(31 * time.Second)
		wantToken(t, h.token(), "access-2", messages.ReasonOK)
		if got := h.stored(); got.Session.RefreshToken.Reveal() != "refresh-2" || got.Session.Meta.User.Name != "Ada" {
			t.Fatalf("%+v", got)
		}
		wantToken(t, h.token(), "access-2", messages.ReasonOK)
	})
}

// O8: at most one refresh at a time, however many ask.
func TestOneRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.signedIn(0)
		h.hub.took = 5 * time.Second
		h.start(t)
		replies := make(chan messages.AccessToken, 40)
		for range 40 {
			h.tokens <- messages.AccessTokenRequest{Reply: replies}
		}
		for range 40 {
			wantToken(t, <-replies, "access-2", messages.ReasonOK)
		}
		if h.hub.refreshes != 1 {
			t.Fatalf("%d refreshes", h.hub.refreshes)
		}
	})
}

// O8, T14: what each failure means. Nothing is ever sent twice after an answer was lost.
func TestRefreshFails(t *testing.T) {
	failure := func(e oauth.Error) func() error { return func() error { return &e } }
	rows := map[string]struct {
		fault func() error
		lose  bool
		keeps bool
		want  messages.Reason
	}{
		"reuse noticed":     {fault: failure(oauth.Error{Reason: messages.ReasonTokenExchangeFailed, Detail: "invalid_grant"}), want: messages.ReasonSignInNeeded},
		"client unknown":    {fault: failure(oauth.Error{Reason: messages.ReasonTokenExchangeFailed, Detail: "invalid_client"}), want: messages.ReasonSignInNeeded},
		"answer lost":       {lose: true, want: messages.ReasonSignInNeeded},
		"nothing was sent":  {fault: failure(oauth.Error{Reason: messages.ReasonMetadataInvalid, Retry: oauth.RetryLater}), keeps: true, want: messages.ReasonMetadataInvalid},
		"server broken":     {fault: failure(oauth.Error{Reason: messages.ReasonTokenExchangeFailed, Retry: oauth.RetryLater}), keeps: true, want: messages.ReasonTokenExchangeFailed},
		"another RFC error": {fault: failure(oauth.Error{Reason: messages.ReasonTokenExchangeFailed, Detail: "invalid_scope"}), keeps: true, want: messages.ReasonTokenExchangeFailed},
		"an odd error":      {fault: func() error { return errors.New("odd") }, keeps: true, want: messages.ReasonTokenExchangeFailed},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				h.signedIn(0)
				h.hub.fault, h.hub.lose = r.fault, r.lose
				h.start(t)
				wantToken(t, h.token(), "", r.want)
				wantToken(t, h.token(), "", r.want) // at once: no second try
				if h.hub.refreshes != 1 {
					t.Fatalf("%d refreshes", h.hub.refreshes)
				}
				if h.stored().Found != r.keeps {
					t.Fatalf("kept %v", h.stored().Found)
				}
				if !r.keeps {
					h.wantView(t, messages.SessionSignedOut, messages.ReasonSignInNeeded)
					return
				}
				h.wantView(t, messages.SessionSignedIn, messages.ReasonOK)
				h.hub.fault = nil
				time.Sleep(10 * time.Second)
				wantToken(t, h.token(), "access-2", messages.ReasonOK)
				if h.hub.reused != 0 {
					t.Fatal("a refresh token was used twice")
				}
			})
		})
	}
}

// O8: a refresh that runs while the actor ends is not cut off: its answer is stored.
func TestRefreshOutlivesTheActor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.signedIn(0)
		h.hub.took = 2 * time.Second
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.actor.Serve(ctx) }()
		h.tokens <- messages.AccessTokenRequest{Reply: make(chan messages.AccessToken, 1)}
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if got := h.stored(); got.Session.RefreshToken.Reveal() != "refresh-2" {
			t.Fatalf("%+v", got)
		}
	})
}

// K4, K7: a locked keychain is not "signed out"; when it opens, the session is there.
func TestLockedKeychain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.signedIn(time.Hour)
		h.breakCustody(messages.ReasonKeychainLocked)
		h.start(t)
		h.wantView(t, messages.SessionUnknown, messages.ReasonKeychainLocked)
		wantToken(t, h.token(), "", messages.ReasonKeychainLocked)
		h.breakCustody(messages.ReasonOK)
		time.Sleep(10 * time.Second)
		h.wantView(t, messages.SessionSignedIn, messages.ReasonOK)
		if len(h.manifest) != 1 {
			t.Fatalf("the manifest actor was told %d times", len(h.manifest))
		}
	})
}

// K5: a refreshed session that could not be stored is stored as soon as that is possible.
func TestStoreIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.signedIn(0)
		h.start(t)
		h.breakCustody(messages.ReasonKeychainLocked)
		wantToken(t, h.token(), "access-2", messages.ReasonOK)
		if h.stored().Found {
			t.Fatal("stored")
		}
		h.breakCustody(messages.ReasonOK)
		time.Sleep(10 * time.Second)
		if got := h.stored(); got.Session.RefreshToken.Reveal() != "refresh-2" {
			t.Fatalf("%+v", got)
		}
	})
}

// O2, O9, X2: signing in, asking who it is, and signing out.
func TestLoginAndLogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.start(t)
		h.wantView(t, messages.SessionSignedOut, messages.ReasonSignInNeeded)
		wantToken(t, h.token(), "", messages.ReasonSignInNeeded)
		url, done, cancel := h.login(true)
		defer cancel()
		if u := <-url; u != <-h.opened {
			t.Fatal("the browser got another URL than the terminal")
		}
		h.hub.callback <- nil
		if r := <-done; r.Reason != messages.ReasonOK || r.User.Name != "Ada" {
			t.Fatalf("%+v", r)
		}
		h.wantView(t, messages.SessionSignedIn, messages.ReasonOK)
		if !h.stored().Found || len(h.hub.closed) != 1 || !h.hub.closed[0] {
			t.Fatalf("%+v %v", h.stored(), h.hub.closed)
		}
		reply := make(chan messages.WhoAmIResult, 1)
		h.commands <- messages.WhoAmI{Reply: reply}
		if r := <-reply; r.Reason != messages.ReasonOK || r.User.Name != "Ada" {
			t.Fatalf("%+v", r)
		}
		if r := h.logout(); r != messages.ReasonOK {
			t.Fatal(r)
		}
		h.wantView(t, messages.SessionSignedOut, messages.ReasonSignInNeeded)
		if h.stored().Found || fmt.Sprint(h.hub.revoked) != "[refresh-1]" {
			t.Fatalf("%+v %v", h.stored(), h.hub.revoked)
		}
		wantToken(t, h.token(), "", messages.ReasonSignInNeeded)
	})
}

// O2: every way in which a sign-in can fail answers, closes its attempt and stores nothing.
func TestLoginFails(t *testing.T) {
	type run struct {
		h      *house
		cancel context.CancelFunc
	}
	rows := map[string]struct {
		open    bool
		openErr error
		act     func(r run)
		want    messages.LoginResult
	}{
		"the server says no": {act: func(r run) {
			r.h.hub.callback <- &oauth.Error{Reason: messages.ReasonAuthorizationServerError, Detail: "access_denied"}
		}, want: messages.LoginResult{Reason: messages.ReasonAuthorizationServerError, Detail: "access_denied"}},
		"nobody comes":             {act: func(run) { time.Sleep(3 * time.Minute) }, want: messages.LoginResult{Reason: messages.ReasonCallbackTimeout}},
		"no browser, nobody comes": {open: true, openErr: errors.New("x"), act: func(run) { time.Sleep(3 * time.Minute) }, want: messages.LoginResult{Reason: messages.ReasonBrowserFailed}},
		"no browser, then by hand": {open: true, openErr: errors.New("x"), act: func(r run) { r.h.hub.callback <- nil }, want: messages.LoginResult{Reason: messages.ReasonOK, User: messages.User{Subject: "s", Name: "Ada"}}},
		"cancelled":                {act: func(r run) { r.cancel() }, want: messages.LoginResult{Reason: messages.ReasonCallbackTimeout}},
		"replaced":                 {act: func(r run) { r.h.login(false) }, want: messages.LoginResult{Reason: messages.ReasonCallbackTimeout}},
		"signed out meanwhile":     {act: func(r run) { r.h.logout() }, want: messages.LoginResult{Reason: messages.ReasonCallbackTimeout}},
		"the keychain is locked": {act: func(r run) {
			r.h.breakCustody(messages.ReasonKeychainLocked)
			r.h.hub.callback <- nil
		}, want: messages.LoginResult{Reason: messages.ReasonKeychainLocked}},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				h.openErr = r.openErr
				h.start(t)
				url, done, cancel := h.login(r.open)
				defer cancel()
				<-url
				r.act(run{h, cancel})
				if got := <-done; got != r.want {
					t.Fatalf("%+v, want %+v", got, r.want)
				}
				synctest.Wait()
				ok := r.want.Reason == messages.ReasonOK
				if h.hub.closed[0] != ok || h.stored().Found != ok {
					t.Fatalf("closed %v, stored %v", h.hub.closed, h.stored().Found)
				}
				if name == "the keychain is locked" && len(h.hub.revoked) != 1 {
					t.Fatal("tokens that were not stored live on at the hub")
				}
			})
		})
	}
}

// O8: a sign-in that comes while a refresh runs is not overwritten by it.
func TestLoginDuringRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.signedIn(0)
		h.hub.took = time.Minute
		h.start(t)
		go h.token()
		synctest.Wait()
		url, done, cancel := h.login(false)
		defer cancel()
		<-url
		h.hub.callback <- nil
		if r := <-done; r.Reason != messages.ReasonOK {
			t.Fatalf("%+v", r)
		}
		synctest.Wait()
		if got := h.stored().Session; got.RefreshToken.Reveal() != "refresh-2" && got.RefreshToken.Reveal() != "refresh-3" || h.hub.reused != 0 {
			t.Fatalf("%+v", got)
		}
		if got := h.stored().Session; got.Meta.User.Subject != "s" { // whoever signed in before had none
			t.Fatalf("the refresh was written over the sign-in: %+v", got.Meta)
		}
		h.wantView(t, messages.SessionSignedIn, messages.ReasonOK)
	})
}

// A token that the hub refuses though it should be valid counts as expired.
func TestRefusedToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.signedIn(time.Hour)
		h.hub.whoAmI = func(access string) (messages.User, error) {
			if access == "access-1" {
				return messages.User{}, &oauth.Error{Reason: messages.ReasonSignInNeeded}
			}
			return messages.User{Name: "Ada"}, nil
		}
		h.start(t)
		ask := func() messages.WhoAmIResult {
			reply := make(chan messages.WhoAmIResult, 1)
			h.commands <- messages.WhoAmI{Reply: reply}
			return <-reply
		}
		if r := ask(); r.Reason != messages.ReasonSignInNeeded {
			t.Fatalf("%+v", r)
		}
		if r := ask(); r.Reason != messages.ReasonOK || r.User.Name != "Ada" {
			t.Fatalf("%+v", r)
		}
	})
}

// A crash is contained: the supervisor restarts the actor, which loads the session anew (A9).
func TestPanicIsContained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.signedIn(time.Hour)
		h.hub.whoAmI = func(string) (messages.User, error) { panic("a broken library") }
		h.start(t)
		reply := make(chan messages.WhoAmIResult, 1)
		h.commands <- messages.WhoAmI{Reply: reply}
		time.Sleep(5 * time.Second)
		wantToken(t, h.token(), "access-1", messages.ReasonOK)
		h.wantView(t, messages.SessionSignedIn, messages.ReasonOK)
	})
}

// O8, T14 as a property: whatever fails and whenever the user signs in or out, refreshes never overlap,
// no refresh token is sent twice, and what is stored is what the hub would take.
func TestRotationProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.SampledFrom([]string{"token", "wait", "fail", "mend", "login", "logout", "lock", "unlock"}), 1, 25).Draw(rt, "steps")
		var problem string
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t)
			h.signedIn(0)
			h.hub.took = time.Second
			h.start(t)
			for _, s := range steps {
				switch s {
				case "token":
					h.tokens <- messages.AccessTokenRequest{Reply: make(chan messages.AccessToken, 1)}
				case "wait":
					time.Sleep(life)
				case "fail", "mend":
					h.hub.mu.Lock()
					h.hub.fault = nil
					if s == "fail" {
						h.hub.fault = func() error {
							return &oauth.Error{Reason: messages.ReasonTokenExchangeFailed, Retry: oauth.RetryLater}
						}
					}
					h.hub.mu.Unlock()
				case "login":
					_, done, cancel := h.login(false)
					h.hub.callback <- nil
					<-done
					cancel()
				case "logout":
					h.logout()
				case "lock":
					h.breakCustody(messages.ReasonKeychainLocked)
				case "unlock":
					h.breakCustody(messages.ReasonOK)
				}
			}
			h.breakCustody(messages.ReasonOK)
			time.Sleep(time.Hour)
			h.hub.mu.Lock()
			defer h.hub.mu.Unlock()
			if h.hub.most > 1 || h.hub.reused > 0 {
				problem = fmt.Sprintf("%d refreshes at once, %d reuses", h.hub.most, h.hub.reused)
			}
			if got := h.stored(); got.Found && !h.hub.good[got.Session.RefreshToken.Reveal()] {
				problem = fmt.Sprintf("stored %s, which the hub would not take", got.Session.RefreshToken.Reveal())
			}
		})
		if problem != "" {
			rt.Fatal(problem)
		}
	})
}

// Rule 2: nothing of it shows a token.
func TestLogsHoldNoSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.signedIn(0)
		h.start(t)
		h.token()
		h.logout()
		if h.logs.Len() < 3 {
			t.Fatalf("%d lines", h.logs.Len())
		}
		text := fmt.Sprintf("%+v %+v", h.logs.All(), h.view.Get())
		for _, s := range []string{"access-", "refresh-1", "refresh-2", "start/"} {
			if strings.Contains(text, s) {
				t.Fatalf("%s is in the log", s)
			}
		}
	})
}
