package guard

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	userToken  = "VXNlclRva2VuVXNlclRva2VuVXNlclRva2VuVXNlclQ"
	probeToken = "UHJvYmVUb2tlblByb2JlVG9rZW5Qcm9iZVRva2VuUHI"
	minute     = int64(time.Minute)
)

var (
	known = NewTokens(messages.NewSecret(userToken), messages.NewSecret(probeToken))
	four  = Hosts("127.0.0.1", "4321")
)

func roomy() *Windows {
	return &Windows{NewWindow(100, minute), NewWindow(100, minute), NewWindow(100, minute)}
}

// headers returns a header with the given "Name: value" lines.
func headers(lines ...string) http.Header {
	h := http.Header{}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		h.Add(name, value)
	}
	return h
}

const goodHost, auth = "127.0.0.1:4321", "Authorization: Bearer " + userToken

// L3, L4: one row per reason and per edge case.
func TestDecide(t *testing.T) {
	for name, c := range map[string]struct {
		method, host string
		header       http.Header
		want         messages.Reason
	}{
		"right":                     {"GET", goodHost, headers(auth), messages.ReasonOK},
		"post":                      {"POST", goodHost, headers(auth), messages.ReasonOK},
		"x-api-key":                 {"GET", goodHost, headers("x-api-key: " + userToken), messages.ReasonOK},
		"scheme in any case":        {"GET", goodHost, headers("Authorization: bEARER   " + userToken), messages.ReasonOK},
		"empty authorization":       {"GET", goodHost, headers("Authorization: ", "X-Api-Key: "+userToken), messages.ReasonOK},
		"empty key":                 {"GET", goodHost, headers(auth, "X-Api-Key: "), messages.ReasonOK},
		"upgrade":                   {"GET", goodHost, headers(auth, "Upgrade: websocket"), messages.ReasonMalformedRequest},
		"h2c":                       {"GET", goodHost, headers(auth, "HTTP2-Settings: AA"), messages.ReasonMalformedRequest},
		"both credentials, equal":   {"GET", goodHost, headers(auth, "X-Api-Key:  "+userToken), messages.ReasonOK}, // L13
		"both, equal and wrong":     {"GET", goodHost, headers("Authorization: Bearer x", "X-Api-Key: x"), messages.ReasonInvalidToken},
		"both credentials":          {"GET", goodHost, headers(auth, "X-Api-Key: "+userToken+"x"), messages.ReasonMalformedRequest},
		"both, the other wrong":     {"GET", goodHost, headers(auth+"x", "X-Api-Key: "+userToken), messages.ReasonMalformedRequest},
		"basic and key":             {"GET", goodHost, headers("Authorization: Basic eA==", "X-Api-Key: "+userToken), messages.ReasonMalformedRequest},
		"two authorizations":        {"GET", goodHost, headers(auth, auth), messages.ReasonMalformedRequest},
		"two keys":                  {"GET", goodHost, headers("X-Api-Key: a", "X-Api-Key: a"), messages.ReasonMalformedRequest},
		"options":                   {"OPTIONS", goodHost, headers(auth), messages.ReasonMethodNotAllowed},
		"head":                      {"HEAD", goodHost, headers(auth), messages.ReasonOK},
		"head without a token":      {"HEAD", goodHost, nil, messages.ReasonMissingToken},
		"head of a page":            {"HEAD", goodHost, headers(auth, "Origin: https://evil.example"), messages.ReasonCrossSiteForbidden},
		"lower-case head":           {"head", goodHost, headers(auth), messages.ReasonMethodNotAllowed},
		"lower-case method":         {"get", goodHost, headers(auth), messages.ReasonMethodNotAllowed},
		"no method":                 {"", goodHost, headers(auth), messages.ReasonMethodNotAllowed},
		"localhost":                 {"GET", "localhost:4321", headers(auth), messages.ReasonOK},
		"LOCALHOST":                 {"GET", "LocalHost:4321", headers(auth), messages.ReasonOK},
		"host with a long s":        {"GET", "localho\u017ft:4321", headers(auth), messages.ReasonHostNotAllowed},
		"no host":                   {"GET", "", headers(auth), messages.ReasonHostNotAllowed},
		"host without port":         {"GET", "127.0.0.1", headers(auth), messages.ReasonHostNotAllowed},
		"other port":                {"GET", "127.0.0.1:4322", headers(auth), messages.ReasonHostNotAllowed},
		"port with zero":            {"GET", "127.0.0.1:04321", headers(auth), messages.ReasonHostNotAllowed},
		"rebound name":              {"GET", "evil.example:4321", headers(auth), messages.ReasonHostNotAllowed},
		"prefix name":               {"GET", "127.0.0.1.evil.example:4321", headers(auth), messages.ReasonHostNotAllowed},
		"trailing dot":              {"GET", "localhost.:4321", headers(auth), messages.ReasonHostNotAllowed},
		"other loopback":            {"GET", "127.0.0.2:4321", headers(auth), messages.ReasonHostNotAllowed},
		"six on a four listener":    {"GET", "[::1]:4321", headers(auth), messages.ReasonHostNotAllowed},
		"user in host":              {"GET", "x@127.0.0.1:4321", headers(auth), messages.ReasonHostNotAllowed},
		"space in host":             {"GET", "127.0.0.1:4321 ", headers(auth), messages.ReasonHostNotAllowed},
		"site same-origin":          {"GET", goodHost, headers(auth, "Sec-Fetch-Site: same-origin"), messages.ReasonOK},
		"site none":                 {"GET", goodHost, headers(auth, "Sec-Fetch-Site: none"), messages.ReasonOK},
		"site cross-site":           {"GET", goodHost, headers(auth, "Sec-Fetch-Site: cross-site"), messages.ReasonCrossSiteForbidden},
		"site same-site":            {"GET", goodHost, headers(auth, "Sec-Fetch-Site: same-site"), messages.ReasonCrossSiteForbidden},
		"site in upper case":        {"GET", goodHost, headers(auth, "Sec-Fetch-Site: None"), messages.ReasonCrossSiteForbidden},
		"site empty":                {"GET", goodHost, headers(auth, "Sec-Fetch-Site: "), messages.ReasonCrossSiteForbidden},
		"site twice":                {"GET", goodHost, headers(auth, "Sec-Fetch-Site: none", "Sec-Fetch-Site: none"), messages.ReasonCrossSiteForbidden},
		"own origin":                {"GET", goodHost, headers(auth, "Origin: http://127.0.0.1:4321"), messages.ReasonOK},
		"own origin, tls":           {"GET", goodHost, headers(auth, "Origin: https://localhost:4321"), messages.ReasonOK},
		"empty origin":              {"GET", goodHost, headers(auth, "Origin: "), messages.ReasonOK},
		"null origin":               {"GET", goodHost, headers(auth, "Origin: null"), messages.ReasonCrossSiteForbidden},
		"other origin":              {"GET", goodHost, headers(auth, "Origin: https://evil.example"), messages.ReasonCrossSiteForbidden},
		"other port's origin":       {"GET", goodHost, headers(auth, "Origin: http://localhost:3000"), messages.ReasonCrossSiteForbidden},
		"origin with path":          {"GET", goodHost, headers(auth, "Origin: http://localhost:4321/"), messages.ReasonCrossSiteForbidden},
		"file origin":               {"GET", goodHost, headers(auth, "Origin: file://localhost:4321"), messages.ReasonCrossSiteForbidden},
		"origin with a long s":      {"GET", goodHost, headers(auth, "Origin: http://localho\u017ft:4321"), messages.ReasonCrossSiteForbidden},
		"origin twice":              {"GET", goodHost, headers(auth, "Origin: http://localhost:4321", "Origin: http://localhost:4321"), messages.ReasonCrossSiteForbidden},
		"no token":                  {"GET", goodHost, nil, messages.ReasonMissingToken},
		"empty bearer":              {"GET", goodHost, headers("Authorization: Bearer "), messages.ReasonMissingToken},
		"bearer alone":              {"GET", goodHost, headers("Authorization: Bearer"), messages.ReasonMissingToken},
		"basic":                     {"GET", goodHost, headers("Authorization: Basic " + userToken), messages.ReasonMissingToken},
		"token in a cookie":         {"GET", goodHost, headers("Cookie: token=" + userToken), messages.ReasonMissingToken},
		"wrong token":               {"GET", goodHost, headers("Authorization: Bearer wrong"), messages.ReasonInvalidToken},
		"wrong case":                {"GET", goodHost, headers("Authorization: Bearer " + strings.ToLower(userToken)), messages.ReasonInvalidToken},
		"token and more":            {"GET", goodHost, headers(auth + "x"), messages.ReasonInvalidToken},
		"token and a second word":   {"GET", goodHost, headers(auth + " x"), messages.ReasonInvalidToken},
		"scheme without its blank ": {"GET", goodHost, headers("Authorization: Bearer" + userToken), messages.ReasonMissingToken},
		"probe":                     {"GET", goodHost, headers("Authorization: Bearer " + probeToken), messages.ReasonOK},
	} {
		r := &Request{Method: c.method, Host: c.host, Header: c.header, Now: 1}
		got, caller := Decide(r, known, four, roomy())
		if got != verdicts[c.want] {
			t.Errorf("%s: got %+v, want %+v", name, got, verdicts[c.want])
		}
		if (caller != Nobody) != got.Allow {
			t.Errorf("%s: got %+v with caller %d, want a caller exactly for an admitted request", name, got, caller)
		}
	}
	if v, _ := Decide(&Request{Malformed: true}, known, four, roomy()); v != malformed {
		t.Errorf("a malformed head: got %+v, want %+v", v, malformed)
	}
	if _, who := Decide(&Request{Method: "GET", Host: goodHost, Header: headers("x-api-key: " + probeToken)}, known, four, roomy()); who != Probe {
		t.Errorf("the probe's token: got caller %d, want %d", who, Probe)
	}
}

