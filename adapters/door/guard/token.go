package guard

import (
	"crypto/sha256"
	"crypto/subtle"

	"companion/messages"
)

// Caller says whose token a request brought.
type Caller uint8

// The callers. Probe is good for GET /v1/models alone (A4): the route table asks.
const (
	Nobody Caller = iota
	User
	Probe
)

// longest is the longest token that can be right, in bytes; ours have 43 (K6).
const longest = 128

// Tokens holds the digests of the expected tokens. The zero Tokens knows none and admits nobody.
// Immutable: With makes a new one.
type Tokens struct {
	user, probe       [sha256.Size]byte
	hasUser, hasProbe int
}

// NewTokens digests the loopback token and the probe's; an empty one is none.
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

// identify compares in constant time over digests of equal length, always with both.
func (t *Tokens) identify(presented string) Caller {
	var held [longest]byte // a conversion of the string would allocate
	n := copy(held[:], presented)
	digest := sha256.Sum256(held[:n])
	fits := subtle.ConstantTimeLessOrEq(len(presented), longest) &^ subtle.ConstantTimeEq(int32(len(presented)), 0)
	user := subtle.ConstantTimeCompare(digest[:], t.user[:]) & t.hasUser & fits
	probe := subtle.ConstantTimeCompare(digest[:], t.probe[:]) & t.hasProbe & fits
	// Were both tokens ever the same, the lesser right wins.
	return Caller(subtle.ConstantTimeSelect(probe, int(Probe), user*int(User)))
}
