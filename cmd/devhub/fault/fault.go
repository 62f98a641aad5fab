// Package fault names the faults that the development hub can simulate, because the tests of a client need a hostile
// server. A fault is on when serve was started with it, or when its name is in the directory's faults file. The file is
// read at every request, so that a test can switch a fault without a restart.
package fault

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"companion/adapters/privatefs"
)

// Name is one of the constants below.
type Name string

// Sign-in faults.
const (
	WrongISS     Name = "wrong-iss"
	NoISS        Name = "no-iss"
	QuietISS     Name = "unannounced-iss"
	WrongState   Name = "wrong-state"
	ReusedCode   Name = "reused-code"
	Denied       Name = "denied"
	TokenError   Name = "token-error"
	WrongIssuer  Name = "wrong-issuer"
	Foreign      Name = "foreign-endpoint"
	PlainOnly    Name = "plain-pkce-only"
	NoRegister   Name = "no-registration"
	SlowToken    Name = "slow-token"
	LostResponse Name = "lost-token-answer"
	TokenElse    Name = "foreign-token-endpoint"
	TokenMoves   Name = "redirecting-token-endpoint"
	HugeTokens   Name = "huge-tokens"
	BadExpiry    Name = "bad-expiry"
	HugeAnswer   Name = "huge-token-answer"
	SlowBody     Name = "slow-token-body"
	CutBody      Name = "cut-token-body"
	WrongType    Name = "wrong-token-type"
	NoRotation   Name = "no-rotation"
	NoScope      Name = "no-scope"
	ShortTokens  Name = "short-tokens"
	Storm        Name = "token-storm"
	Restarts     Name = "restarts"
	EarlyRevoked Name = "early-revocation"
	Previews     Name = "previews"
	NoDevice     Name = "no-device-authorization"
)

// Manifest faults.
const (
	ExpiredManifest      Name = "expired-manifest"
	RolledBackManifest   Name = "rolled-back-manifest"
	WrongSignature       Name = "wrong-signature"
	TruncatedManifest    Name = "truncated-manifest"
	WrongLength          Name = "wrong-length"
	WrongDigest          Name = "wrong-digest"
	SameHost             Name = "same-host"
	OutsideOrigin        Name = "outside-origin"
	PlainHTTP            Name = "plain-http"
	ManifestFromArtifact Name = "manifest-from-artifact-host"
	RefusedToken         Name = "refused-token"
	WebPage              Name = "web-page"
)

// Artifact faults.
const (
	FlippedByte       Name = "flipped-byte"
	Truncated         Name = "truncated"
	Extended          Name = "extended"
	Slow              Name = "slow"
	Cut               Name = "cut"
	NoRange           Name = "no-range"
	ChangedETag       Name = "changed-etag"
	RedirectElsewhere Name = "redirect-elsewhere"
	ArtifactMissing   Name = "artifact-missing"
	ArtifactError     Name = "artifact-error"
)

// ServerError is the fault of the whole hub.
const ServerError Name = "server-error"

// Fault is one fault with its line of help.
type Fault struct {
	Name Name
	Help string
}

