package oauth

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testIssuer = "https://hub.example/api/v1/auth/native"

func goodMetadata() map[string]any {
	return map[string]any{
		"issuer":                                         testIssuer,
		"authorization_endpoint":                         testIssuer + "/authorize",
		"token_endpoint":                                 testIssuer + "/token",
		"registration_endpoint":                          testIssuer + "/register",
		"revocation_endpoint":                            testIssuer + "/revoke",
		"response_types_supported":                       []string{"code"},
		"code_challenge_methods_supported":               []string{"S256"},
		"token_endpoint_auth_methods_supported":          []string{"none"},
		"authorization_response_iss_parameter_supported": true,
	}
}

// O1, T13: metadata is accepted only with https endpoints of the issuer's origin, public clients and S256.
func TestCheckMetadata(t *testing.T) {
	rows := map[string]struct {
		key   string
		value any // nil removes the key
		want  messages.Reason
	}{
		"as it should be":           {"issuer", testIssuer, messages.ReasonOK},
		"no registration":           {"registration_endpoint", nil, messages.ReasonOK},
		"no revocation":             {"revocation_endpoint", nil, messages.ReasonOK},
		"default port written out":  {"token_endpoint", "https://HUB.example:443/t", messages.ReasonOK},
		"S256 beside plain":         {"code_challenge_methods_supported", []string{"plain", "S256"}, messages.ReasonOK},
		"other issuer":              {"issuer", "https://evil.example/api/v1/auth/native", messages.ReasonIssuerMismatch},
		"issuer with a slash":       {"issuer", testIssuer + "/", messages.ReasonIssuerMismatch},
		"issuer in capitals":        {"issuer", strings.ToUpper(testIssuer), messages.ReasonIssuerMismatch},
		"no issuer":                 {"issuer", nil, messages.ReasonIssuerMismatch},
		"issuer of another type":    {"issuer", 1, messages.ReasonMetadataInvalid},
		"http token endpoint":       {"token_endpoint", "http://hub.example/t", messages.ReasonMetadataInvalid},
		"http authorization":        {"authorization_endpoint", "http://hub.example/a", messages.ReasonMetadataInvalid},
		"script authorization":      {"authorization_endpoint", "javascript:alert(1)", messages.ReasonMetadataInvalid},
		"token elsewhere":           {"token_endpoint", "https://evil.example/t", messages.ReasonMetadataInvalid},
		"token on another port":     {"token_endpoint", "https://hub.example:8443/t", messages.ReasonMetadataInvalid},
		"not the host but a prefix": {"token_endpoint", "https://hub.example.evil.net/t", messages.ReasonMetadataInvalid},
		"userinfo":                  {"token_endpoint", "https://hub.example@evil.net/t", messages.ReasonMetadataInvalid},
		"userinfo of the same host": {"token_endpoint", "https://u@hub.example/t", messages.ReasonMetadataInvalid},
		"fragment":                  {"authorization_endpoint", testIssuer + "/a#x", messages.ReasonMetadataInvalid},
		"registration elsewhere":    {"registration_endpoint", "https://evil.example/r", messages.ReasonMetadataInvalid},
		"revocation elsewhere":      {"revocation_endpoint", "https://evil.example/r", messages.ReasonMetadataInvalid},
		"no authorization endpoint": {"authorization_endpoint", nil, messages.ReasonMetadataInvalid},
		"no token endpoint":         {"token_endpoint", nil, messages.ReasonMetadataInvalid},
		"no code flow":              {"response_types_supported", []string{"token"}, messages.ReasonMetadataInvalid},
		"no response types":         {"response_types_supported", nil, messages.ReasonMetadataInvalid},
		"confidential clients only": {"token_endpoint_auth_methods_supported", []string{"client_secret_basic"}, messages.ReasonMetadataInvalid},
		"no auth methods":           {"token_endpoint_auth_methods_supported", nil, messages.ReasonMetadataInvalid},
		"plain only":                {"code_challenge_methods_supported", []string{"plain"}, messages.ReasonUnsupportedPKCEMethod},
		"no PKCE":                   {"code_challenge_methods_supported", nil, messages.ReasonUnsupportedPKCEMethod},
		"S256 in small letters":     {"code_challenge_methods_supported", []string{"s256"}, messages.ReasonUnsupportedPKCEMethod},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			m := goodMetadata()
			if r.value == nil {
				delete(m, r.key)
			} else {
				m[r.key] = r.value
			}
			body, _ := json.Marshal(m)
			got, reason := checkMetadata(body, testIssuer, false)
			if reason != r.want {
				t.Fatalf("got reason %s, want %s", reason, r.want)
			}
			if (reason == messages.ReasonOK) != (got.Token != "") {
				t.Fatalf("got endpoint %q with reason %s, want endpoints only with ok", got.Token, reason)
			}
		})
	}
	for _, body := range []string{"", "null", "[]", "<html>", `{"issuer":"a","issuer":"` + testIssuer + `"}`} {
		if _, reason := checkMetadata([]byte(body), testIssuer, false); reason == messages.ReasonOK {
			t.Fatalf("%q: got ok, want a refusal", body)
		}
	}
}

