package guard

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"

	"companion/messages"
)

// Caller is the owner of a request's token. A value above Probe is an application; Tokens.Application returns it.
type Caller int

// The callers. Probe may only ask for GET /v1/models (A4); the route table enforces that.
const (
	Nobody Caller = iota
	User
	Probe
	firstApplication
)

// longest is the maximum length of a valid token in bytes. Ours have 43 (K6).
const longest = 128

// MaxApplications bounds the application tokens: every request is compared with all of them.
const MaxApplications = 32

// Application is one application token (L14). The lock that guards the Windows also guards Window.
type Application struct {
	Name    string
	Digest  [sha256.Size]byte // SHA-256 of the token
	Expires int64             // wall-clock time in nanoseconds since 1970 from which it is invalid; 0: never
	Window  *Window
}

// digest is a SHA-256 digest in words, which compare faster than bytes.
type digest [sha256.Size / 8]uint64

func wordsOf(sum [sha256.Size]byte) (d digest) {
	for i := range d {
		d[i] = binary.NativeEndian.Uint64(sum[8*i:])
	}
	return d
}

// equal returns 1 for equal digests and 0 otherwise, in constant time.
func (d *digest) equal(other *digest) int {
	var differs uint64
	for i := range d {
		differs |= d[i] ^ other[i]
	}
	return int(1 ^ (differs|-differs)>>63)
}

// Tokens holds the digests of the valid tokens. It is immutable, except for the windows of the applications. The
// zero Tokens admits no request.
type Tokens struct {
	user, probe       digest
	hasUser, hasProbe int

	applications []Application
	digests      []digest // of applications
}

// NewTokens digests the loopback token and the probe's token. An empty token is never valid. Applications beyond
// MaxApplications are left out.
func NewTokens(user, probe messages.Secret, applications ...Application) *Tokens {
	t := new(Tokens)
	if !user.IsZero() {
		t.user, t.hasUser = wordsOf(sha256.Sum256([]byte(user.Reveal()))), 1
	}
	if !probe.IsZero() {
		t.probe, t.hasProbe = wordsOf(sha256.Sum256([]byte(probe.Reveal()))), 1
	}
	t.applications = applications[:min(len(applications), MaxApplications)]
	for _, a := range t.applications {
		t.digests = append(t.digests, wordsOf(a.Digest))
	}
	return t
}

// Application returns the application that a caller is, or nil.
func (t *Tokens) Application(c Caller) *Application {
	if i := int(c - firstApplication); i >= 0 && i < len(t.applications) {
		return &t.applications[i]
	}
	return nil
}

// identify compares digests of equal length in constant time, always with all tokens. wall is the wall-clock time.
func (t *Tokens) identify(presented string, wall int64) Caller {
	var held [longest]byte // converting the string would allocate
	n := copy(held[:], presented)
	sum := wordsOf(sha256.Sum256(held[:n]))
	fits := subtle.ConstantTimeLessOrEq(len(presented), longest) &^ subtle.ConstantTimeEq(int32(len(presented)), 0)
	// If tokens are equal, the caller with the fewest rights wins: each result replaces the one before it.
	caller := subtle.ConstantTimeSelect(sum.equal(&t.user)&t.hasUser&fits, int(User), int(Nobody))
	for i := range t.digests {
		valid := fits
		if expires := t.applications[i].Expires; expires != 0 && wall >= expires { // depends on no secret
			valid = 0
		}
		caller = subtle.ConstantTimeSelect(sum.equal(&t.digests[i])&valid, int(firstApplication)+i, caller)
	}
	return Caller(subtle.ConstantTimeSelect(sum.equal(&t.probe)&t.hasProbe&fits, int(Probe), caller))
}
