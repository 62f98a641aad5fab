package session

import (
	"testing"
	"testing/synctest"
	"time"

	"companion/messages"
)

// O8, M1: an unexpired access token that the hub did not accept is replaced by a refresh. A refused token that is not the
// current one changes nothing.
func TestTokenRefusedByHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(time.Hour)
		h.start(t)
		ask := func(refused messages.Secret) messages.AccessToken {
			reply := make(chan messages.AccessToken, 1)
			h.tokens <- messages.AccessTokenRequest{Reply: reply, Refused: refused}
			return <-reply
		}
		first := ask(messages.Secret{})
		if again := ask(messages.NewSecret("another")); again.Token.Reveal() != first.Token.Reveal() || h.hub.refreshes != 0 {
			t.Fatalf("refused token that is not the current one: got %d refreshes, want none", h.hub.refreshes)
		}
		second := ask(first.Token)
		if second.Reason != messages.ReasonOK || second.Token.Reveal() == first.Token.Reveal() || h.hub.refreshes != 1 {
			t.Fatalf("got %s after %d refreshes, want another token after 1", second.Reason, h.hub.refreshes)
		}
		if again := ask(first.Token); again.Token.Reveal() != second.Token.Reveal() || h.hub.refreshes != 1 {
			t.Fatalf("old token refused again: got %d refreshes, want 1", h.hub.refreshes)
		}
	})
}
