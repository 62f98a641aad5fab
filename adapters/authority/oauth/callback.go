package oauth

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/url"

	"companion/messages"
)

// expectation is what the callback of one attempt must carry.
type expectation struct {
	state       string
	issuer      string
	issRequired bool
}

// checkCallback decides over the parameters of a callback, in the order of O4: the server's error,
// state, iss, code. detail is one of RFC 6749's own error codes or empty. The code is worth nothing
// unless the reason is ReasonOK.
func checkCallback(q url.Values, want expectation) (code string, reason messages.Reason, detail string) {
	if q.Has("error") {
		return "", messages.ReasonAuthorizationServerError, knownCode(q.Get("error"))
	}
	if q.Get("state") == "" || want.state == "" {
		return "", messages.ReasonStateMissing, ""
	}
	if !same(q.Get("state"), want.state) {
		return "", messages.ReasonStateMismatch, ""
	}
	if !q.Has("iss") && want.issRequired {
		return "", messages.ReasonIssuerMissing, ""
	}
	if q.Has("iss") && !same(q.Get("iss"), want.issuer) {
		return "", messages.ReasonIssuerMismatch, ""
	}
	if q.Get("code") == "" {
		return "", messages.ReasonMissingCode, ""
	}
	if !printable(q.Get("code"), 4096, true) {
		return "", messages.ReasonMalformedInput, ""
	}
	return q.Get("code"), messages.ReasonOK, ""
}

// same compares in constant time, content and length.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// refusal decides whether a request to the redirect listener is one of the two it serves (O3): 0 says
// yes, else it is the status to refuse it with. Refused requests do not end the attempt.
func refusal(r *http.Request, host string, paths ...string) int {
	if r.Host != host {
		return http.StatusForbidden
	}
	known := false
	for _, p := range paths {
		// Path alone is decoded: %2e and %2f forms must not count as the path itself.
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
		return http.StatusForbidden // a prefetch would spend the attempt without the user
	}
	return 0
}

func absentOr(values []string, want string) bool {
	return len(values) == 0 || len(values) == 1 && values[0] == want
}

// parameters parses the query; false when it is malformed, too long or repeats a parameter (O3).
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
