package session

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"companion/adapters/authority/oauth"
	"companion/adapters/authority/sessionnote"
	"companion/messages"
)

// O9, K8: a sign-out that could not reach the hub is repeated at the next start of the daemon. Until then the
// keychain holds the refresh token for nothing else: the user is signed out.
func TestRevocationSurvivesRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(time.Hour)
		h.hub.noRevoke = true
		h.start(t)
		if r := h.logoutResult(); r.Hub != messages.ReasonTokenExchangeFailed || r.Again != messages.RevokeUntilDone {
			t.Errorf("signing out: got %+v, want token_exchange_failed for the hub, and until_done", r)
		}
		if got := fmt.Sprint(h.pending()); got != "[refresh-1]" || h.stored().Found {
			t.Errorf("keychain: got pending %s, session %v; want [refresh-1], false", got, h.stored().Found)
		}
		h = h.again(t)
		h.wantView(t, messages.SessionSignedOut, messages.ReasonSignInNeeded)
		wantToken(t, h.token(), "", messages.ReasonSignInNeeded)
		if v := h.view.Get(); v.Unrevoked != 1 || v.Trouble != messages.ReasonTokenExchangeFailed {
			t.Errorf("after the restart: got view %+v, want 1 unrevoked, trouble token_exchange_failed", v)
		}
		h.change(func(f *fakeHub) { f.noRevoke = false })
		time.Sleep(15 * time.Minute)
		if got := fmt.Sprint(h.revoked()); got != "[refresh-1]" {
			t.Errorf("revoked %s, want [refresh-1]", got)
		}
		if got := h.pending(); len(got) != 0 || h.notes.get() != (sessionnote.Note{}) {
			t.Errorf("at the end: got pending %v, note %+v; want none", got, h.notes.get())
		}
		if v := h.view.Get(); v.Unrevoked != 0 || v.Trouble != "" {
			t.Errorf("at the end: got view %+v, want none unrevoked and no trouble", v)
		}
	})
}

// O9, K8: a pending revocation that the locked keychain does not give at the start is read after the unlock.
func TestRevocationWhileLocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(time.Hour)
		h.hub.noRevoke = true
		h.start(t)
		h.logout()
		synctest.Wait()
		h.breakCustody(messages.ReasonKeychainLocked)
		h.change(func(f *fakeHub) { f.noRevoke = false })
		h = h.again(t)
		time.Sleep(time.Hour)
		if got := h.revoked(); len(got) != 0 {
			t.Fatalf("locked: revoked %v, want none", got)
		}
		h.breakCustody(messages.ReasonOK)
		h.changed.Set(1)
		time.Sleep(time.Minute)
		if got := fmt.Sprint(h.revoked()); got != "[refresh-1]" || len(h.pending()) != 0 {
			t.Errorf("unlocked: got revoked %s, pending %v; want [refresh-1], none", got, h.pending())
		}
	})
}

// K8: at a repeated end of the daemon between two steps of a sign-out or of a second sign-in, no refresh token is lost and no
// current session is revoked.
func TestRevocationAtEveryWrite(t *testing.T) {
	for _, c := range []struct {
		second bool          // sign in again; otherwise sign out
		off    time.Duration // until the daemon is started again; the access token lives an hour
	}{{false, 0}, {true, 0}, {true, 2 * time.Hour}} {
		for writes := range 8 {
			t.Run(fmt.Sprintf("second sign-in %v, end after %d writes, off for %v", c.second, writes, c.off), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHarness(t)
					h.signedIn(time.Hour)
					h.hub.noRevoke = true
					h.start(t)
					h.cutAfter(writes)
					if c.second {
						_, _, cancel := h.login()
						defer cancel()
						h.hub.callback <- nil
					} else {
						h.commands <- messages.Logout{Reply: make(chan messages.LogoutResult, 1)}
					}
					time.Sleep(time.Minute)
					h.change(func(f *fakeHub) { f.noRevoke = false })
					h.cut()
					h.stop()
					time.Sleep(c.off)
					h = h.again(t)
					time.Sleep(20 * time.Second)
					if current := h.stored().Session.RefreshToken.Reveal(); c.second && !h.alive()[current] {
						t.Errorf("the current session %s: got it revoked at the start, want it alive", current)
					}
					time.Sleep(time.Hour)
					current := h.stored().Session.RefreshToken.Reveal()
					for token, good := range h.alive() {
						if good && token != current && token != "refresh-2" { // which no write had stored yet
							t.Errorf("%s: got it alive, want it revoked, or the current session %q", token, current)
						}
						if !good && token == current {
							t.Errorf("the current session %s: got it revoked, want it alive", token)
						}
					}
					if got := h.pending(); len(got) != 0 {
						t.Errorf("pending: got %v, want none", got)
					}
				})
			})
		}
	}
}

