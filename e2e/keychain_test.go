package e2e

import (
	"strings"
	"testing"
	"time"

	"companion/adapters/authority/keychain"
	"companion/e2e/harness"
	"companion/messages"
)

// A4, A5: when the loopback token disappears from the keychain or another program overwrites it, inference is
// not available, and becomes available when the token is stored and read back.
func TestLostToken(t *testing.T) {
	t.Parallel() // most of it is waiting
	c := harness.Ready(t, "")
	token, _ := c.Secret(keychain.LoopbackToken)
	for _, row := range []struct {
		reason string
		lose   func() error
	}{
		{"missing_token", func() error { return c.Keychain().Delete(t.Context(), keychain.LoopbackToken) }},
		{"invalid_token", func() error {
			return c.Keychain().Set(t.Context(), keychain.LoopbackToken, messages.NewSecret("another"))
		}},
	} {
		if err := row.lose(); err != nil {
			t.Fatal(err)
		}
		lost := `"event":"availability changed","available":false,"reason":"` + row.reason + `"`
		for deadline := time.Now().Add(time.Minute); !strings.Contains(c.Log(), lost); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the log never says %s", lost)
			}
		}
		c.Available()
		if again, found := c.Secret(keychain.LoopbackToken); !found || again != token {
			t.Error("the token was not stored again")
		}
	}
}