// verdicts is the table of reasons.md, written independently of the guard.
var verdicts = map[messages.Reason]Verdict{
	messages.ReasonOK:                   {true, 200, "ok"},
	messages.ReasonMalformedRequest:     {false, 403, "malformed_request"},
	messages.ReasonMethodNotAllowed:     {false, 403, "method_not_allowed"},
	messages.ReasonHostNotAllowed:       {false, 403, "host_not_allowed"},
	messages.ReasonCrossSiteForbidden:   {false, 403, "cross_site_forbidden"},
	messages.ReasonRateStateUnavailable: {false, 429, "rate_state_unavailable"},
	messages.ReasonRateLimited:          {false, 429, "rate_limited"},
	messages.ReasonMissingToken:         {false, 401, "missing_token"},
	messages.ReasonInvalidToken:         {false, 401, "invalid_token"},
}

// wrong makes a good request wrong in one way; the list is in the order of L3.
var wrong = []struct {
	reason messages.Reason
	make   func(*Request, *Windows)
}{
	{messages.ReasonMalformedRequest, func(r *Request, _ *Windows) { r.Malformed = true }},
	{messages.ReasonMethodNotAllowed, func(r *Request, _ *Windows) { r.Method = "PUT" }},
	{messages.ReasonHostNotAllowed, func(r *Request, _ *Windows) { r.Host = "evil.example" }},
	{messages.ReasonCrossSiteForbidden, func(r *Request, _ *Windows) { r.Header["Origin"] = []string{"null"} }},
	{messages.ReasonRateStateUnavailable, func(_ *Request, w *Windows) { *w = Windows{} }},
	{messages.ReasonMissingToken, func(r *Request, _ *Windows) { delete(r.Header, "Authorization") }},
}

