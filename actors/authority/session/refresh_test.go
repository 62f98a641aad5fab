package session

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"companion/adapters/authority/oauth"
	"companion/adapters/authority/sessionnote"
	"companion/messages"
)

// O8: a thousand requests for an expired token cause one refresh and get a thousand answers.
func TestThousandRequestsOneRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 1000
		h := newHarness(t)
		h.signedIn(0)
		h.hub.took = 5 * time.Second
		h.start(t)
		replies := make(chan messages.AccessToken, many)
		for range many {
			h.tokens <- messages.AccessTokenRequest{Reply: replies}
		}
		for range many {
			wantToken(t, <-replies, "access-2", messages.ReasonOK)
		}
		if n := h.refreshes(); n != 1 {
			t.Errorf("%d refreshes, want 1", n)
		}
	})
}

// O8: a session is refreshed before each expiry, also without a request; the old token serves meanwhile.
func TestRefreshAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(life)
		h.start(t)
		for n := range 20 {
			if got := h.token(); got.Reason != messages.ReasonOK || !h.stored().Session.Meta.AccessExpires.After(time.Now().Add(oauth.Skew)) {
				t.Fatalf("after %d minutes: got %s, expiry %v; want ok and an expiry after the skew", 5*n, got.Reason, h.stored().Session.Meta.AccessExpires)
			}
			time.Sleep(5 * time.Minute)
		}
		if n := h.refreshes(); n < 6 || n > 10 {
			t.Errorf("got %d refreshes in 100 minutes of tokens that live 15, want 6 to 10", n)
		}
		if v := h.view.Get(); v.Expires.Before(time.Now()) || v.Trouble != "" {
			t.Errorf("view: got %+v, want an expiry in the future and no trouble", v)
		}
	})
}

// O8: the due times of refreshes are spread over a tenth of the token's life, and are always before the skew.
func TestDueOf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		issued := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
		life := time.Duration(rapid.IntRange(1, 1<<20).Draw(t, "seconds")) * time.Second
		s := messages.Session{RefreshToken: messages.NewSecret("r"), Meta: messages.SessionMeta{AccessIssued: issued, AccessExpires: issued.Add(life)}}
		due := dueOf(s)
		if left := s.Meta.AccessExpires.Sub(due); left > life/2 || left < min(oauth.Skew+life/10, life/2) || left > oauth.Skew+life/5+1 {
			t.Fatalf("token that lives %v: got a refresh with %v left, want a time between the skew and half of its life", life, left)
		}
	})
	seen := map[time.Time]bool{}
	for range 20 {
		seen[dueOf(messages.Session{RefreshToken: messages.NewSecret("r"), Meta: messages.SessionMeta{
			AccessIssued: time.Unix(0, 0), AccessExpires: time.Unix(900, 0)}})] = true
	}
	if len(seen) < 10 {
		t.Errorf("20 sessions: got %d different due times, want at least 10", len(seen))
	}
}

// O8: after the daemon was killed during a refresh, the refresh token is not sent again, because the hub may have spent it.
// The access token serves until it expires, status says what happened, and the next sign-in revokes the old session.
func TestKilledDuringRefresh(t *testing.T) {
	for name, row := range map[string]struct {
		left time.Duration
		want messages.SessionState
	}{
		"access token lives":  {10 * time.Minute, messages.SessionSignedIn},
		"access token is old": {0, messages.SessionSignedOut},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t)
				h.signedIn(row.left)
				h.hub.good["refresh-1"] = false // the hub has rotated it, and the new one was not stored
				h.notes.note.InFlight = sessionnote.Digest(messages.NewSecret("refresh-1"))
				h.start(t)
				if v := h.view.Get(); v.State != row.want || v.Trouble != messages.ReasonRefreshInterrupted {
					t.Errorf("view: got %+v, want %s with trouble %s", v, row.want, messages.ReasonRefreshInterrupted)
				}
				if row.want == messages.SessionSignedIn {
					wantToken(t, h.token(), "access-1", messages.ReasonOK)
				}
				time.Sleep(time.Hour)
				wantToken(t, h.token(), "", messages.ReasonSignInNeeded)
				if v := h.view.Get(); v.State != messages.SessionSignedOut || v.Trouble != messages.ReasonRefreshInterrupted {
					t.Errorf("view an hour later: got %+v, want signed out with the trouble", v)
				}
				if h.refreshes() != 0 {
					t.Errorf("got %d refreshes with the old token, want none", h.refreshes())
				}
				_, done, cancel := h.login()
				defer cancel()
				h.hub.callback <- nil
				if r := <-done; r.Reason != messages.ReasonOK {
					t.Fatalf("signing in again: got %+v, want ok", r)
				}
				synctest.Wait()
				if got := fmt.Sprint(h.revoked()); got != "[refresh-1]" {
					t.Errorf("revoked %s, want [refresh-1]", got)
				}
				if v := h.view.Get(); v.State != messages.SessionSignedIn || v.Trouble != "" || h.notes.get() != (sessionnote.Note{}) {
					t.Errorf("after signing in: got view %+v, note %+v; want no trouble and no note", v, h.notes.get())
				}
			})
		})
	}
}

