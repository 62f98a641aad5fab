package session

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"companion/adapters/authority/sessionnote"
	"companion/messages"
)

// O9: a sign-out while the keychain is locked is finished after the unlock, in this process or the next: the session is
// revoked and removed. Until then the user is signed out.
func TestLogoutWhileLocked(t *testing.T) {
	for _, restart := range []bool{false, true} {
		for _, signal := range []bool{false, true} {
			t.Run(fmt.Sprintf("restart %v, signal %v", restart, signal), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHarness(t)
					h.signedIn(time.Hour)
					h.breakCustody(messages.ReasonKeychainLocked)
					h.start(t)
					if r := h.logoutResult(); r.Reason != messages.ReasonKeychainLocked || r.Hub != messages.ReasonOK {
						t.Errorf("signing out: got %+v, want %s", r, messages.ReasonKeychainLocked)
					}
					h.wantView(t, messages.SessionSignedOut, messages.ReasonSignInNeeded)
					if v := h.view.Get(); v.Trouble != messages.ReasonKeychainLocked {
						t.Errorf("view: got %+v, want trouble keychain_locked", v)
					}
					wantToken(t, h.token(), "", messages.ReasonSignInNeeded)
					if restart {
						next := &harness{hub: h.hub, notes: h.notes, kept: h.kept, reason: messages.ReasonKeychainLocked}
						next.assemble(t.Context())
						next.start(t)
						h = next
					}
					time.Sleep(time.Hour)
					if len(h.revoked()) != 0 || !h.stored().Found {
						t.Fatalf("locked: got revoked %v, stored %v; want none, true", h.revoked(), h.stored().Found)
					}
					h.breakCustody(messages.ReasonOK)
					if signal {
						h.changed.Set(1)
						synctest.Wait()
					} else {
						time.Sleep(5 * time.Minute)
					}
					if got := fmt.Sprint(h.revoked()); got != "[refresh-1]" || h.stored().Found {
						t.Errorf("unlocked: got revoked %s, stored %v; want [refresh-1], false", got, h.stored().Found)
					}
					h.wantView(t, messages.SessionSignedOut, messages.ReasonSignInNeeded)
					if v := h.view.Get(); v.Trouble != "" || h.notes.get() != (sessionnote.Note{}) {
						t.Errorf("at the end: got view %+v, note %+v; want no trouble and an empty note", v, h.notes.get())
					}
				})
			})
		}
	}
}

// O9: if the hub is unreachable at a sign-out, the reply says so, and the revocation is repeated until it succeeds.
func TestLogoutWithoutHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(time.Hour)
		h.hub.noRevoke = true
		h.start(t)
		if r := h.logoutResult(); r.Reason != messages.ReasonOK || r.Hub != messages.ReasonTokenExchangeFailed {
			t.Errorf("signing out: got %+v, want ok for the keychain and token_exchange_failed for the hub", r)
		}
		if v := h.view.Get(); v.State != messages.SessionSignedOut || v.Trouble != messages.ReasonTokenExchangeFailed || h.stored().Found {
			t.Errorf("got view %+v, stored %v; want signed out with trouble, false", v, h.stored().Found)
		}
		time.Sleep(time.Hour)
		h.change(func(f *fakeHub) { f.noRevoke = false })
		time.Sleep(15 * time.Minute)
		if got := fmt.Sprint(h.revoked()); got != "[refresh-1]" {
			t.Errorf("revoked %s, want [refresh-1]", got)
		}
		if v := h.view.Get(); v.Trouble != "" {
			t.Errorf("view: got %+v, want no trouble", v)
		}
	})
}

// O9: a second sign-in revokes the session of the first one, also if the keychain was locked until then.
func TestSecondLoginRevokesTheFirst(t *testing.T) {
	for _, locked := range []bool{false, true} {
		t.Run(fmt.Sprintf("locked %v", locked), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t)
				h.signedIn(time.Hour)
				if locked {
					h.breakCustody(messages.ReasonKeychainLocked)
				}
				h.start(t)
				_, done, cancel := h.login()
				defer cancel()
				h.breakCustody(messages.ReasonOK)
				h.hub.callback <- nil
				if r := <-done; r.Reason != messages.ReasonOK {
					t.Fatalf("signing in: got %+v, want ok", r)
				}
				synctest.Wait()
				if got := fmt.Sprint(h.revoked()); got != "[refresh-1]" {
					t.Errorf("revoked %s, want [refresh-1]", got)
				}
				if got := h.stored().Session.RefreshToken.Reveal(); got != "refresh-2" {
					t.Errorf("stored: got %s, want refresh-2", got)
				}
			})
		})
	}
}

