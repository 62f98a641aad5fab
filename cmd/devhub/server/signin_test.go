package server

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// The metadata is RFC 8414's, at the place hub.md says and at the place the RFC says.
func TestMetadata(t *testing.T) {
	r := start(t, t.TempDir(), with())
	const suffix = "/.well-known/oauth-authorization-server"
	for _, target := range []string{r.place.Issuer() + suffix, r.place.HubURL() + suffix + "/api/v1/auth/native"} {
		var m struct {
			Issuer   string   `json:"issuer"`
			Methods  []string `json:"code_challenge_methods_supported"`
			Auth     []string `json:"token_endpoint_auth_methods_supported"`
			ISS      bool     `json:"authorization_response_iss_parameter_supported"`
			Register string   `json:"registration_endpoint"`
		}
		a := r.get(target)
		if err := json.Unmarshal(a.body, &m); err != nil {
			t.Fatal(err)
		}
		if m.Issuer != r.place.Issuer() || strings.Join(m.Methods, ",") != "S256" ||
			strings.Join(m.Auth, ",") != "none" || !m.ISS || m.Register != m.Issuer+"/register" {
			t.Errorf("got metadata %[2]s at %[1]s, want the issuer's, with S256 and iss", target, a.body)
		}
	}
}

// The whole flow: the redirect has code, state and iss; the token lives 15 minutes; the session endpoint returns the user.
func TestSignIn(t *testing.T) {
	r := start(t, t.TempDir(), with())
	client := r.goodClient()
	back := r.authorize(authorization(client))
	if back.Get("iss") != r.place.Issuer() || back.Get("state") != state || back.Get("code") == "" {
		t.Fatalf("got the redirect %v, want iss, state and code", back)
	}
	got := r.token(exchange(client, back.Get("code")))
	if got.Expires > 15*60 || got.Expires < 14*60 || !strings.EqualFold(got.Type, "bearer") || got.Scope != "vault:read vault:write" {
		t.Errorf("got %+v, want a bearer token for 15 minutes", got)
	}
	status, who := r.whoAmI(got.Access)
	want := map[string]string{"sub": "devhub|ada", "provider": "devhub", "id": "ada", "name": "Ada Lovelace", "role": "member"}
	if status != http.StatusOK || len(who) != len(want) {
		t.Fatalf("session: got status %d and %v, want 200 and %v", status, who, want)
	}
	for k, v := range want {
		if who[k] != v {
			t.Errorf("session %s: got %q, want %q", k, who[k], v)
		}
	}
	if status, _ := r.whoAmI(got.Access + "x"); status != http.StatusUnauthorized {
		t.Errorf("another token: got status %d, want 401", status)
	}
	if status, _ := r.whoAmI(got.Refresh); status != http.StatusUnauthorized {
		t.Errorf("refresh token as access token: got status %d, want 401", status)
	}
}

func TestScopesFollowTheRole(t *testing.T) {
	for user, want := range map[string]string{"ada": "vault:read vault:write", "grace": "vault:read", "somebody": "vault:read vault:write"} {
		r := start(t, t.TempDir(), Options{AutoApprove: user})
		if got := r.signIn(r.goodClient()); got.Scope != want {
			t.Errorf("%s: got the scopes %q, want %q", user, got.Scope, want)
		}
	}
}

