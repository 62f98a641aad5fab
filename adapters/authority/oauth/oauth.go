// Package oauth signs the user in at the hub: Authorization Code with PKCE for a native, public
// client (RFC 8252, RFC 7636; contract O). It knows no actor and stores nothing.
//
// A sign-in is an Attempt: Begin binds a redirect listener of its own, registers the client where
// the hub offers that, and gives a start page on loopback; Wait takes the one callback and exchanges
// its code; Close shows the page's outcome and ends the listener. Refresh, Revoke and WhoAmI are
// single requests. Decide says what a stored session is good for.
//
// BeginDevice begins a sign-in without a browser on this machine (RFC 8628); it has the same Wait and Close.
//
// Every decision is a pure function (checkMetadata, checkCallback, parseTokens, checkDevice, Decide). Only S256 exists; there
// is no client secret; no free text of an answer reaches an error.
package oauth

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"companion/messages"
)

// Config is what the composition root knows of the hub.
type Config struct {
	Issuer string // such as "https://hub.example/api/v1/auth/native", compared byte for byte
	// ForeignIssuer allows an issuer of another origin than SessionURL: the configuration names both.
	ForeignIssuer bool
	SessionURL    string // such as "https://hub.example/api/v1/auth/session"
	ClientID      string // empty: register (RFC 7591)
	Scope         string // always sent (O5), such as "vault:read vault:write"
	// FirstParty demands iss of every callback; without it the metadata decides, by announcing it (O4).
	FirstParty bool
	// ForeignEndpoints lets the metadata name endpoints outside the issuer's own origin, https all the same (O1).
	ForeignEndpoints bool
	// Loopback is the literal the redirect listener binds: "127.0.0.1" (also when empty) or "::1".
	Loopback string
	// Timeout is how long an attempt waits for its callback; zero means two minutes (O2).
	Timeout time.Duration
	// HTTP follows no redirect and verifies TLS: see package transport.
	HTTP *http.Client
}

// Client speaks to one authorization server. Safe for concurrent use.
type Client struct {
	config Config
	origin string // of the issuer
}

// New checks the configuration: an issuer that is not https with a host and nothing but a path is
// refused, and so is a session endpoint elsewhere.
func New(c Config) (*Client, error) {
	issuer, err := endpoint(c.Issuer)
	if err != nil {
		return nil, fmt.Errorf("the issuer %q: %w", c.Issuer, err)
	}
	if issuer.RawQuery != "" {
		return nil, fmt.Errorf("the issuer %q has a query", c.Issuer)
	}
	session, err := endpoint(c.SessionURL)
	if err != nil || !c.ForeignIssuer && originOf(session) != originOf(issuer) {
		return nil, fmt.Errorf("the session endpoint %q is not an https URL of the issuer's origin", c.SessionURL)
	}
	switch c.Loopback {
	case "":
		c.Loopback = "127.0.0.1"
	case "127.0.0.1", "::1":
	default:
		return nil, fmt.Errorf("the redirect listener's address %q is not a loopback literal", c.Loopback)
	}
	if c.Timeout == 0 {
		c.Timeout = 2 * time.Minute
	}
	return &Client{config: c, origin: originOf(issuer)}, nil
}

// Retry says what may be done after a failed refresh (O8).
type Retry int

// A refresh that failed may never be sent again, or later, or must not because its answer was lost:
// the hub may have spent the token.
const (
	RetryNever Retry = iota
	RetryLater
	RetryUnsafe
)

// Error says why sign-in, refresh or a hub request failed. Its text is made of constants: the
// server's words appear only when they are one of RFC 6749's own error codes.
type Error struct {
	Doing  string
	Reason messages.Reason
	Detail string // an RFC 6749 or RFC 7591 error code, or empty
	Retry  Retry
	cause  error
}

func (e *Error) Error() string {
	if e.Detail != "" {
		return fmt.Sprintf("%s: %s (%s)", e.Doing, e.Reason, e.Detail)
	}
	return fmt.Sprintf("%s: %s", e.Doing, e.Reason)
}

func (e *Error) Unwrap() error { return e.cause }

// SessionOver reports whether the hub has ended the session: invalid_grant, with reuse detection, or
// invalid_client (O8).
func (e *Error) SessionOver() bool {
	return e.Detail == "invalid_grant" || e.Detail == "invalid_client"
}

// AsError returns err as an *Error; any other error becomes one with ReasonTokenExchangeFailed.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Doing: "oauth", Reason: messages.ReasonTokenExchangeFailed, cause: err}
}

// endpoint parses an https URL with a host and without userinfo or fragment.
func endpoint(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errors.New("not a URL")
	case u.Scheme != "https" || u.Host == "" || u.Hostname() == "" || u.Opaque != "":
		return nil, errors.New("not an https URL")
	case u.User != nil || u.Fragment != "" || strings.Contains(raw, "#"):
		return nil, errors.New("userinfo or a fragment is not allowed")
	}
	return u, nil
}

// originOf is scheme, host and port, with the default port written out.
func originOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return "https://" + strings.ToLower(u.Hostname()) + ":" + port
}

// knownCodes are the error codes that may be shown: RFC 6749 4.1.2.1 and 5.2, RFC 7591 3.2.2, RFC 8628 3.5.
var knownCodes = []string{
	"invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type", "invalid_scope",
	"server_error", "temporarily_unavailable", "invalid_client", "invalid_grant", "unsupported_grant_type",
	"invalid_redirect_uri", "invalid_client_metadata", "invalid_software_statement", "unapproved_software_statement",
	"authorization_pending", "slow_down", "expired_token",
}

// knownCode returns code if it is one of the RFCs' own, else nothing.
func knownCode(code string) string {
	if slices.Contains(knownCodes, code) {
		return code
	}
	return ""
}

// printable reports whether s has 1 to limit bytes, all of them visible ASCII or, where spaces are
// allowed, a space (RFC 6749 appendix A: VSCHAR, NQSCHAR).
func printable(s string, limit int, spaces bool) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for _, c := range []byte(s) {
		if c < 0x20 || c > 0x7e || c == ' ' && !spaces {
			return false
		}
	}
	return true
}
