package messages

import "fmt"

const redacted = "[redacted]"

// Secret holds bytes that must never be printed, logged or encoded: the loopback token, the access and refresh
// tokens, an authorization code. Every format verb, encoder and log field gives "[redacted]"; only Reveal
// returns the bytes (rule 2, T12). The zero Secret is empty. Compare digests in constant time, never Secrets
// by ==.
type Secret struct{ value *string }

// NewSecret wraps value.
func NewSecret(value string) Secret { return Secret{&value} }

// Reveal returns the bytes. Only an adapter that must send or store them may call it.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero reports whether the secret is empty.
func (s Secret) IsZero() bool { return s.value == nil || *s.value == "" }

func (s Secret) String() string                { return redacted }
func (s Secret) GoString() string              { return redacted }
func (s Secret) Format(f fmt.State, _ rune)    { _, _ = f.Write([]byte(redacted)) }
func (s Secret) MarshalText() ([]byte, error)  { return []byte(redacted), nil }
func (s Secret) MarshalJSON() ([]byte, error)  { return []byte(`"` + redacted + `"`), nil }
func (s *Secret) UnmarshalJSON(_ []byte) error { return fmt.Errorf("a secret cannot be decoded") }
func (s *Secret) UnmarshalText(_ []byte) error { return fmt.Errorf("a secret cannot be decoded") }