// L3: a request with two faults is refused for the one that is checked first.
func TestOrder(t *testing.T) {
	for i, first := range wrong {
		for _, second := range wrong[i:] {
			r := &Request{Method: "GET", Host: goodHost, Header: headers(auth)}
			w := roomy()
			second.make(r, w)
			first.make(r, w)
			if v, _ := Decide(r, known, four, w); v != verdicts[first.reason] {
				t.Errorf("%s and %s: got %+v, want %+v", first.reason, second.reason, v, verdicts[first.reason])
			}
		}
	}
	full := &Windows{NewWindow(1, minute), NewWindow(1, minute), NewWindow(1, minute)}
	guess := &Request{Method: "GET", Host: goodHost, Header: headers("x-api-key: guess")}
	Decide(guess, known, four, full)
	if v, _ := Decide(guess, known, four, full); v != rateLimited {
		t.Errorf("a wrong token in a full window: got %+v, want %+v", v, rateLimited)
	}
}

// L3, A4, T3: three separate windows: filling one does not affect the others, and requests that get 403 fill none.
func TestWindowsAreApart(t *testing.T) {
	w := &Windows{NewWindow(3, minute), NewWindow(3, minute), NewWindow(3, minute)}
	guess := &Request{Method: "GET", Host: goodHost, Header: headers("x-api-key: guess")}
	hostile := &Request{Method: "GET", Host: "evil.example", Header: headers("x-api-key: guess")}
	user := &Request{Method: "GET", Host: goodHost, Header: headers(auth)}
	probe := &Request{Method: "GET", Host: goodHost, Header: headers("x-api-key: " + probeToken)}
	expect := func(r *Request, n int, then, after Verdict) {
		t.Helper()
		for i := range n + 2 {
			want := then
			if i >= n {
				want = after
			}
			if got, _ := Decide(r, known, four, w); got != want {
				t.Fatalf("request %d: got %+v, want %+v", i, got, want)
			}
		}
	}
	expect(hostile, 100, hostForbidden, hostForbidden)
	expect(guess, 3, tokenInvalid, rateLimited)
	expect(user, 3, ok, rateLimited)
	expect(probe, 3, ok, rateLimited)
}