// The requests that authorize refuses, and whether it may redirect with the error.
func TestAuthorizeRefuses(t *testing.T) {
	r := start(t, t.TempDir(), with())
	client := r.goodClient()
	tests := map[string]struct {
		change   func(url.Values)
		redirect string // error code in the redirect; empty: no redirect at all
	}{
		"plain PKCE":           {func(q url.Values) { q.Set("code_challenge_method", "plain") }, "invalid_request"},
		"PKCE without method":  {func(q url.Values) { q.Del("code_challenge_method") }, "invalid_request"},
		"no PKCE":              {func(q url.Values) { q.Del("code_challenge"); q.Del("code_challenge_method") }, "invalid_request"},
		"token response":       {func(q url.Values) { q.Set("response_type", "token") }, "unsupported_response_type"},
		"unknown scope":        {func(q url.Values) { q.Set("scope", "vault:admin") }, "invalid_scope"},
		"no scope":             {func(q url.Values) { q.Del("scope") }, "invalid_scope"},
		"repeated parameter":   {func(q url.Values) { q.Add("state", "another-state") }, "invalid_request"},
		"short state":          {func(q url.Values) { q.Set("state", "x") }, "invalid_state"},
		"unknown client":       {func(q url.Values) { q.Set("client_id", "nobody") }, ""},
		"no redirect URI":      {func(q url.Values) { q.Del("redirect_uri") }, ""},
		"another path":         {func(q url.Values) { q.Set("redirect_uri", "http://127.0.0.1:4444/callback/y") }, ""},
		"another host":         {func(q url.Values) { q.Set("redirect_uri", "http://127.0.0.2:4444/callback/x") }, ""},
		"localhost":            {func(q url.Values) { q.Set("redirect_uri", "http://localhost:4444/callback/x") }, ""},
		"https":                {func(q url.Values) { q.Set("redirect_uri", "https://127.0.0.1:4444/callback/x") }, ""},
		"outside":              {func(q url.Values) { q.Set("redirect_uri", "https://evil.example/callback/x") }, ""},
		"redirect with a user": {func(q url.Values) { q.Set("redirect_uri", "http://me@127.0.0.1:4444/callback/x") }, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			q := authorization(client)
			test.change(q)
			a := r.get(r.place.Issuer() + "/authorize?" + q.Encode())
			location, _ := url.Parse(a.header.Get("Location"))
			back := location.Query()
			if back.Get("code") != "" {
				t.Fatalf("got a code in %s, want none", location)
			}
			if back.Get("error") != test.redirect {
				t.Errorf("got redirect error %q, want %q (%d %s)", back.Get("error"), test.redirect, a.status, location)
			}
			if test.redirect == "" && (a.status < 400 || location.String() != "") {
				t.Errorf("got status %d to %q, want a page and no redirect", a.status, location)
			}
			if test.redirect != "" && back.Get("iss") != r.place.Issuer() {
				t.Errorf("got the error redirect %s, want one with iss", location)
			}
		})
	}
}

// RFC 8252 7.3: a registered loopback redirect matches with any port.
func TestAnyPortOfALoopbackRedirect(t *testing.T) {
	r := start(t, t.TempDir(), with())
	q := authorization(r.goodClient())
	q.Set("redirect_uri", "http://127.0.0.1:50505/callback/x")
	a := r.get(r.place.Issuer() + "/authorize?" + q.Encode())
	if !strings.HasPrefix(a.header.Get("Location"), "http://127.0.0.1:50505/callback/x?") {
		t.Fatalf("got status %d to %q, want a redirect to port 50505", a.status, a.header.Get("Location"))
	}
}

func TestTokenRefuses(t *testing.T) {
	r := start(t, t.TempDir(), with())
	client := r.goodClient()
	_, other := r.register(`{"redirect_uris":["` + redirect + `"],"token_endpoint_auth_method":"none"}`)
	for name, change := range map[string]func(url.Values){
		"wrong verifier":       func(f url.Values) { f.Set("code_verifier", strings.Repeat("x", 43)) },
		"no verifier":          func(f url.Values) { f.Del("code_verifier") },
		"another redirect URI": func(f url.Values) { f.Set("redirect_uri", "http://127.0.0.1:4445/callback/x") },
		"another client":       func(f url.Values) { f.Set("client_id", other) },
		"unknown client":       func(f url.Values) { f.Set("client_id", "nobody") },
		"another code":         func(f url.Values) { f.Set("code", "ory_ac_x.y") },
		"repeated parameter":   func(f url.Values) { f.Add("code_verifier", verifier) },
	} {
		t.Run(name, func(t *testing.T) {
			form := exchange(client, r.authorize(authorization(client)).Get("code"))
			change(form)
			if got := r.token(form); got.Access != "" || got.Error == "" {
				t.Errorf("got %+v, want an error and no tokens", got)
			}
		})
	}
}

// A code works once; using it again revokes the tokens that it gave.
func TestCodeReuse(t *testing.T) {
	r := start(t, t.TempDir(), with())
	client := r.goodClient()
	code := r.authorize(authorization(client)).Get("code")
	first := r.token(exchange(client, code))
	if again := r.token(exchange(client, code)); again.Error != "invalid_grant" {
		t.Fatalf("second exchange: got %+v, want invalid_grant", again)
	}
	if status, _ := r.whoAmI(first.Access); status != http.StatusUnauthorized {
		t.Errorf("the first exchange's token: got status %d, want 401", status)
	}
}

func refresh(client, token string) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "client_id": {client}, "refresh_token": {token}}
}

// Refresh tokens rotate; using an old one revokes the family.
func TestRefreshReuseRevokesTheFamily(t *testing.T) {
	r := start(t, t.TempDir(), with())
	client := r.goodClient()
	first := r.signIn(client)
	second := r.token(refresh(client, first.Refresh))
	if second.Access == "" || second.Refresh == first.Refresh {
		t.Fatalf("got %+v, want a new refresh token", second)
	}
	if reused := r.token(refresh(client, first.Refresh)); reused.Error != "invalid_grant" {
		t.Fatalf("reuse: got %+v, want invalid_grant", reused)
	}
	if after := r.token(refresh(client, second.Refresh)); after.Error != "invalid_grant" {
		t.Errorf("the family's refresh token: got %+v, want invalid_grant", after)
	}
	if status, _ := r.whoAmI(second.Access); status != http.StatusUnauthorized {
		t.Errorf("the family's access token: got status %d, want 401", status)
	}
}

