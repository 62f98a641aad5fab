package session

import (
	"testing"
	"testing/synctest"
	"time"

	"companion/adapters/authority/sessionnote"
	"companion/messages"
)

// O8: a note that cannot be cleared when the refreshed session is stored is cleared later. Otherwise the next start would take the
// stored session for an earlier one, whose refresh token is spent.
func TestNoteIsClearedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(0)
		h.notes.note.InFlight = sessionnote.Digest(messages.NewSecret("another"))
		broken := func(is bool) {
			h.notes.mu.Lock()
			defer h.notes.mu.Unlock()
			h.notes.broken = is
		}
		h.hub.fault = func() error { broken(true); return nil } // the note of the refresh is on the disk by now
		h.start(t)
		wantToken(t, h.token(), "access-2", messages.ReasonOK)
		if note := h.notes.get(); !note.Stale {
			t.Fatalf("after the refresh: got note %+v, want a stale one: this test proves nothing", note)
		}
		broken(false)
		time.Sleep(time.Minute)
		if note := h.notes.get(); note != (sessionnote.Note{}) {
			t.Errorf("a minute later: got note %+v, want an empty one", note)
		}
	})
}

// O8, K5: the daemon was killed while it stored a refreshed session, so that the keychain holds no whole one. The view says why the
// user must sign in again.
func TestKilledWhileStoring(t *testing.T) {
	for _, inFlight := range []string{"", "a digest"} {
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t)
			h.notes.note.InFlight = inFlight
			h.start(t)
			h.wantView(t, messages.SessionSignedOut, messages.ReasonSignInNeeded)
			want := messages.Reason("")
			if inFlight != "" {
				want = messages.ReasonRefreshInterrupted
			}
			if v := h.view.Get(); v.Trouble != want {
				t.Errorf("in flight %q: got the trouble %q, want %q", inFlight, v.Trouble, want)
			}
		})
	}
}