// L3: the window slides: a limit of n admits exactly n requests in any span.
func TestWindowSlides(t *testing.T) {
	w := NewWindow(3, 100)
	for i, step := range []struct {
		now  int64
		want rate
	}{{0, free}, {10, free}, {50, free}, {50, full}, {99, full}, {100, free}, {109, full}, {110, free}, {90, full}, {150, free}, {150, full}, {1000, free}} {
		if got := w.take(step.now); got != step.want {
			t.Errorf("step %d at %d: got %d, want %d", i, step.now, got, step.want)
		}
	}
}

// L3: a missing or broken window refuses.
func TestBrokenWindow(t *testing.T) {
	for name, w := range map[string]*Window{
		"nil": nil, "zero": {}, "no events": NewWindow(0, 1), "no span": NewWindow(1, 0),
		"too long": {max: 1, length: 1, times: make([]int64, 2)}, "cursor out": {max: 1, length: 1, times: make([]int64, 1), next: 1},
	} {
		if got := w.take(0); got != broken {
			t.Errorf("%s: got %d, want %d", name, got, broken)
		}
	}
}

// L3: without a configured token no request is admitted, and a panic refuses.
func TestFailsClosed(t *testing.T) {
	r := &Request{Method: "GET", Host: goodHost, Header: headers(auth)}
	if v, _ := Decide(r, NewTokens(messages.Secret{}, messages.Secret{}), four, roomy()); v != tokenInvalid {
		t.Errorf("no token configured: got %+v, want %+v", v, tokenInvalid)
	}
	reported := 0
	r.Panicked = func(value any) {
		if _, fault := value.(runtime.Error); !fault {
			t.Errorf("reported panic: got %v, want an error of the Go run time", value)
		}
		reported++
	}
	if v, _ := Decide(r, nil, four, roomy()); v != malformed || reported != 1 {
		t.Errorf("no tokens at all: got %+v and %d reported panics, want %+v and 1", v, reported, malformed)
	}
	if v, _ := Decide(r, known, four, nil); v != malformed {
		t.Errorf("no windows: got %+v, want %+v", v, malformed)
	}
	if v, _ := Decide(r, known, nil, roomy()); v != hostForbidden {
		t.Errorf("no hosts: got %+v, want %+v", v, hostForbidden)
	}
	if v, _ := Decide(&Request{Method: "GET", Host: "evil.example:1", Header: headers(auth)}, known, []string{"evil.example:1"}, roomy()); v != hostForbidden {
		t.Errorf("a list without a loopback host: got %+v, want %+v", v, hostForbidden)
	}
	six := Hosts("::1", "80")
	if v, _ := Decide(&Request{Method: "GET", Host: "[::1]:80", Header: headers(auth)}, known, six, roomy()); v != ok {
		t.Errorf("[::1]: got %+v, want %+v", v, ok)
	}
}

// Issue 4: Decide allocates nothing, for admitted and refused requests.
func TestDecideDoesNotAllocate(t *testing.T) {
	for name, r := range cases() {
		w := roomy()
		if n := testing.AllocsPerRun(200, func() { r.Now += minute; Decide(r, known, four, w) }); n != 0 {
			t.Errorf("%s: got %v allocations, want 0", name, n)
		}
	}
}

func cases() map[string]*Request {
	long := strings.Repeat("x", 4000)
	all := map[string]*Request{
		"ok":            {Method: "GET", Host: goodHost, Header: headers(auth, "Origin: http://"+goodHost)},
		"invalid_token": {Method: "GET", Host: goodHost, Header: headers("x-api-key: " + userToken[1:])},
		"long token":    {Method: "GET", Host: goodHost, Header: headers("x-api-key: " + long)},
	}
	for _, w := range wrong {
		r := &Request{Method: "GET", Host: goodHost, Header: headers(auth)}
		w.make(r, roomy())
		all[fmt.Sprint(w.reason)] = r
	}
	return all
}

// BenchmarkFiguresGuard measures an admitted request and each refusal: at most 1 µs and no allocation.
func BenchmarkFiguresGuard(b *testing.B) {
	for name, r := range cases() {
		if name == "rate_state_unavailable" || name == "long token" {
			continue
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			w := &Windows{NewWindow(1000, 1000), NewWindow(1000, 1000), NewWindow(1000, 1000)}
			for b.Loop() {
				r.Now += 2
				Decide(r, known, four, w)
			}
		})
	}
	b.Run("rate_limited", func(b *testing.B) {
		b.ReportAllocs()
		r := &Request{Method: "GET", Host: goodHost, Header: headers(auth)}
		w := &Windows{Admitted: NewWindow(1, minute)}
		for b.Loop() {
			Decide(r, known, four, w)
		}
	})
}
