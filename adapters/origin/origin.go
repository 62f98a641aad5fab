// Package origin checks download URLs against the manifest's list of allowed origins (contract M4). It is
// pure: it resolves no name and opens no connection. adapters/runtime/download checks the address that a
// name resolves to when it connects.
//
// URLs are compared by their parsed components, never by string prefix. A URL that two parsers could read
// differently is refused, not normalized.
package origin

import (
	"fmt"
	"net/url"
	"strings"

	"companion/messages"
)

// Error says why a URL is refused. Its text never contains the URL.
//
// Reasons: malformed_spec, scheme_not_allowed, source_not_allowed.
type Error struct {
	Reason messages.Reason
	what   string
}

func (e *Error) Error() string { return fmt.Sprintf("artifact source: %s (%s)", e.what, e.Reason) }

// Allowed returns nil if rawURL is https and inside one of origins: same host, same port, and the
// origin's path a prefix of whole segments. An origin is an https URL without query, such as
// "https://models.example/v1/". A query in rawURL is allowed. One malformed origin refuses every URL: a list
// that is wrong in part is not trusted at all.
func Allowed(rawURL string, origins []string) error {
	u, err := parse(rawURL)
	if err != nil {
		return err
	}
	allowed := false
	for _, raw := range origins {
		o, err := parse(raw)
		if err != nil {
			return err
		}
		if strings.Contains(raw, "?") {
			return &Error{messages.ReasonMalformedSpec, "an origin with a query"}
		}
		allowed = allowed || u.inside(o)
	}
	if !allowed {
		return &Error{messages.ReasonSourceNotAllowed, "outside the allowed origins"}
	}
	return nil
}

// Host returns the host name of a URL that Allowed accepts: lower case, no port, no brackets.
func Host(rawURL string) (string, error) {
	u, err := parse(rawURL)
	return u.host, err
}

// maxURL bounds a URL, in bytes.
const maxURL = 8192

// location is a parsed https URL without its query.
type location struct {
	host, port string
	segments   []string
}

// inside reports whether u is within origin o: same host and port, and the path of o a prefix of whole segments.
func (u location) inside(o location) bool {
	if u.host != o.host || u.port != o.port || len(u.segments) < len(o.segments) {
		return false
	}
	for i, s := range o.segments {
		if u.segments[i] != s {
			return false
		}
	}
	return true
}

func parse(raw string) (location, error) {
	malformed := func(what string) (location, error) {
		return location{}, &Error{messages.ReasonMalformedSpec, what}
	}
	if raw == "" || len(raw) > maxURL {
		return malformed("empty or too long")
	}
	for i := range len(raw) {
		// Some parsers read a backslash as a slash, and a space as the end of the URL.
		if c := raw[i]; c <= ' ' || c >= 0x7f || c == '\\' || c == '#' {
			return malformed("a fragment, or a character that is not allowed in a URL")
		}
	}
	u, err := url.Parse(raw)
	if err != nil {
		return malformed("not a URL") // the error of net/url would quote the URL
	}
	if u.Scheme == "" || u.Opaque != "" || u.Hostname() == "" {
		return malformed("not an absolute URL with a host")
	}
	if u.Scheme != "https" {
		return location{}, &Error{messages.ReasonSchemeNotAllowed, "not https"}
	}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if u.User != nil || strings.ContainsAny(u.Host, "%@") || strings.HasSuffix(u.Host, ":") {
		return malformed("user information, a zone or an empty port")
	}
	if port == "" {
		port = "443"
	}
	segments, ok := split(u.EscapedPath())
	if !ok {
		return malformed("a path with dot, empty or ambiguous segments")
	}
	return location{host, port, segments}, nil
}

// split returns the decoded segments of a path, without the empty one after a final slash. It reports false
// for segments that servers could interpret differently.
func split(escaped string) ([]string, bool) {
	escaped = strings.TrimSuffix(strings.TrimPrefix(escaped, "/"), "/")
	if escaped == "" {
		return nil, true
	}
	segments := strings.Split(escaped, "/")
	for i, s := range segments {
		decoded, err := url.PathUnescape(s)
		// A percent sign that remains is double encoding, which some servers decode again.
		if err != nil || decoded == "" || decoded == "." || decoded == ".." || strings.ContainsAny(decoded, "/\\%\x00") {
			return nil, false
		}
		segments[i] = decoded
	}
	return segments, true
}
