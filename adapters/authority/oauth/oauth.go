// Package oauth signs the user in at the hub: Authorization Code with PKCE for a native, public
// client (RFC 8252, RFC 7636; contract O). It depends on no actor and stores nothing.
//
// A sign-in is an Attempt. Begin binds a redirect listener, registers the client if the hub supports that, and returns a start
// page on loopback. Wait accepts the one callback and exchanges its code. Close shows the result in the browser and closes the
// listener. Refresh, Revoke and WhoAmI are single requests. Decide says whether a stored session is valid.
//
// BeginDevice starts a sign-in without a browser on this machine (RFC 8628), with the same methods Wait and Close.
//
// Every decision is a pure function (checkMetadata, checkCallback, parseTokens, checkDevice, Decide). The only challenge method
// is S256, there is no client secret, and no free text of a response reaches an error.
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

// Config describes the hub and the client.
type Config struct {
	Issuer string // such as "https://hub.example/api/v1/auth/native", compared byte for byte
	// ForeignIssuer allows an issuer whose origin differs from SessionURL, because the configuration names both.
	ForeignIssuer bool
	SessionURL    string // such as "https://hub.example/api/v1/auth/session"
	ClientID      string // empty: register (RFC 7591)
	Scope         string // always sent (O5), such as "vault:read vault:write"
	// FirstParty requires iss in every callback. Without it, iss is required if the metadata announces it (O4).
	FirstParty bool
	// ForeignEndpoints allows https endpoints outside the issuer's origin (O1).
	ForeignEndpoints bool
	// Loopback is the address that the redirect listener binds: "127.0.0.1" (the default) or "::1".
	Loopback string
	// Timeout is how long an attempt waits for its callback; zero means two minutes (O2).
	Timeout time.Duration
	// HTTP follows no redirect and verifies TLS: see package transport.
	HTTP *http.Client
}

// Client is a client of one authorization server. It is safe for concurrent use.
type Client struct {
	config Config
	origin string // of the issuer
}

// New checks the configuration. The issuer must be an https URL with a host and at most a path. The session endpoint must have
// its origin, unless ForeignIssuer is set.
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

// Retry says whether a failed refresh may be repeated (O8).
type Retry int

// A failed refresh may not be repeated (RetryNever), may be repeated later (RetryLater), or may not because its response was
// lost and the hub may have spent the token (RetryUnsafe).
const (
	RetryNever Retry = iota
	RetryLater
	RetryUnsafe
)

// Error says why sign-in, refresh or a hub request failed. Its text consists of constants and the error codes of the RFCs, and
// contains no other text of the server.
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

// knownCodes are the error codes that may be shown: RFC 6749 4.1.2.1 and 5.2, RFC 7009 2.2.1, RFC 7591 3.2.2, RFC 8628 3.5.
var knownCodes = []string{
	"invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type", "invalid_scope",
	"server_error", "temporarily_unavailable", "invalid_client", "invalid_grant", "unsupported_grant_type",
	"invalid_redirect_uri", "invalid_client_metadata", "invalid_software_statement", "unapproved_software_statement",
	"authorization_pending", "slow_down", "expired_token", "unsupported_token_type",
}

// knownCode returns code if it is in knownCodes, else an empty string.
func knownCode(code string) string {
	if slices.Contains(knownCodes, code) {
		return code
	}
	return ""
}

// printable reports whether s has 1 to limit bytes, all of them visible ASCII or, if spaces is set, spaces (RFC 6749
// appendix A: VSCHAR, NQSCHAR).
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