// O8, O9 as a property: the actor is killed at any time, under any fault of hub and keychain, and restarts with the contents
// of disk and keychain. No refresh token is sent twice, and a user who signed out stays signed out.
func TestKilledAnywhere(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		// Lives of milliseconds, in which a refresh is cut, and of up to an hour, in which tokens expire.
		life := rapid.OneOf(rapid.IntRange(0, 3000), rapid.IntRange(0, 3_600_000))
		lives := rapid.SliceOfN(life, 1, 8).Draw(rt, "lives in milliseconds")
		steps := rapid.SliceOfN(rapid.SampledFrom([]string{"token", "fail", "lose", "mend", "lock", "unlock", "logout", ""}), len(lives), len(lives)).Draw(rt, "steps")
		var problem string
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t)
			h.intact = true
			h.signedIn(0)
			h.hub.took = time.Second
			gone := false
			for i, milliseconds := range lives {
				// Simulated SIGKILL: the actor cannot finish its work. Its goroutines go on, but their messages reach no actor.
				next := &harness{hub: h.hub, notes: h.notes, kept: h.stored(), reason: h.reason, intact: true}
				next.hub.fault, next.hub.lose = nil, false
				ctx, kill := context.WithCancel(t.Context())
				next.assemble(ctx)
				done := make(chan error, 1)
				go func() { done <- next.actor.Serve(ctx) }()
				switch steps[i] {
				case "token":
					next.tokens <- messages.AccessTokenRequest{Reply: make(chan messages.AccessToken, 1)}
				case "fail":
					next.change(func(f *fakeHub) {
						f.fault = func() error { return &oauth.Error{Reason: messages.ReasonTokenExchangeFailed, Retry: oauth.RetryLater} }
					})
				case "lose":
					next.change(func(f *fakeHub) { f.lose = true })
				case "lock":
					next.breakCustody(messages.ReasonKeychainLocked)
				case "unlock", "mend":
					next.breakCustody(messages.ReasonOK)
				case "logout":
					next.commands <- messages.Logout{Reply: make(chan messages.LogoutResult, 1)}
					synctest.Wait()
					gone = true
				}
				time.Sleep(time.Duration(milliseconds) * time.Millisecond)
				next.cut()
				kill()
				<-done
				h = next
			}
			last := &harness{hub: h.hub, notes: h.notes, kept: h.stored(), reason: messages.ReasonOK}
			last.hub.fault, last.hub.lose = nil, false
			last.assemble(t.Context())
			last.start(t)
			time.Sleep(time.Hour)
			if last.hub.reused > 0 {
				problem = fmt.Sprintf("%d refresh tokens were sent twice", last.hub.reused)
			}
			if gone && last.view.Get().State == messages.SessionSignedIn {
				problem = "a user who signed out is signed in again"
			}
		})
		if problem != "" {
			rt.Fatal(problem)
		}
	})
}

