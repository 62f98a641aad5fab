// Package origin decides whether an artifact may come from a URL (contract M4). It is pure: it
// resolves nothing and opens nothing. What a name resolves to is checked by adapters/runtime/download
// when it connects.
//
// The comparison is by parsed parts, never by string prefix, and whatever two parsers could read
// differently is refused instead of being put right.
package origin

import (
	"fmt"
	"net/url"
	"strings"

	"companion/messages"
)

// Error says why a URL is refused. Its text never holds the URL.
type Error struct {
	Reason messages.Reason // malformed_spec, scheme_not_allowed or source_not_allowed
	what   string
}

func (e *Error) Error() string { return fmt.Sprintf("artifact source: %s (%s)", e.what, e.Reason) }

// Allowed returns nil if rawURL is https and inside one of origins: same host, same port, and the
// origin's path a prefix of whole segments. An origin is an https URL without query, such as
// "https://models.example/v1/". A query in rawURL is allowed. A malformed origin refuses everything:
// a list that cannot be read whole is not believed in part.
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

type location struct {
	host, port string
	segments   []string
}

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
	if raw == "" || len(raw) > 8192 {
		return malformed("empty or too long")
	}
	for i := range len(raw) {
		// A browser or a proxy may read a backslash as a slash, and a space as the end.
		if c := raw[i]; c <= ' ' || c >= 0x7f || c == '\\' || c == '#' {
			return malformed("a fragment, or a character that a URL cannot hold")
		}
	}
	u, err := url.Parse(raw)
	if err != nil {
		return malformed("not a URL") // url's own error quotes the URL
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

// split cuts a path into decoded segments, without the empty one after a final slash.
func split(escaped string) ([]string, bool) {
	escaped = strings.TrimSuffix(strings.TrimPrefix(escaped, "/"), "/")
	if escaped == "" {
		return nil, true
	}
	segments := strings.Split(escaped, "/")
	for i, s := range segments {
		decoded, err := url.PathUnescape(s)
		// A percent sign that survives decoding is a second layer, which some server may peel.
		if err != nil || decoded == "" || decoded == "." || decoded == ".." || strings.ContainsAny(decoded, "/\\%\x00") {
			return nil, false
		}
		segments[i] = decoded
	}
	return segments, true
}
