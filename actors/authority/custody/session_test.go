package custody

import (
	"context"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"companion/adapters/authority/keychain"
	"companion/messages"
)

// K5: a stored session loads unchanged, with and without a refresh token.
func TestSessionRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness()
		h.start(t)
		if got := h.load(); got.Found || got.Reason != messages.ReasonOK {
			t.Fatalf("empty keychain: got %+v, want no session and ok", got)
		}
		for n := range 3 {
			s := testSession(n)
			if n == 1 {
				s.RefreshToken = messages.Secret{}
			}
			if r := h.store(s); r != messages.ReasonOK {
				t.Fatalf("got %v, want %v", r, messages.ReasonOK)
			}
			got := h.load()
			if !got.Found || got.Session.Meta != s.Meta || got.Session.AccessToken.Reveal() != s.AccessToken.Reveal() ||
				got.Session.RefreshToken.Reveal() != s.RefreshToken.Reveal() {
				t.Fatalf("got %+v, want session %d with its tokens", got, n)
			}
		}
		token := h.keychain.item(keychain.LoopbackToken)
		reply := make(chan messages.Reason, 1)
		h.mailbox <- messages.ClearSession{Reply: reply}
		if r := <-reply; r != messages.ReasonOK || h.load().Found {
			t.Fatalf("clear: got %s, want ok and no session left", r)
		}
		// O9: signing out keeps the loopback token.
		if h.keychain.item(keychain.LoopbackToken) != token {
			t.Fatal("after sign-out: got another loopback token, want it unchanged")
		}
	})
}

// K5: a session loads only if it is complete. K4: a failing keychain is reported with its own reason.
func TestTornSession(t *testing.T) {
	good := `{"meta":{"issuer":"i","clientId":"c","scope":"s","accessExpires":"2026-01-01T00:00:00Z","user":{"sub":"s","provider":"","id":"","name":"","role":""}},"refresh":true}`
	rows := map[string]struct {
		items map[keychain.Account]string
		found bool
	}{
		"whole":            {map[keychain.Account]string{keychain.SessionMetadata: good, keychain.AccessToken: "a", keychain.RefreshToken: "r"}, true},
		"no metadata":      {map[keychain.Account]string{keychain.AccessToken: "a", keychain.RefreshToken: "r"}, false},
		"no access token":  {map[keychain.Account]string{keychain.SessionMetadata: good, keychain.RefreshToken: "r"}, false},
		"no refresh token": {map[keychain.Account]string{keychain.SessionMetadata: good, keychain.AccessToken: "a"}, false},
		"truncated":        {map[keychain.Account]string{keychain.SessionMetadata: good[:40], keychain.AccessToken: "a", keychain.RefreshToken: "r"}, false},
		"unknown key":      {map[keychain.Account]string{keychain.SessionMetadata: `{"x":1}`, keychain.AccessToken: "a", keychain.RefreshToken: "r"}, false},
		"not JSON":         {map[keychain.Account]string{keychain.SessionMetadata: `hello`, keychain.AccessToken: "a", keychain.RefreshToken: "r"}, false},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			got := loadSession(t.Context(), &fakeKeychain{items: r.items})
			if got.Found != r.found || got.Reason != messages.ReasonOK {
				t.Fatalf("got %+v, want found %t and ok", got, r.found)
			}
		})
	}
	k := &fakeKeychain{items: rows["whole"].items}
	for _, reason := range []messages.Reason{messages.ReasonKeychainLocked, messages.ReasonKeychainUnavailable} {
		k.set(failing(reason))
		if got := loadSession(t.Context(), k); got.Found || got.Reason != reason {
			t.Fatalf("got %+v, want no session and %s", got, reason)
		}
	}
	k.set(failing(messages.ReasonInvalidSecret)) // oversized
	if got := loadSession(t.Context(), k); got.Found || got.Reason != messages.ReasonOK {
		t.Fatalf("oversized item: got %+v, want no session and ok", got)
	}
}

// K5 as a property: after a crash between any two keychain operations of a store or a clear, load returns the old session,
// the new one or none, never a mixture.
func TestCrashBetweenWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := &fakeKeychain{items: map[keychain.Account]string{}}
		before, after := testSession(1), testSession(2)
		if rapid.Bool().Draw(t, "old without refresh") {
			before.RefreshToken = messages.Secret{}
		}
		if rapid.Bool().Draw(t, "new without refresh") {
			after.RefreshToken = messages.Secret{}
		}
		if r := storeSession(context.Background(), k, before); r != messages.ReasonOK {
			t.Fatalf("got %v, want %v", r, messages.ReasonOK)
		}
		left := rapid.IntRange(0, 6).Draw(t, "operations before the crash")
		ctx, crash := context.WithCancel(context.Background())
		defer crash()
		k.set(func(string, keychain.Account) error {
			if left == 0 {
				crash()
			}
			left--
			return nil
		})
		if rapid.Bool().Draw(t, "clear") {
			clearSession(ctx, k)
		} else {
			storeSession(ctx, k, after)
		}
		k.set(nil)
		got := loadSession(context.Background(), k)
		if got.Reason != messages.ReasonOK {
			t.Fatal(got.Reason)
		}
		same := func(s messages.Session) bool {
			return got.Session.Meta == s.Meta && got.Session.AccessToken.Reveal() == s.AccessToken.Reveal() &&
				got.Session.RefreshToken.Reveal() == s.RefreshToken.Reveal()
		}
		if got.Found && !same(before) && !same(after) {
			t.Fatalf("got %+v, want the old session, the new one or none", got.Session.Meta)
		}
	})
}

// recording records writes, so that a test can apply them in another order.
type recording struct {
	*fakeKeychain
	writes []func(k *fakeKeychain)
}

func (r *recording) Set(_ context.Context, a keychain.Account, s messages.Secret) error {
	r.writes = append(r.writes, func(k *fakeKeychain) { k.items[a] = s.Reveal() })
	return nil
}

func (r *recording) Delete(_ context.Context, a keychain.Account) error {
	r.writes = append(r.writes, func(k *fakeKeychain) { delete(k.items, a) })
	return nil
}

// K5, K7 as a property: a keychain that hung may apply the writes of two stores in any order and number. Load then returns
// one of the two sessions or none, never a mixture.
func TestLateWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &recording{}
		sessions := []messages.Session{testSession(1), testSession(2)}
		if rapid.Bool().Draw(t, "first without refresh") {
			sessions[0].RefreshToken = messages.Secret{}
		}
		for _, s := range sessions {
			storeSession(context.Background(), r, s)
		}
		k := &fakeKeychain{items: map[keychain.Account]string{}}
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(r.writes)-1), 0, 20).Draw(t, "writes") {
			r.writes[i](k)
		}
		got := loadSession(context.Background(), k)
		if !got.Found {
			return
		}
		for _, s := range sessions {
			if got.Session.Meta == s.Meta && got.Session.AccessToken.Reveal() == s.AccessToken.Reveal() && got.Session.RefreshToken.Reveal() == s.RefreshToken.Reveal() {
				return
			}
		}
		t.Fatalf("got a mixture: %+v with tokens %s and %s; want one of the two sessions or none", got.Session.Meta, got.Session.AccessToken.Reveal(), got.Session.RefreshToken.Reveal())
	})
}