// K8: the number of pending revocations and their age are bounded, and a definite refusal of the hub is not repeated.
func TestRevocationIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(time.Hour)
		h.hub.noRevoke = true
		h.start(t)
		for range messages.PendingRevocations + 2 {
			_, done, cancel := h.login()
			h.hub.callback <- nil
			<-done
			cancel()
		}
		if r := h.logoutResult(); r.Again != messages.RevokeWhileRunning {
			t.Errorf("signing out with full places: got %+v, want while_running", r)
		}
		if got := h.pending(); len(got) != messages.PendingRevocations {
			t.Errorf("pending: got %v, want %d", got, messages.PendingRevocations)
		}
		time.Sleep(forgetAfter + time.Hour)
		if got := h.pending(); len(got) != 0 || h.view.Get().Unrevoked != 0 {
			t.Errorf("after %v: got pending %v, view %+v; want none", forgetAfter, got, h.view.Get())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(time.Hour)
		h.hub.refuseRevoke = true
		h.start(t)
		if r := h.logoutResult(); r.Hub != messages.ReasonTokenExchangeFailed || r.Again != messages.RevokeNotAgain || len(h.pending()) != 0 {
			t.Errorf("refused: got %+v, pending %v; want no repetition", r, h.pending())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(time.Hour)
		h.hub.noRevoke, h.full = true, true
		h.start(t)
		if r := h.logoutResult(); r.Again != messages.RevokeWhileRunning {
			t.Errorf("full keychain: got %+v, want while_running", r)
		}
	})
}

// O8, O9: a refresh token that may be spent is revoked at the sign-out, also by a later start of the daemon.
func TestInterruptedSessionIsRevokedAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(time.Hour)
		h.notes.note.InFlight = sessionnote.Digest(messages.NewSecret("refresh-1"))
		h.start(t)
		h.wantView(t, messages.SessionSignedIn, messages.ReasonOK)
		h = h.again(t)
		time.Sleep(20 * time.Minute)
		h.wantView(t, messages.SessionSignedIn, messages.ReasonOK)
		if got := h.revoked(); len(got) != 0 || h.view.Get().Unrevoked != 0 {
			t.Errorf("signed in: got revoked %v, view %+v; want none", got, h.view.Get())
		}
		h.change(func(f *fakeHub) { f.noRevoke = true })
		if r := h.logoutResult(); r.Hub != messages.ReasonTokenExchangeFailed || r.Again != messages.RevokeUntilDone {
			t.Errorf("signing out: got %+v, want token_exchange_failed and until_done", r)
		}
		synctest.Wait()
		h.change(func(f *fakeHub) { f.noRevoke = false })
		h = h.again(t)
		time.Sleep(time.Minute)
		if got := fmt.Sprint(h.revoked()); got != "[refresh-1]" || len(h.pending()) != 0 {
			t.Errorf("got revoked %s, pending %v; want [refresh-1], none", got, h.pending())
		}
	})
}

