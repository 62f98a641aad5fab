package custody

import (
	"testing"
	"testing/synctest"

	"companion/messages"
)

// K8: a token to revoke has an account of its own, which no session is loaded from. A full keychain says so, and no call of
// these raises a dialog.
func TestRevocations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness()
		h.start(t)
		ask := func(build func(chan<- messages.Reason) messages.ToCustody) messages.Reason {
			reply := make(chan messages.Reason, 1)
			h.mailbox <- build(reply)
			return <-reply
		}
		load := func(place int) messages.LoadedRevocation {
			reply := make(chan messages.LoadedRevocation, 1)
			h.mailbox <- messages.LoadRevocation{Place: place, Reply: reply}
			return <-reply
		}
		store := func(place int) messages.Reason {
			return ask(func(r chan<- messages.Reason) messages.ToCustody {
				return messages.StoreRevocation{Place: place, Token: messages.NewSecret("spent"), Reply: r}
			})
		}
		for place := range messages.PendingRevocations {
			if got := load(place); !got.Token.IsZero() || got.Reason != messages.ReasonOK {
				t.Errorf("place %d before: got %+v, want none, ok", place, got)
			}
			if got := store(place); got != messages.ReasonOK {
				t.Errorf("storing in place %d: got %s, want ok", place, got)
			}
			if got := load(place); got.Token.Reveal() != "spent" || got.Reason != messages.ReasonOK {
				t.Errorf("place %d: got %q, %s; want spent, ok", place, got.Token.Reveal(), got.Reason)
			}
		}
		if got := h.load(); got.Found {
			t.Error("a session: got one, want none")
		}
		if got := ask(func(r chan<- messages.Reason) messages.ToCustody { return messages.ClearRevocation{Place: 2, Reply: r} }); got != messages.ReasonOK {
			t.Errorf("clearing: got %s, want ok", got)
		}
		if got := load(2); !got.Token.IsZero() {
			t.Errorf("cleared: got %q, want none", got.Token.Reveal())
		}
		h.keychain.set(failing(messages.ReasonKeychainFull))
		if got := store(2); got != messages.ReasonKeychainFull {
			t.Errorf("full: got %s, want %s", got, messages.ReasonKeychainFull)
		}
		for _, call := range h.keychain.calls() {
			if call == "set revocation-1" || call == "get revocation-1" {
				t.Errorf("got the call %q, want it quiet", call)
			}
		}
	})
}
