package oauth

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/url"

	"companion/messages"
)

// expectation holds the values that the callback of one attempt must contain.
type expectation struct {
	state       string
	issuer      string
	issRequired bool
}

// checkCallback checks the parameters of a callback in the order of O4: the server's error, state, iss, code. detail is an
// error code of RFC 6749 or empty.
func checkCallback(q url.Values, want expectation) callback {
	cb := callback{ours: want.state != "" && same(q.Get("state"), want.state)}
	switch {
	case q.Has("error"):
		cb.reason, cb.detail = messages.ReasonAuthorizationServerError, knownCode(q.Get("error"))
	case q.Get("state") == "" || want.state == "":
		cb.reason = messages.ReasonStateMissing
	case !cb.ours:
		cb.reason = messages.ReasonStateMismatch
	case !q.Has("iss") && want.issRequired:
		cb.reason = messages.ReasonIssuerMissing
	case q.Has("iss") && !same(q.Get("iss"), want.issuer):
		cb.reason = messages.ReasonIssuerMismatch
	case q.Get("code") == "":
		cb.reason = messages.ReasonMissingCode
	case !printable(q.Get("code"), 4096, true):
		cb.reason = messages.ReasonMalformedInput
	default:
		cb.reason, cb.code = messages.ReasonOK, q.Get("code")
	}
	return cb
}

// same compares content and length in constant time.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// refusal returns the status code with which a request to the redirect listener is refused, or 0 for an accepted request to
// one of paths (O3). Refused requests do not end the attempt.
func refusal(r *http.Request, host string, paths ...string) int {
	if r.Host != host {
		return http.StatusForbidden
	}
	known := false
	for _, p := range paths {
		// URL.Path is decoded; a RawPath means that the path contained an escape such as %2e or %2f.
		known = known || r.URL.Path == p && r.URL.RawPath == "" && r.URL.Host == ""
	}
	switch {
	case !known:
		return http.StatusNotFound
	case r.Method != http.MethodGet:
		return http.StatusMethodNotAllowed
	case !absentOr(r.Header["Sec-Fetch-Mode"], "navigate"), !absentOr(r.Header["Sec-Fetch-Dest"], "document"):
		return http.StatusForbidden
	case r.Header.Get("Sec-Purpose") != "" || r.Header.Get("Purpose") != "":
		return http.StatusForbidden // a prefetch, not an action of the user
	}
	return 0
}

func absentOr(values []string, want string) bool {
	return len(values) == 0 || len(values) == 1 && values[0] == want
}

// parameters parses the query. It returns false if the query is malformed, too long or repeats a parameter (O3).
func parameters(rawQuery string) (url.Values, bool) {
	if len(rawQuery) > 16<<10 {
		return nil, false
	}
	q, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, false
	}
	for _, values := range q {
		if len(values) != 1 {
			return nil, false
		}
	}
	return q, true
}