// O8, T14: while the keychain cannot be written, it holds the refresh token of an earlier session, which is spent. After a kill
// that token is not sent again, whatever happened to the later ones.
func TestKilledWhileTheKeychainIsStale(t *testing.T) {
	for name, fault := range map[string]func() error{
		"the next refresh failed":  func() error { return &oauth.Error{Reason: messages.ReasonTokenExchangeFailed, Retry: oauth.RetryLater} },
		"the next refresh was cut": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t)
				h.intact = true
				h.signedIn(0)
				h.hub.took = time.Second
				ctx, kill := context.WithCancel(t.Context())
				h.assemble(ctx)
				done := make(chan error, 1)
				go func() { done <- h.actor.Serve(ctx) }()
				synctest.Wait()
				h.breakCustody(messages.ReasonKeychainLocked)
				time.Sleep(time.Minute)
				if got := h.refreshes(); got != 1 || h.stored().Session.RefreshToken.Reveal() != "refresh-1" {
					t.Fatalf("got %d refreshes, stored %s; want 1, and refresh-1 left in the keychain", got, h.stored().Session.RefreshToken.Reveal())
				}
				h.change(func(f *fakeHub) { f.fault = fault })
				for h.refreshes() < 2 {
					time.Sleep(100 * time.Millisecond)
				}
				if fault != nil {
					time.Sleep(2 * time.Second) // the failure has arrived
				}
				h.cut()
				kill()
				<-done
				next := &harness{hub: h.hub, notes: h.notes, kept: h.stored(), reason: messages.ReasonOK}
				next.change(func(f *fakeHub) { f.fault = nil })
				next.assemble(t.Context())
				next.start(t)
				time.Sleep(time.Hour)
				if next.hub.reused != 0 {
					t.Errorf("spent refresh tokens that were sent: got %d, want none", next.hub.reused)
				}
				next.wantView(t, messages.SessionSignedOut, messages.ReasonSignInNeeded)
				if v := next.view.Get(); v.Trouble != messages.ReasonRefreshInterrupted {
					t.Errorf("view: got %+v, want trouble refresh_interrupted", v)
				}
			})
		})
	}
}

// O8, O9: while the note cannot be read, it is unknown whether the refresh token is spent and whether the user has signed out.
// The session is not used until the note can be read, or until a sign-in or sign-out replaces it.
func TestNoteNotReadable(t *testing.T) {
	for name, act := range map[string]func(t *testing.T, h *harness){
		"readable later": func(_ *testing.T, h *harness) {
			h.notes.mu.Lock()
			h.notes.unread = false
			h.notes.mu.Unlock()
			time.Sleep(5 * time.Minute)
		},
		"signing out": func(t *testing.T, h *harness) {
			if r := h.logoutResult(); r.Reason != messages.ReasonOK || r.Hub != messages.ReasonOK {
				t.Errorf("signing out: got %+v, want ok", r)
			}
		},
		"signing in": func(t *testing.T, h *harness) {
			_, done, cancel := h.login()
			defer cancel()
			h.hub.callback <- nil
			if r := <-done; r.Reason != messages.ReasonOK {
				t.Errorf("signing in: got %+v, want ok", r)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t)
				h.signedIn(0)
				h.notes.note.InFlight, h.notes.unread = sessionnote.Digest(messages.NewSecret("refresh-1")), true
				h.start(t)
				time.Sleep(time.Hour)
				if h.refreshes() != 0 || !h.stored().Found {
					t.Errorf("got %d refreshes, session stored %v; want none, true", h.refreshes(), h.stored().Found)
				}
				h.wantView(t, messages.SessionUnknown, messages.ReasonInternalError)
				act(t, h)
				synctest.Wait()
				if h.view.Get().State == messages.SessionUnknown || h.hub.reused != 0 {
					t.Errorf("got view %+v, %d spent tokens sent; want a known state and none", h.view.Get(), h.hub.reused)
				}
				note := h.notes.get()
				note.Pending = [messages.PendingRevocations]sessionnote.Pending{} // the doubtful session, until a sign-out
				if h.notes.unread || note != (sessionnote.Note{}) {
					t.Errorf("note: got unreadable %v, %+v; want false, empty", h.notes.unread, h.notes.get())
				}
			})
		})
	}
}

