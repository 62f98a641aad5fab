package keychain

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"companion/messages"
)

// testBackEnd tests the contract of a back end: K1, K2, K4. largest is the largest value that it can hold, in bytes.
func testBackEnd(t *testing.T, back backEnd, service string, largest int) {
	t.Helper()
	k := newKeychain(back, Options{Service: service, Timeout: 30 * time.Second})
	other := newKeychain(back, Options{Service: service + "-other", Timeout: 30 * time.Second})
	ctx := context.Background()
	accounts := []Account{AccessToken, RefreshToken, SessionMetadata, LoopbackToken}
	t.Cleanup(func() {
		for _, a := range accounts {
			_ = k.Delete(context.Background(), a)
			_ = other.Delete(context.Background(), a)
		}
	})
	values := map[string]string{
		"one byte":     "x",
		"token":        "Zm9vYmFyLWJhel9xdXV4",
		"json":         `{"issuer":"https://hub.example","n":1}`,
		"quotes":       "a\"b'c`$(d)\\ e\n\tf",
		"unicode":      "käse 🧀",
		"full size":    strings.Repeat("a", largest),
		"multibyte":    strings.Repeat("é", largest/2),
		"final spaces": "a  ",
	}
	for _, a := range accounts {
		t.Run(string(a), func(t *testing.T) {
			wantAbsent(t, k, a)
			if err := k.Delete(ctx, a); err != nil {
				t.Fatalf("deleting a missing item: got %v, want no error", err)
			}
			for name, v := range values {
				if err := k.Set(ctx, a, messages.NewSecret(v)); err != nil {
					t.Fatalf("%s: got %v (cause %v), want no error", name, err, errors.Unwrap(err))
				}
				wantValue(t, k, a, v)
			}
			wantAbsent(t, other, a)
			if err := k.Delete(ctx, a); err != nil {
				t.Fatal(err)
			}
			wantAbsent(t, k, a)
		})
	}
	t.Run("accounts are apart", func(t *testing.T) {
		for _, a := range accounts {
			if err := k.Set(ctx, a, messages.NewSecret("of "+string(a))); err != nil {
				t.Fatal(err)
			}
		}
		if err := k.Delete(ctx, RefreshToken); err != nil {
			t.Fatal(err)
		}
		wantAbsent(t, k, RefreshToken)
		for _, a := range []Account{AccessToken, SessionMetadata, LoopbackToken} {
			wantValue(t, k, a, "of "+string(a))
		}
	})
}

func wantValue(t *testing.T, k *Keychain, a Account, want string) {
	t.Helper()
	got, found, err := k.Get(context.Background(), a)
	if err != nil || !found || got.Reveal() != want {
		t.Fatalf("get %s: got found %v, err %v, %d bytes; want %d bytes", a, found, err, len(got.Reveal()), len(want))
	}
}

func wantAbsent(t *testing.T, k *Keychain, a Account) {
	t.Helper()
	got, found, err := k.Get(context.Background(), a)
	if err != nil || found || !got.IsZero() {
		t.Fatalf("get %s: got found %v, err %v (cause %v); want no item", a, found, err, cause(err))
	}
}

func wantReason(t *testing.T, err error, want messages.Reason) {
	t.Helper()
	if got := ReasonOf(err); got != want {
		t.Fatalf("got reason %s (%v, cause %v), want %s", got, err, cause(err), want)
	}
}

// cause returns the innermost error, which the text of err does not contain.
func cause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