// O9, T14: no token of another hub's session, which the keychain holds after hub.url was changed, is sent to this hub.
func TestSessionOfAnotherHub(t *testing.T) {
	login := func(t *testing.T, h *harness) {
		_, done, cancel := h.login()
		defer cancel()
		h.hub.callback <- nil
		if r := <-done; r.Reason != messages.ReasonOK {
			t.Errorf("signing in: got %+v, want ok", r)
		}
	}
	for name, act := range map[string]func(t *testing.T, h *harness){
		"logout": func(t *testing.T, h *harness) {
			if r := h.logoutResult(); r.Reason != messages.ReasonOK || r.Hub != messages.ReasonIssuerMismatch {
				t.Errorf("signing out: got %+v, want ok, and issuer_mismatch for the hub", r)
			}
		},
		"logout while locked": func(t *testing.T, h *harness) {
			h.breakCustody(messages.ReasonKeychainLocked)
			h.logout()
			h.breakCustody(messages.ReasonOK)
		},
		"login": login,
	} {
		for _, inFlight := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, refresh interrupted %v", name, inFlight), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHarness(t)
					h.signedIn(time.Hour)
					h.kept.Session.Meta.Issuer = "https://other.example/api/v1/auth/native"
					if inFlight {
						h.notes.note.InFlight = sessionnote.Digest(messages.NewSecret("refresh-1"))
						h.start(t)
					} else { // the keychain is locked when the daemon starts
						h.breakCustody(messages.ReasonKeychainLocked)
						h.start(t)
						h.breakCustody(messages.ReasonOK)
					}
					if !inFlight || name == "login" {
						act(t, h)
					} else {
						h.logout()
					}
					time.Sleep(time.Hour)
					if got := h.revoked(); len(got) != 0 {
						t.Errorf("revoked at this hub: got %v, want none", got)
					}
					if v := h.view.Get(); v.Trouble != "" {
						t.Errorf("view an hour later: got %+v, want no trouble", v)
					}
				})
			})
		}
	}
}

// K7: in the first hour of a locked keychain, no load of the session allows a dialog; each sign-in and sign-out allows one.
func TestOneDialogPerAction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(time.Hour)
		h.breakCustody(messages.ReasonKeychainLocked)
		h.start(t)
		time.Sleep(time.Hour)
		asks := func() int { h.mu.Lock(); defer h.mu.Unlock(); return h.asks }
		if asks() != 0 || h.loads < 10 {
			t.Errorf("got %d of %d loads that allow a dialog, want 0 of at least 10", asks(), h.loads)
		}
		h.logout()
		if asks() != 1 {
			t.Errorf("after signing out: got %d messages that allow a dialog, want 1", asks())
		}
		_, done, cancel := h.login()
		defer cancel()
		h.hub.callback <- nil
		if r := <-done; r.Reason != messages.ReasonKeychainLocked {
			t.Errorf("signing in: got %+v, want %s", r, messages.ReasonKeychainLocked)
		}
		if asks() != 2 {
			t.Errorf("after signing in: got %d messages that allow a dialog, want 2", asks())
		}
	})
}

// O2, A9: a panic during a sign-in closes the attempt and answers the command line; the actor restarts.
func TestPanicDuringLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.hub.whoAmI = func(string) (messages.User, error) { panic("a broken library") }
		h.start(t)
		_, done, cancel := h.login()
		defer cancel()
		h.hub.callback <- nil
		if r := <-done; r.Reason != messages.ReasonInternalError {
			t.Errorf("login: got %+v, want %s", r, messages.ReasonInternalError)
		}
		time.Sleep(5 * time.Second)
		if len(h.hub.closed) != 1 || h.hub.closed[0] {
			t.Errorf("attempts closed: got %v, want one, not signed in", h.hub.closed)
		}
		reply := make(chan messages.WhoAmIResult, 1)
		h.hub.whoAmI = func(string) (messages.User, error) { panic("a broken library") }
		_, done, cancel = h.login()
		defer cancel()
		h.change(func(f *fakeHub) { f.whoAmI = nil })
		h.hub.callback <- nil
		if r := <-done; r.Reason != messages.ReasonOK {
			t.Fatalf("signing in after the restart: got %+v, want ok", r)
		}
		h.change(func(f *fakeHub) { f.whoAmI = func(string) (messages.User, error) { panic("a broken library") } })
		h.commands <- messages.WhoAmI{Reply: reply}
		if r := <-reply; r.Reason != messages.ReasonInternalError {
			t.Errorf("whoami: got %+v, want %s", r, messages.ReasonInternalError)
		}
	})
}

// O11: a sign-in by device authorization stores a session like one in the browser.
func TestDeviceLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.start(t)
		page, done := make(chan messages.LoginPage, 1), make(chan messages.LoginResult, 1)
		h.commands <- messages.Login{Device: true, Page: page, Done: done, Cancelled: make(chan struct{})}
		<-page
		h.hub.callback <- nil
		if r := <-done; r.Reason != messages.ReasonOK || h.hub.device != 1 {
			t.Errorf("got %+v, %d device attempts; want ok, 1", r, h.hub.device)
		}
		h.wantView(t, messages.SessionSignedIn, messages.ReasonOK)
	})
}