// O8: no refresh token is sent while the note cannot be written; the refresh waits for the disk.
func TestNoRefreshWithoutNote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(0)
		h.notes.broken = true
		h.start(t)
		wantToken(t, h.token(), "", messages.ReasonInternalError)
		if !h.hub.good["refresh-1"] || !h.stored().Found {
			t.Errorf("got refresh token unspent %t, session stored %t; want true, true", h.hub.good["refresh-1"], h.stored().Found)
		}
		h.notes.mu.Lock()
		h.notes.broken = false
		h.notes.mu.Unlock()
		time.Sleep(time.Minute)
		wantToken(t, h.token(), "access-2", messages.ReasonOK)
	})
}

// O8: after the clock was wrong by a year in either direction, or the machine slept for three days, the state is right within
// a minute, without a request.
func TestClock(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for name, shift := range map[string]time.Duration{"a year ahead": year, "a year behind": -year, "three days of sleep": 3 * 24 * time.Hour, "a day behind": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t)
				h.signedIn(life)
				// The bubble's clock cannot jump, so the session's times are moved the other way.
				meta := &h.kept.Session.Meta
				meta.AccessIssued, meta.AccessExpires = meta.AccessIssued.Add(-shift), meta.AccessExpires.Add(-shift)
				h.start(t)
				time.Sleep(time.Minute)
				wantToken(t, h.token(), "access-2", messages.ReasonOK)
				if v := h.view.Get(); v.State != messages.SessionSignedIn || time.Until(v.Expires) > life {
					t.Errorf("view: got %+v, want signed in, with an expiry within %v", v, life)
				}
				if h.refreshes() != 1 {
					t.Errorf("got %d refreshes, want 1", h.refreshes())
				}
			})
		})
	}
	// A sleep or a clock change ends the backoff.
	l := &loop{lastBeat: wall().Add(-time.Hour), nextTry: wall().Add(10 * time.Minute), hubPause: pauses(longestHubPause)}
	if l.lookAtClock(); !l.nextTry.IsZero() {
		t.Errorf("next try after a sleep: got %v, want now", l.nextTry)
	}
	l = &loop{lastBeat: wall().Add(time.Hour), nextTry: wall().Add(2 * time.Hour), hubPause: pauses(longestHubPause)}
	if l.lookAtClock(); !l.nextTry.IsZero() {
		t.Errorf("next try after the clock was set back: got %v, want now", l.nextTry)
	}
}

// O8: when an access token without a refresh token expires, the view says so without a request.
func TestRunsOutByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(life)
		h.kept.Session.RefreshToken = messages.Secret{}
		h.start(t)
		h.wantView(t, messages.SessionSignedIn, messages.ReasonOK)
		time.Sleep(life)
		h.wantView(t, messages.SessionSignedOut, messages.ReasonSignInNeeded)
	})
}

// O5, O8: the stored scope is the granted one; a refresh response without scope does not change it.
func TestScopeStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(0)
		h.kept.Session.Meta.Scope = "vault:read"
		h.hub.scope = ""
		h.start(t)
		wantToken(t, h.token(), "access-2", messages.ReasonOK)
		if got := h.stored().Session.Meta.Scope; got != "vault:read" {
			t.Errorf("stored scope: got %q, want vault:read", got)
		}
	})
}

// O8: the view shows the last trouble until the operation succeeds.
func TestTroubleIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(0)
		h.hub.fault = func() error { return &oauth.Error{Reason: messages.ReasonTokenExchangeFailed, Retry: oauth.RetryLater} }
		h.start(t)
		if v := h.view.Get(); v.Trouble != messages.ReasonTokenExchangeFailed || v.TroubleAt.IsZero() || v.State != messages.SessionSignedIn {
			t.Errorf("view: got %+v, want signed in with trouble token_exchange_failed", v)
		}
		h.change(func(f *fakeHub) { f.fault = nil })
		time.Sleep(time.Minute)
		if v := h.view.Get(); v.Trouble != "" || !v.TroubleAt.IsZero() {
			t.Errorf("view: got %+v, want no trouble", v)
		}
	})
}