// O1: if the configuration allows endpoints of other origins, they must still be https, and the issuer must equal the
// configured one.
func TestForeignEndpoints(t *testing.T) {
	for _, key := range []string{"authorization_endpoint", "token_endpoint", "registration_endpoint", "revocation_endpoint", "device_authorization_endpoint"} {
		for value, want := range map[string]messages.Reason{
			"https://login.example/x":   messages.ReasonOK,
			"http://login.example/x":    messages.ReasonMetadataInvalid,
			"http://hub.example/x":      messages.ReasonMetadataInvalid,
			"https://u@login.example/x": messages.ReasonMetadataInvalid,
			"https://login.example/#x":  messages.ReasonMetadataInvalid,
			"//login.example/x":         messages.ReasonMetadataInvalid,
		} {
			m := goodMetadata()
			m[key] = value
			body, _ := json.Marshal(m)
			if _, reason := checkMetadata(body, testIssuer, true); reason != want {
				t.Errorf("%s = %s: got %s, want %s", key, value, reason, want)
			}
			if _, reason := checkMetadata(body, testIssuer, false); reason != messages.ReasonMetadataInvalid {
				t.Errorf("%s = %s without foreign endpoints: got %s, want %s", key, value, reason, messages.ReasonMetadataInvalid)
			}
		}
	}
	m := goodMetadata()
	m["issuer"] = "https://login.example"
	body, _ := json.Marshal(m)
	if _, reason := checkMetadata(body, testIssuer, true); reason != messages.ReasonIssuerMismatch {
		t.Errorf("another issuer: got %s, want %s", reason, messages.ReasonIssuerMismatch)
	}
}