// All lists every fault in the order in which help shows them.
var All = []Fault{
	{WrongISS, "the redirect names another issuer (RFC 9207)"},
	{NoISS, "the redirect names no issuer, although the metadata announces it"},
	{QuietISS, "the metadata does not announce that the redirect names the issuer"},
	{WrongState, "the redirect carries another state"},
	{ReusedCode, "the redirect carries a code that was spent already"},
	{Denied, "every authorization is answered access_denied"},
	{TokenError, "the token endpoint refuses everything with invalid_grant"},
	{WrongIssuer, "the metadata names another issuer"},
	{Foreign, "the metadata names a revocation endpoint of another origin, which does not exist"},
	{PlainOnly, "the metadata announces plain as the only PKCE method"},
	{NoRegister, "the metadata offers no registration"},
	{SlowToken, "the token endpoint waits ten seconds before it answers"},
	{LostResponse, "the token endpoint does its work, then cuts the connection without an answer"},
	{TokenElse, "the metadata names a token endpoint of another origin, which does not exist"},
	{TokenMoves, "the token endpoint redirects to the artifact host"},
	{HugeTokens, "access tokens have 9000 bytes"},
	{BadExpiry, "the token answer says expires_in -1"},
	{HugeAnswer, "the token answer has 100 MiB of space before it"},
	{SlowBody, "the token answer comes one byte every half second"},
	{CutBody, "the token answer ends half-way"},
	{WrongType, "the token answer says token_type DPoP"},
	{NoRotation, "a refresh brings no new refresh token, although the old one is spent"},
	{NoScope, "the token answer says no scope"},
	{ShortTokens, "the token answer says that the access token lives one second"},
	{Storm, "two of three requests to the hub are answered 503 with a long page"},
	{Restarts, "two of three requests to the hub are cut without an answer, as during a restart"},
	{EarlyRevoked, "access tokens are refused right away, refresh tokens are not"},
	{Previews, "before the browser is sent back, a link scanner opens the redirect URI"},
	{NoDevice, "the metadata offers no device authorization"},
	{ExpiredManifest, "the signed metadata has expired"},
	{RolledBackManifest, "the signed metadata says version 1 again"},
	{WrongSignature, "the metadata's signatures are wrong"},
	{TruncatedManifest, "the metadata files end half-way"},
	{WrongLength, "the manifest says one byte more than the artifacts have"},
	{WrongDigest, "the manifest says another digest than the artifacts have"},
	{SameHost, "the artifacts are on the hub's own host (M2)"},
	{OutsideOrigin, "the artifacts' URLs lie outside the origins that the manifest allows (M4)"},
	{PlainHTTP, "the artifacts' URLs are http"},
	{RefusedToken, "manifest requests are answered 401, whatever token they carry"},
	{WebPage, "manifest requests are answered with a web page, as the sign-in page of a network does"},
	{ManifestFromArtifact, "the hub redirects manifest requests to the artifact host"},
	{FlippedByte, "one byte in the middle of every artifact is another"},
	{Truncated, "every artifact ends 1000 bytes early"},
	{Extended, "every artifact has 1000 bytes too many"},
	{Slow, "artifacts arrive at about one MiB a second"},
	{Cut, "artifact connections are cut after half of what was asked for"},
	{NoRange, "the artifact host ignores Range"},
	{ChangedETag, "the artifact host says a new ETag each time"},
	{RedirectElsewhere, "artifact requests are redirected to another host, which does serve the bytes"},
	{ArtifactMissing, "artifact requests are answered 404"},
	{ArtifactError, "artifact requests are answered 503"},
	{ServerError, "every request to the hub is answered 503"},
}

// Parse checks names from the command line.
func Parse(names []string) ([]Name, error) {
	var parsed []Name
	for _, n := range names {
		if !slices.ContainsFunc(All, func(f Fault) bool { return f.Name == Name(n) }) {
			return nil, fmt.Errorf("unknown fault %q: `devhub faults` lists them", n)
		}
		parsed = append(parsed, Name(n))
	}
	return parsed, nil
}

// Set reports which faults are on.
type Set struct {
	fixed []Name
	file  string
}

// NewSet returns the set of the faults of the command line and those in file.
func NewSet(fixed []Name, file string) Set { return Set{fixed: fixed, file: file} }

// Has reports whether the fault is on now.
func (s Set) Has(n Name) bool {
	if slices.Contains(s.fixed, n) {
		return true
	}
	data, err := os.ReadFile(s.file)
	return err == nil && slices.Contains(strings.Fields(string(data)), string(n))
}

// Switch turns one fault on or off in file.
func Switch(file string, n Name, on bool) error {
	data, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("reading the faults file: %w", err)
	}
	names := slices.DeleteFunc(strings.Fields(string(data)), func(s string) bool { return s == string(n) })
	if on {
		names = append(names, string(n))
	}
	return privatefs.WriteFile(file, []byte(strings.Join(names, "\n")+"\n"))
}
