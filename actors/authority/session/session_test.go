package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"companion/adapters/authority/oauth"
	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// O8: a valid token is returned unchanged. Within the skew before expiry it is refreshed first, and the rotated refresh
// token is stored.
func TestAccessToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(time.Minute)
		h.start(t)
		h.wantView(t, messages.SessionSignedIn, messages.ReasonOK)
		wantToken(t, h.token(), "access-1", messages.ReasonOK)
		time.Sleep(31 * time.Second)
		wantToken(t, h.token(), "access-2", messages.ReasonOK)
		if got := h.stored(); got.Session.RefreshToken.Reveal() != "refresh-2" || got.Session.Meta.User.Name != "Ada" {
			t.Fatalf("stored: got %q of %+v, want refresh-2 of Ada", got.Session.RefreshToken.Reveal(), got)
		}
		wantToken(t, h.token(), "access-2", messages.ReasonOK)
	})
}

// O8: at most one refresh runs at a time, for any number of requests.
func TestOneRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
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
			t.Fatalf("got %d refreshes, want 1", h.hub.refreshes)
		}
	})
}

// O8, T14: the result of each failure. After a lost answer the token is never sent again.
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
				h := newHarness(t)
				h.signedIn(0)
				h.hub.fault, h.hub.lose = r.fault, r.lose
				h.start(t)
				wantToken(t, h.token(), "", r.want)
				wantToken(t, h.token(), "", r.want) // at once: no second try
				if h.hub.refreshes != 1 {
					t.Fatalf("got %d refreshes, want 1", h.hub.refreshes)
				}
				if h.stored().Found != r.keeps {
					t.Fatalf("session stored: got %v, want %v", h.stored().Found, r.keeps)
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
					t.Fatalf("got %d reused refresh tokens, want none", h.hub.reused)
				}
			})
		})
	}
}

// O8: a refresh that runs when the actor ends is completed, and its answer is stored.
func TestRefreshOutlivesTheActor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(0)
		h.hub.took = 2 * time.Second
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.actor.Serve(ctx) }()
		h.tokens <- messages.AccessTokenRequest{Reply: make(chan messages.AccessToken, 1)}
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want %v", err, context.Canceled)
		}
		if got := h.stored(); got.Session.RefreshToken.Reveal() != "refresh-2" {
			t.Fatalf("stored: got %+v, want refresh-2", got)
		}
	})
}

// K4, K7: a locked keychain does not mean signed out; after the unlock the session is loaded.
func TestLockedKeychain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(time.Hour)
		h.breakCustody(messages.ReasonKeychainLocked)
		h.start(t)
		h.wantView(t, messages.SessionUnknown, messages.ReasonKeychainLocked)
		wantToken(t, h.token(), "", messages.ReasonKeychainLocked)
		h.breakCustody(messages.ReasonOK)
		time.Sleep(10 * time.Second)
		h.wantView(t, messages.SessionSignedIn, messages.ReasonOK)
		if len(h.manifest) != 1 {
			t.Fatalf("got %d messages to the manifest actor, want 1", len(h.manifest))
		}
	})
}

// K5: a refreshed session that could not be stored is stored as soon as the keychain works.
func TestStoreIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(0)
		h.hub.took = time.Second // the first refresh is running when the keychain is locked
		h.start(t)
		h.breakCustody(messages.ReasonKeychainLocked)
		wantToken(t, h.token(), "access-2", messages.ReasonOK)
		if h.stored().Found {
			t.Fatal("locked keychain: got a stored session, want none")
		}
		h.breakCustody(messages.ReasonOK)
		time.Sleep(10 * time.Second)
		if got := h.stored(); got.Session.RefreshToken.Reveal() != "refresh-2" {
			t.Fatalf("stored: got %+v, want refresh-2", got)
		}
	})
}

// A panic is contained: the supervisor restarts the actor, which loads the session again (A9).
func TestPanicIsContained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
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

// O8, T14 as a property: with any failures, sign-ins and sign-outs, refreshes never overlap, no refresh token is sent twice,
// and the hub accepts the stored token.
func TestRotationProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.SampledFrom([]string{"token", "wait", "fail", "mend", "login", "logout", "lock", "unlock"}), 1, 25).Draw(rt, "steps")
		var problem string
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t)
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
					_, done, cancel := h.login()
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
			synctest.Wait() // a refresh that ends at this moment must have stored its answer
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

// Rule 2: neither log nor view contains a token.
func TestLogsHoldNoSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(0)
		h.start(t)
		h.token()
		h.logout()
		if h.logs.Len() < 3 {
			t.Fatalf("got %d log entries, want at least 3", h.logs.Len())
		}
		text := fmt.Sprintf("%+v %+v", h.logs.All(), h.view.Get())
		for _, s := range []string{"access-", "refresh-1", "refresh-2", "start/"} {
			if strings.Contains(text, s) {
				t.Fatalf("got %s in the log, want no token", s)
			}
		}
	})
}