// O4, T13: the order of the checks is part of the defence.
func TestCheckCallback(t *testing.T) {
	want := expectation{state: "the-state", issuer: testIssuer, issRequired: true}
	good := url.Values{"code": {"c0de"}, "state": {"the-state"}, "iss": {testIssuer}}
	rows := map[string]struct {
		set    map[string]string
		drop   []string
		reason messages.Reason
		detail string
	}{
		"as it should be":                 {reason: messages.ReasonOK},
		"server error":                    {set: map[string]string{"error": "access_denied"}, reason: messages.ReasonAuthorizationServerError, detail: "access_denied"},
		"server error in free text":       {set: map[string]string{"error": "<script>"}, reason: messages.ReasonAuthorizationServerError},
		"empty server error":              {set: map[string]string{"error": ""}, reason: messages.ReasonAuthorizationServerError},
		"error before a wrong state":      {set: map[string]string{"error": "server_error", "state": "x"}, reason: messages.ReasonAuthorizationServerError, detail: "server_error"},
		"no state":                        {drop: []string{"state"}, reason: messages.ReasonStateMissing},
		"empty state":                     {set: map[string]string{"state": ""}, reason: messages.ReasonStateMissing},
		"wrong state":                     {set: map[string]string{"state": "the-stat"}, reason: messages.ReasonStateMismatch},
		"wrong state before a wrong iss":  {set: map[string]string{"state": "x", "iss": "x"}, reason: messages.ReasonStateMismatch},
		"no state before no iss":          {drop: []string{"state", "iss", "code"}, reason: messages.ReasonStateMissing},
		"no iss":                          {drop: []string{"iss"}, reason: messages.ReasonIssuerMissing},
		"empty iss":                       {set: map[string]string{"iss": ""}, reason: messages.ReasonIssuerMismatch},
		"wrong iss":                       {set: map[string]string{"iss": testIssuer + "/"}, reason: messages.ReasonIssuerMismatch},
		"wrong iss before a missing code": {set: map[string]string{"iss": "x"}, drop: []string{"code"}, reason: messages.ReasonIssuerMismatch},
		"no code":                         {drop: []string{"code"}, reason: messages.ReasonMissingCode},
		"empty code":                      {set: map[string]string{"code": ""}, reason: messages.ReasonMissingCode},
		"longest code":                    {set: map[string]string{"code": strings.Repeat("c", 4096)}, reason: messages.ReasonOK},
		"code too long":                   {set: map[string]string{"code": strings.Repeat("c", 4097)}, reason: messages.ReasonMalformedInput},
		"code with a line break":          {set: map[string]string{"code": "a\r\nb"}, reason: messages.ReasonMalformedInput},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			q := url.Values{}
			for k, v := range good {
				q[k] = v
			}
			for k, v := range r.set {
				q.Set(k, v)
			}
			for _, k := range r.drop {
				q.Del(k)
			}
			cb := checkCallback(q, want)
			if cb.reason != r.reason || cb.detail != r.detail {
				t.Fatalf("got %s %q, want %s %q", cb.reason, cb.detail, r.reason, r.detail)
			}
			if (cb.code != "") != (cb.reason == messages.ReasonOK) {
				t.Fatalf("got code %q with reason %s, want a code only with ok", cb.code, cb.reason)
			}
			if ours := q.Get("state") == want.state; cb.ours != ours {
				t.Fatalf("ours: got %v, want %v", cb.ours, ours)
			}
		})
	}
	if cb := checkCallback(url.Values{"code": {"c"}, "state": {""}}, expectation{}); cb.reason != messages.ReasonStateMissing || cb.ours {
		t.Fatalf("attempt without state: got %+v, want state_missing", cb)
	}
	if cb := checkCallback(url.Values{"code": {"c"}, "state": {"the-state"}, "iss": {"x"}},
		expectation{state: "the-state", issuer: testIssuer}); cb.reason != messages.ReasonIssuerMismatch {
		t.Fatalf("wrong iss where none is required: got %+v, want issuer_mismatch", cb)
	}
}

// O4: for any query, a code is returned only with the right state and issuer.
func FuzzCallback(f *testing.F) {
	f.Add("code=c&state=the-state&iss=" + url.QueryEscape(testIssuer))
	f.Add("error=access_denied&state=the-state")
	f.Add("code=c&code=d&state=the-state")
	f.Add("%zz;a&b==&state")
	f.Fuzz(func(t *testing.T, raw string) {
		q, ok := parameters(raw)
		if !ok {
			return
		}
		cb := checkCallback(q, expectation{state: "the-state", issuer: testIssuer, issRequired: true})
		code, reason, detail := cb.code, cb.reason, cb.detail
		if cb.ours != (q.Get("state") == "the-state") {
			t.Fatalf("%q: got ours %v, want %v", raw, cb.ours, !cb.ours)
		}
		if (reason == messages.ReasonOK) != (code != "") {
			t.Fatalf("got %s with a code of %d bytes, want a code only with ok", reason, len(code))
		}
		if reason == messages.ReasonOK && (q.Get("state") != "the-state" || q.Get("iss") != testIssuer || q.Has("error")) {
			t.Fatalf("%q: got ok, want a refusal", raw)
		}
		if detail != "" && knownCode(detail) != detail {
			t.Fatalf("got detail %q, want a known error code", detail)
		}
	})
}

