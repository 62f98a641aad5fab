// Package guard decides whether an HTTP request may pass the front door: it checks method, Host, Origin, rate
// and token (L3, L4). It is a pure function: the method, the headers, the tokens, the allowed hosts, the time
// and the rate windows are its arguments, and a verdict is its result. It does no I/O, reads no clock, sees
// no body, and recovers its own panics.
//
// The order of the checks is part of the defence and must not change: structure, method, Host, origin, rate,
// token. The token is looked at before the rate check only to choose the window that counts the request.
package guard

import (
	"strings"

	"companion/messages"
)

// Request is the part of a request that the guard checks. Header has canonical keys, as net/http makes them. Now is a
// monotonic time in nanoseconds, for the rates. Wall is the wall-clock time in nanoseconds since 1970, for the expiry
// of application tokens (L14).
type Request struct {
	// Malformed means that the raw head was refused (L3a).
	Malformed bool
	Method    string
	// Host is empty when the request has no Host field, several, or one that cannot be parsed.
	Host   string
	Header map[string][]string
	Now    int64
	Wall   int64
	// Panicked, when set, is called with the value of a panic inside Decide, on the stack of the panic. The
	// guard itself logs nothing.
	Panicked func(value any)
}

// Windows are the three rate windows. A nil window refuses (L3 stage 5). Each application has one more.
type Windows struct {
	Failures *Window // requests without a valid token
	Admitted *Window // requests with the loopback token
	Probe    *Window // requests with the health probe's token (A4)
}

// Verdict is the result of Decide.
type Verdict struct {
	Allow  bool
	Status int
	Reason messages.Reason
}

var (
	ok              = Verdict{true, 200, messages.ReasonOK}
	malformed       = Verdict{false, 403, messages.ReasonMalformedRequest}
	methodForbidden = Verdict{false, 403, messages.ReasonMethodNotAllowed}
	hostForbidden   = Verdict{false, 403, messages.ReasonHostNotAllowed}
	crossSite       = Verdict{false, 403, messages.ReasonCrossSiteForbidden}
	rateUnavailable = Verdict{false, 429, messages.ReasonRateStateUnavailable}
	rateLimited     = Verdict{false, 429, messages.ReasonRateLimited}
	tokenMissing    = Verdict{false, 401, messages.ReasonMissingToken}
	tokenInvalid    = Verdict{false, 401, messages.ReasonInvalidToken}
)

// Decide returns the verdict on one request and the owner of its token. It changes the windows, so the caller must
// hold the lock that guards them. hosts is the result of Hosts.
func Decide(r *Request, tokens *Tokens, hosts []string, w *Windows) (verdict Verdict, caller Caller) {
	defer func() {
		if value := recover(); value != nil {
			verdict, caller = malformed, Nobody
			if r != nil && r.Panicked != nil {
				r.Panicked(value)
			}
		}
	}()
	presented, structure := credentials(r.Header)
	caller = tokens.identify(presented, r.Wall)
	switch {
	case r.Malformed || !structure || len(r.Header["Upgrade"]) > 0 || len(r.Header["Http2-Settings"]) > 0:
		return malformed, Nobody
	case r.Method != "GET" && r.Method != "HEAD" && r.Method != "POST":
		return methodForbidden, Nobody
	case !hostAllowed(r.Host, hosts):
		return hostForbidden, Nobody
	case !sameSite(r.Header, hosts):
		return crossSite, Nobody
	}
	window := w.Failures
	switch caller {
	case Nobody:
	case User:
		window = w.Admitted
	case Probe:
		window = w.Probe
	default:
		window = tokens.Application(caller).Window
	}
	switch window.take(r.Now) {
	case broken:
		return rateUnavailable, Nobody
	case full:
		return rateLimited, Nobody
	}
	switch {
	case presented == "":
		return tokenMissing, Nobody
	case caller == Nobody:
		return tokenInvalid, Nobody
	}
	return ok, caller
}

// credentials returns the token in the headers, or "" when there is none. unambiguous is false when they hold
// two (L4).
func credentials(header map[string][]string) (token string, unambiguous bool) {
	bearers, keys := header["Authorization"], header["X-Api-Key"]
	if len(bearers) > 1 || len(keys) > 1 {
		return "", false
	}
	var bearer, key string
	if len(bearers) == 1 {
		bearer = bearerToken(bearers[0])
	}
	if len(keys) == 1 {
		key = strings.Trim(keys[0], " \t")
	}
	if key != "" && key == bearer {
		return key, true // clients of the Anthropic family may send it twice
	}
	// A scheme other than Bearer presents no token, but together with a key it is ambiguous.
	if key != "" && len(bearers) == 1 && (bearer != "" || !emptyCredentials(bearers[0])) {
		return "", false
	}
	return bearer + key, true // one of them is empty, so this does not allocate
}

func bearerToken(value string) string {
	const scheme = "bearer"
	value = strings.Trim(value, " \t")
	if len(value) <= len(scheme) || !same(value[:len(scheme)], scheme) || value[len(scheme)] != ' ' {
		return ""
	}
	return strings.TrimLeft(value[len(scheme):], " ")
}

func emptyCredentials(value string) bool {
	value = strings.Trim(value, " \t")
	return value == "" || same(value, "bearer")
}

// Hosts returns the Host values that name a listener on the loopback literal ip ("127.0.0.1" or "::1") and
// port (L3 stage 3).
func Hosts(ip, port string) []string {
	if ip == "::1" {
		return []string{"[::1]:" + port, "localhost:" + port}
	}
	return []string{"127.0.0.1:" + port, "localhost:" + port}
}

// hostAllowed checks twice on purpose: even a wrong list must not admit a name that is not loopback.
func hostAllowed(host string, hosts []string) bool {
	return listed(host, hosts) && loopbackName(host)
}

func listed(host string, hosts []string) bool {
	for _, h := range hosts {
		if same(host, h) {
			return true
		}
	}
	return false
}

// same compares and ignores the case of ASCII letters. lower must have no upper-case letters. Unicode case folding
// would be wrong: it maps other letters, such as ſ, to ASCII letters.
func same(s, lower string) bool {
	if len(s) != len(lower) {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func loopbackName(host string) bool {
	colon := strings.LastIndexByte(host, ':')
	if colon < 0 || !portNumber(host[colon+1:]) {
		return false
	}
	name := host[:colon]
	return name == "127.0.0.1" || name == "[::1]" || same(name, "localhost")
}

func portNumber(s string) bool {
	if len(s) == 0 || len(s) > 5 {
		return false
	}
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n >= 1 && n <= 65535
}

// sameSite is stage 4: it refuses requests of web pages of another origin, and repeated fields.
func sameSite(header map[string][]string, hosts []string) bool {
	if site := header["Sec-Fetch-Site"]; len(site) > 1 || len(site) == 1 && site[0] != "same-origin" && site[0] != "none" {
		return false
	}
	origin := header["Origin"]
	if len(origin) > 1 {
		return false
	}
	if len(origin) == 0 || origin[0] == "" {
		return true
	}
	host, plain := strings.CutPrefix(origin[0], "http://")
	if !plain {
		var tls bool
		if host, tls = strings.CutPrefix(origin[0], "https://"); !tls {
			return false
		}
	}
	return hostAllowed(host, hosts)
}