// RFC 7009: revocation always answers 200, and revokes the family.
func TestRevoke(t *testing.T) {
	r := start(t, t.TempDir(), with())
	client := r.goodClient()
	got := r.signIn(client)
	for name, form := range map[string]url.Values{
		"nothing":        {},
		"unknown token":  {"client_id": {client}, "token": {"x"}},
		"unknown client": {"client_id": {"nobody"}, "token": {got.Refresh}},
	} {
		if a := r.post("/revoke", form); a.status != http.StatusOK {
			t.Errorf("%s: got status %d, want 200", name, a.status)
		}
	}
	if status, _ := r.whoAmI(got.Access); status != http.StatusOK {
		t.Fatalf("after a revocation by another client: got status %d, want 200", status)
	}
	r.post("/revoke", url.Values{"client_id": {client}, "token": {got.Refresh}})
	if status, _ := r.whoAmI(got.Access); status != http.StatusUnauthorized {
		t.Errorf("access token after revocation: got status %d, want 401", status)
	}
	if after := r.token(refresh(client, got.Refresh)); after.Error != "invalid_grant" {
		t.Errorf("refresh after revocation: got %+v, want invalid_grant", after)
	}
}

func TestRegistrationRefuses(t *testing.T) {
	r := start(t, t.TempDir(), with())
	uri := func(u string) string {
		return `{"redirect_uris":["` + u + `"],"token_endpoint_auth_method":"none"}`
	}
	for body, want := range map[string]string{
		uri("http://localhost:1/cb"):             "invalid_redirect_uri",
		uri("https://127.0.0.1:1/cb"):            "invalid_redirect_uri",
		uri("http://127.0.0.2:1/cb"):             "invalid_redirect_uri",
		uri("http://0.0.0.0:1/cb"):               "invalid_redirect_uri",
		uri("http://app.example/cb"):             "invalid_redirect_uri",
		uri("app.example:/cb"):                   "invalid_redirect_uri",
		uri("http://127.0.0.1:1/cb#x"):           "invalid_redirect_uri",
		uri("http://a@127.0.0.1:1/cb"):           "invalid_redirect_uri",
		`{"redirect_uris":[]}`:                   "invalid_redirect_uri",
		`{"redirect_uris":["` + redirect + `"]}`: "invalid_client_metadata",
		`{"redirect_uris":["` + redirect + `"],"token_endpoint_auth_method":"client_secret_post"}`:                                    "invalid_client_metadata",
		`{"redirect_uris":["` + redirect + `"],"token_endpoint_auth_method":"none","grant_types":["implicit"]}`:                       "invalid_client_metadata",
		`{"redirect_uris":["` + redirect + `"],"token_endpoint_auth_method":"none","response_types":["token"]}`:                       "invalid_client_metadata",
		`{"redirect_uris":["` + redirect + `"],"token_endpoint_auth_method":"none","scope":"vault:read everything"}`:                  "invalid_client_metadata",
		`{"redirect_uris":["` + redirect + `"],"token_endpoint_auth_method":"none","client_name":"` + strings.Repeat("x", 201) + `"}`: "invalid_client_metadata",
		`nonsense`: "invalid_client_metadata",
	} {
		a, id := r.register(body)
		var problem struct{ Error string }
		json.Unmarshal(a.body, &problem)
		if a.status != http.StatusBadRequest || problem.Error != want || id != "" {
			t.Errorf("registering %.90s: got %d %s, want %s", body, a.status, a.body, want)
		}
	}
	if a, _ := r.register(uri("http://[::1]:1/cb")); a.status != http.StatusCreated {
		t.Errorf("the IPv6 literal: got %s, want status 201", a.body)
	}
}

// Clients, grants, users and ports survive a restart.
func TestRestartKeepsState(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, with())
	client, issuer := r.goodClient(), r.place.Issuer()
	got := r.signIn(client)
	r.stop()
	r = start(t, dir, with())
	if r.place.Issuer() != issuer {
		t.Errorf("got the issuer %s, want %s", r.place.Issuer(), issuer)
	}
	if status, who := r.whoAmI(got.Access); status != http.StatusOK || who["id"] != "ada" {
		t.Errorf("access token after the restart: got %d %v, want ada", status, who)
	}
	if next := r.token(refresh(client, got.Refresh)); next.Access == "" {
		t.Errorf("refresh after the restart: got %+v, want an access token", next)
	}
	r.signIn(client)
}