// O3: the requests that the redirect listener accepts.
func TestRefusal(t *testing.T) {
	const host, path = "127.0.0.1:4321", "/callback/abc"
	rows := map[string]struct {
		method, target, host string
		header               http.Header
		want                 int
	}{
		"callback":        {"GET", path + "?code=c", host, nil, 0},
		"navigation":      {"GET", path, host, http.Header{"Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}, "Sec-Fetch-Site": {"cross-site"}}, 0},
		"favicon":         {"GET", "/favicon.ico", host, nil, 404},
		"root":            {"GET", "/", host, nil, 404},
		"longer path":     {"GET", path + "/", host, nil, 404},
		"shorter path":    {"GET", "/callback", host, nil, 404},
		"encoded path":    {"GET", "/callback%2fabc", host, nil, 404},
		"encoded letter":  {"GET", "/callback/%61bc", host, nil, 404},
		"dotted path":     {"GET", "/x/../callback/abc", host, nil, 404},
		"absolute form":   {"GET", "http://127.0.0.1:4321" + path, host, nil, 404},
		"localhost":       {"GET", path, "localhost:4321", nil, 403},
		"another host":    {"GET", path, "evil.example", nil, 403},
		"another port":    {"GET", path, "127.0.0.1:1", nil, 403},
		"no host":         {"GET", path, "", nil, 403},
		"post":            {"POST", path, host, nil, 405},
		"head":            {"HEAD", path, host, nil, 405},
		"options":         {"OPTIONS", path, host, nil, 405},
		"fetch by a page": {"GET", path, host, http.Header{"Sec-Fetch-Mode": {"no-cors"}}, 403},
		"image":           {"GET", path, host, http.Header{"Sec-Fetch-Dest": {"image"}}, 403},
		"frame":           {"GET", path, host, http.Header{"Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"iframe"}}, 403},
		"repeated mode":   {"GET", path, host, http.Header{"Sec-Fetch-Mode": {"navigate", "cors"}}, 403},
		"prefetch":        {"GET", path, host, http.Header{"Sec-Purpose": {"prefetch"}}, 403},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			req := httptest.NewRequest(r.method, "http://x/", nil)
			u, err := url.ParseRequestURI(r.target)
			if err != nil {
				t.Fatal(err)
			}
			req.URL, req.Host = u, r.host
			for k, v := range r.header {
				req.Header[k] = v
			}
			if got := refusal(req, host, "/start/xyz", path); got != r.want {
				t.Fatalf("got %d, want %d", got, r.want)
			}
		})
	}
	for _, raw := range []string{"code=a&code=b", "state=a&state=b", "iss=&iss=", "a=%zz", strings.Repeat("a", 20<<10)} {
		if _, ok := parameters(raw); ok {
			t.Fatalf("%.40q: got accepted, want a refusal", raw)
		}
	}
}

// O1: the issuers and session endpoints that the configuration may name.
func TestNew(t *testing.T) {
	ok := Config{Issuer: testIssuer, SessionURL: "https://hub.example/api/v1/auth/session"}
	if _, err := New(ok); err != nil {
		t.Fatal(err)
	}
	foreign := Config{Issuer: "https://login.example/realms/a", ForeignIssuer: true, SessionURL: ok.SessionURL}
	if _, err := New(foreign); err != nil {
		t.Fatalf("foreign issuer that the configuration names: got %v, want no error", err)
	}
	for name, change := range map[string]func(*Config){
		"http issuer":          func(c *Config) { c.Issuer = "http://hub.example" },
		"issuer with query":    func(c *Config) { c.Issuer += "?x" },
		"issuer with fragment": func(c *Config) { c.Issuer += "#x" },
		"issuer with userinfo": func(c *Config) { c.Issuer = "https://u@hub.example" },
		"no issuer":            func(c *Config) { c.Issuer = "" },
		"session elsewhere":    func(c *Config) { c.SessionURL = "https://evil.example/session" },
		"http session":         func(c *Config) { c.SessionURL = "http://hub.example/session" },
		"wildcard listener":    func(c *Config) { c.Loopback = "0.0.0.0" },
		"named listener":       func(c *Config) { c.Loopback = "localhost" },
	} {
		c := ok
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
	}
}
