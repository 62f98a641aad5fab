// Package sessionnote keeps facts about the session in a private file, because they must survive the end of the daemon and
// be known although the keychain is locked: which refresh tokens may have been sent, that the user has signed out, and which
// sessions the hub has not revoked yet. The file holds no secret: a refresh token is named by its SHA-256 digest.
package sessionnote

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"github.com/go-json-experiment/json"

	"companion/adapters/privatefs"
	"companion/messages"
)

// Note is what the file says. The zero Note says nothing.
type Note struct {
	// InFlight is the digest of a refresh token that is being sent to the hub, or was when the daemon ended (O8).
	InFlight string `json:"inFlight,omitempty"`
	// Stale says that the keychain holds an earlier session than the one that InFlight is about, because the keychain could not
	// be written: the refresh token in the keychain is spent.
	Stale bool `json:"stale,omitempty"`
	// SignedOut says that a session in the keychain is to be revoked and removed (O9).
	SignedOut bool `json:"signedOut,omitempty"`
	// Pending are ended sessions that the hub has not revoked yet. The refresh token of each is in the keychain, in the place of
	// the same index (K8). A zero entry is a free place.
	Pending [messages.PendingRevocations]Pending `json:"pending,omitzero"`
}

// Pending is a session that the hub has not revoked yet.
type Pending struct {
	Token    string `json:"token,omitempty"` // the digest of its refresh token
	Issuer   string `json:"issuer,omitempty"`
	ClientID string `json:"clientId,omitempty"`
	Since    int64  `json:"since,omitempty"` // Unix time
	// Held says that its access token is in use: it is revoked when the user signs out, or in again.
	Held bool `json:"held,omitempty"`
}

// Place returns the place of the session whose refresh token has this digest, or the first free one, or -1.
func (n Note) Place(digest string) int {
	free := -1
	for i, p := range n.Pending {
		if p.Token == digest {
			return i
		}
		if p.Token == "" && free < 0 {
			free = i
		}
	}
	return free
}

// Digest names a token: its SHA-256 in hexadecimal, or nothing for no token. Tokens have at least 128 bits of entropy (RFC
// 6749 section 10.10), so that a digest gives nothing away.
func Digest(token messages.Secret) string {
	if token.IsZero() {
		return ""
	}
	sum := sha256.Sum256([]byte(token.Reveal()))
	return hex.EncodeToString(sum[:])
}

// File is the note's place. Its folder is private.
type File string

// Read returns the note; a missing file is the zero Note. After any other error the note is unknown.
func (f File) Read() (Note, error) {
	data, err := privatefs.ReadRegular(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return Note{}, nil
	}
	if err != nil {
		return Note{}, fmt.Errorf("reading the session's note: %w", err)
	}
	var n Note
	if err := json.Unmarshal(data, &n); err != nil {
		return Note{}, fmt.Errorf("reading the session's note: %w", err)
	}
	return n, nil
}

// Write replaces the note. When it returns nil the note is on the disk.
func (f File) Write(n Note) error {
	data, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encoding the session's note: %w", err)
	}
	return privatefs.WriteFile(string(f), data)
}
