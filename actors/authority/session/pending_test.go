package session

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"companion/adapters/authority/sessionnote"
	"companion/messages"
)

// O9: a sign-in that replaces a session of another hub says that that hub has not revoked it, also when the keychain was
// locked at the start.
func TestLoginReplacesForeignSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(time.Hour)
		h.kept.Session.Meta.Issuer = "https://other.example/x"
		h.breakCustody(messages.ReasonKeychainLocked)
		h.start(t)
		_, done, cancel := h.login()
		defer cancel()
		h.breakCustody(messages.ReasonOK)
		h.hub.callback <- nil
		if got := <-done; got.Reason != messages.ReasonOK || got.Hub != messages.ReasonIssuerMismatch {
			t.Errorf("got %+v, want ok, and %s for the hub", got, messages.ReasonIssuerMismatch)
		}
	})
}

// K8: a session whose sign-out is tried again is one pending revocation.
func TestPendingOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(time.Hour)
		h.hub.noRevoke = true
		h.start(t)
		h.breakCustody(messages.ReasonKeychainLocked)
		h.logoutResult()
		h.breakCustody(messages.ReasonOK)
		h.changed.Set(1)
		time.Sleep(5 * time.Minute)
		if got := h.view.Get().Unrevoked; got != 1 {
			t.Errorf("got %d pending revocations in the view, want 1", got)
		}
	})
}

// K8: a token that is held for the next sign-out leaves the keychain after thirty days, however often the daemon is started.
func TestHeldTokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(time.Hour)
		h.notes.note.InFlight = sessionnote.Digest(messages.NewSecret("refresh-1"))
		h.start(t)
		for range 4 {
			time.Sleep(10 * 24 * time.Hour)
			h = h.again(t)
		}
		time.Sleep(time.Hour)
		if got := h.pending(); len(got) != 0 {
			t.Errorf("got %v after forty days, want none", got)
		}
	})
}

// O8, X9: the view says why a session was lost in a kill, also after the revocation of an earlier session has succeeded.
func TestLossIsNotHidden(t *testing.T) {
	for _, kept := range []bool{false, true} { // the session whose refresh token was sent
		testLoss(t, kept)
	}
}

func testLoss(t *testing.T, kept bool) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		sent := "refresh-2"
		if kept { // with an access token that has expired
			h.signedIn(-time.Minute)
			sent = h.kept.Session.RefreshToken.Reveal()
		}
		h.notes.note.InFlight = sessionnote.Digest(messages.NewSecret(sent))
		h.notes.note.Pending[0] = sessionnote.Pending{
			Token: sessionnote.Digest(messages.NewSecret("refresh-0")), Issuer: issuer, ClientID: "c", Since: time.Now().Unix(),
		}
		h.places[0] = messages.NewSecret("refresh-0")
		h.start(t)
		time.Sleep(time.Minute)
		if view := h.view.Get(); view.State != messages.SessionSignedOut || view.Trouble != messages.ReasonRefreshInterrupted {
			t.Errorf("kept %v: got %+v, want signed out and %s", kept, view, messages.ReasonRefreshInterrupted)
		}
		if slices.Contains(h.pending(), "refresh-0") {
			t.Errorf("kept %v: got refresh-0 pending, want it revoked: this test proves nothing", kept)
		}
	})
}
