package keychain

import (
	"bytes"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

// K2: both ends of a session derive the same key, and what one encrypts the other decrypts.
func TestSession(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ours, ourPublic, err := dhKey()
		if err != nil {
			t.Fatal(err)
		}
		theirs, theirPublic, err := dhKey()
		if err != nil {
			t.Fatal(err)
		}
		a, err := dhShared(ours, theirPublic)
		if err != nil {
			t.Fatal(err)
		}
		b, err := dhShared(theirs, ourPublic)
		if err != nil || !bytes.Equal(a, b) {
			t.Fatalf("keys of the two ends: got different ones (%v), want the same", err)
		}
		value := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "value")
		encrypted, err := (&session{path: "/s", key: a}).encrypt(value)
		if err != nil {
			t.Fatal(err)
		}
		got, err := (&session{path: "/s", key: b}).decrypt(encrypted)
		if err != nil || !bytes.Equal(got, value) {
			t.Fatalf("got %q, %v, want %q", got, err, value)
		}
	})
}

// K2: a public key for which the shared secret is predictable is refused.
func TestWeakPublicKeys(t *testing.T) {
	private, _, err := dhKey()
	if err != nil {
		t.Fatal(err)
	}
	below := new(big.Int).Sub(dhPrime, big.NewInt(1))
	for _, public := range [][]byte{nil, {0}, {1}, below.Bytes(), dhPrime.Bytes(), bytes.Repeat([]byte{0xff}, 200)} {
		if _, err := dhShared(private, public); err == nil {
			t.Errorf("public key %x: got no error, want one", public)
		}
	}
}

// K7: malformed data from the bus causes an error, not a panic.
func FuzzDecrypt(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), []byte("0123456789abcdef"))
	f.Add([]byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, parameters, value []byte) {
		_, _ = (&session{key: []byte("0123456789abcdef")}).decrypt(secret{Parameters: parameters, Value: value})
	})
}