// O9: signed in at another hub or as another client before the configuration was changed. The session of another hub cannot be
// revoked, which sign-out and sign-in say. The session of another client is revoked with its own client id.
func TestFormerSession(t *testing.T) {
	for name, change := range map[string]func(*messages.SessionMeta){
		"hub":    func(m *messages.SessionMeta) { m.Issuer = "https://other.example/api/v1/auth/native" },
		"client": func(m *messages.SessionMeta) { m.ClientID = "former" },
	} {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprintf("another %s, sign-in %v", name, again), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHarness(t)
					var err error
					if h.hub.oauth, err = oauth.New(oauth.Config{Issuer: issuer, ClientID: "c", SessionURL: "https://hub.example/session"}); err != nil {
						t.Fatal(err)
					}
					h.signedIn(time.Hour)
					change(&h.kept.Session.Meta)
					h.start(t)
					h.wantView(t, messages.SessionSignedOut, messages.ReasonSignInNeeded)
					if got := h.revoked(); len(got) != 0 {
						t.Errorf("before: revoked %v, want none", got)
					}
					want, wantRevoked := messages.ReasonOK, "[refresh-1]"
					if name == "hub" {
						want, wantRevoked = messages.ReasonIssuerMismatch, "[]"
					}
					var got messages.Reason
					if again {
						_, done, cancel := h.login()
						defer cancel()
						h.hub.callback <- nil
						got = (<-done).Hub
					} else {
						got = h.logoutResult().Hub
					}
					if got != want {
						t.Errorf("got the hub's %s, want %s", got, want)
					}
					time.Sleep(time.Minute)
					if got := fmt.Sprint(h.revoked()); got != wantRevoked || len(h.pending()) != 0 {
						t.Errorf("got revoked %s, pending %v; want %s, none", got, h.pending(), wantRevoked)
					}
				})
			})
		}
	}
}

// O8, O9: the answer of a refresh is lost and the hub stays down. A sign-out then says that the hub could not be told, and the
// session is revoked when it can be.
func TestLogoutAfterLostRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(time.Hour)
		h.kept.Session.Meta.AccessIssued = time.Now()
		h.start(t)
		h.change(func(f *fakeHub) {
			f.fault = func() error {
				return &oauth.Error{Reason: messages.ReasonTokenExchangeFailed, Retry: oauth.RetryUnsafe}
			}
			f.noRevoke = true
		})
		time.Sleep(55 * time.Minute)
		if r := h.logoutResult(); r.Hub != messages.ReasonTokenExchangeFailed || r.Again != messages.RevokeUntilDone {
			t.Errorf("signing out: got %+v, want token_exchange_failed and until_done", r)
		}
		if v := h.view.Get(); v.Trouble == "" || v.Unrevoked != 1 {
			t.Errorf("got view %+v, want trouble and 1 unrevoked", v)
		}
		h.change(func(f *fakeHub) { f.noRevoke = false })
		time.Sleep(15 * time.Minute)
		if got := fmt.Sprint(h.revoked()); got != "[refresh-1]" {
			t.Errorf("revoked %s, want [refresh-1]", got)
		}
	})
}

// O9: a session that was granted and could not be stored is revoked when the hub can be told, also by the next start.
func TestGrantThatIsNotStored(t *testing.T) {
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t)
			h.start(t)
			_, done, cancel := h.login()
			defer cancel()
			h.breakCustody(messages.ReasonKeychainLocked)
			h.hub.noRevoke = true
			h.hub.callback <- nil
			if r := <-done; r.Reason != messages.ReasonKeychainLocked {
				t.Errorf("signing in: got %+v, want keychain_locked", r)
			}
			h.breakCustody(messages.ReasonOK)
			h.changed.Set(1)
			time.Sleep(time.Minute)
			if restart {
				h = h.again(t)
			}
			h.change(func(f *fakeHub) { f.noRevoke = false })
			time.Sleep(15 * time.Minute)
			if got := fmt.Sprint(h.revoked()); got != "[refresh-1]" || len(h.pending()) != 0 {
				t.Errorf("restart %v: got revoked %s, pending %v; want [refresh-1], none", restart, got, h.pending())
			}
		})
	}
}
