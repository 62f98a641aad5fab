package guard

import (
	"crypto/sha256"
	"crypto/subtle"

	"companion/messages"
)

// Caller is the owner of a request's token.
type Caller uint8

// The callers. Probe may only ask for GET /v1/models (A4); the route table enforces that.
const (
	Nobody Caller = iota
	User
	Probe
)

// longest is the maximum length of a valid token in bytes. Ours have 43 (K6).
const longest = 128

// Tokens holds the digests of the valid tokens. It is immutable. The zero Tokens admits no request.
type Tokens struct {
	user, probe       [sha256.Size]byte
	hasUser, hasProbe int
}

// NewTokens digests the loopback token and the probe's token. An empty token is never valid.
func NewTokens(user, probe messages.Secret) *Tokens {
	t := new(Tokens)
	if !user.IsZero() {
		t.user, t.hasUser = sha256.Sum256([]byte(user.Reveal())), 1
	}
	if !probe.IsZero() {
		t.probe, t.hasProbe = sha256.Sum256([]byte(probe.Reveal())), 1
	}
	return t
}

// identify compares digests of equal length in constant time, always with both tokens.
func (t *Tokens) identify(presented string) Caller {
	var held [longest]byte // converting the string would allocate
	n := copy(held[:], presented)
	digest := sha256.Sum256(held[:n])
	fits := subtle.ConstantTimeLessOrEq(len(presented), longest) &^ subtle.ConstantTimeEq(int32(len(presented)), 0)
	user := subtle.ConstantTimeCompare(digest[:], t.user[:]) & t.hasUser & fits
	probe := subtle.ConstantTimeCompare(digest[:], t.probe[:]) & t.hasProbe & fits
	// If both tokens are equal, the caller with fewer rights wins.
	return Caller(subtle.ConstantTimeSelect(probe, int(Probe), user*int(User)))
}
