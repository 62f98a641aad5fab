package server

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"companion/cmd/devhub/fault"
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
			t.Errorf("metadata at %s: %s", target, a.body)
		}
	}
}

// The whole flow: the redirect carries code, state and iss; the token lives 15 minutes; the session
// endpoint knows its bearer.
func TestSignIn(t *testing.T) {
	r := start(t, t.TempDir(), with())
	client := r.goodClient()
	back := r.authorize(authorization(client))
	if back.Get("iss") != r.place.Issuer() || back.Get("state") != state || back.Get("code") == "" {
		t.Fatalf("redirect: %v", back)
	}
	got := r.token(exchange(client, back.Get("code")))
	if got.Expires > 15*60 || got.Expires < 14*60 || !strings.EqualFold(got.Type, "bearer") || got.Scope != "vault:read vault:write" {
		t.Errorf("tokens: %+v", got)
	}
	status, who := r.whoAmI(got.Access)
	want := map[string]string{"sub": "devhub|ada", "provider": "devhub", "id": "ada", "name": "Ada Lovelace", "role": "member"}
	if status != http.StatusOK || len(who) != len(want) {
		t.Fatalf("session: %d %v", status, who)
	}
	for k, v := range want {
		if who[k] != v {
			t.Errorf("session %s = %q, want %q", k, who[k], v)
		}
	}
	if status, _ := r.whoAmI(got.Access + "x"); status != http.StatusUnauthorized {
		t.Errorf("another token: %d", status)
	}
	if status, _ := r.whoAmI(got.Refresh); status != http.StatusUnauthorized {
		t.Errorf("refresh token as access token: %d", status)
	}
}

func TestScopesFollowTheRole(t *testing.T) {
	for user, want := range map[string]string{"ada": "vault:read vault:write", "grace": "vault:read", "somebody": "vault:read vault:write"} {
		r := start(t, t.TempDir(), Options{AutoApprove: user})
		if got := r.signIn(r.goodClient()); got.Scope != want {
			t.Errorf("%s is granted %q, want %q", user, got.Scope, want)
		}
	}
}

// What authorize refuses, and whether it may tell the redirect URI about it.
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
				t.Fatalf("a code was given: %s", location)
			}
			if back.Get("error") != test.redirect {
				t.Errorf("redirect error %q, want %q (%d %s)", back.Get("error"), test.redirect, a.status, location)
			}
			if test.redirect == "" && (a.status < 400 || location.String() != "") {
				t.Errorf("answer %d to %q, want a page and no redirect", a.status, location)
			}
			if test.redirect != "" && back.Get("iss") != r.place.Issuer() {
				t.Errorf("error redirect without iss: %s", location)
			}
		})
	}
}

// RFC 8252 7.3: a registered loopback redirect may come with any port.
func TestAnyPortOfALoopbackRedirect(t *testing.T) {
	r := start(t, t.TempDir(), with())
	q := authorization(r.goodClient())
	q.Set("redirect_uri", "http://127.0.0.1:50505/callback/x")
	a := r.get(r.place.Issuer() + "/authorize?" + q.Encode())
	if !strings.HasPrefix(a.header.Get("Location"), "http://127.0.0.1:50505/callback/x?") {
		t.Fatalf("answer %d to %q", a.status, a.header.Get("Location"))
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
				t.Errorf("tokens given: %+v", got)
			}
		})
	}
}

// A code works once; using it again revokes what it gave.
func TestCodeReuse(t *testing.T) {
	r := start(t, t.TempDir(), with())
	client := r.goodClient()
	code := r.authorize(authorization(client)).Get("code")
	first := r.token(exchange(client, code))
	if again := r.token(exchange(client, code)); again.Error != "invalid_grant" {
		t.Fatalf("second exchange: %+v", again)
	}
	if status, _ := r.whoAmI(first.Access); status != http.StatusUnauthorized {
		t.Errorf("the first exchange's token still works: %d", status)
	}
}

func refresh(client, token string) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "client_id": {client}, "refresh_token": {token}}
}

// Refresh tokens rotate; using an old one kills the family.
func TestRefreshReuseRevokesTheFamily(t *testing.T) {
	r := start(t, t.TempDir(), with())
	client := r.goodClient()
	first := r.signIn(client)
	second := r.token(refresh(client, first.Refresh))
	if second.Access == "" || second.Refresh == first.Refresh {
		t.Fatalf("no rotation: %+v", second)
	}
	if reused := r.token(refresh(client, first.Refresh)); reused.Error != "invalid_grant" {
		t.Fatalf("reuse: %+v", reused)
	}
	if after := r.token(refresh(client, second.Refresh)); after.Error != "invalid_grant" {
		t.Errorf("the family lives on: %+v", after)
	}
	if status, _ := r.whoAmI(second.Access); status != http.StatusUnauthorized {
		t.Errorf("the family's access token lives on: %d", status)
	}
}

// RFC 7009: always 200, and the family is gone.
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
			t.Errorf("%s: %d", name, a.status)
		}
	}
	if status, _ := r.whoAmI(got.Access); status != http.StatusOK {
		t.Fatalf("revoked by a client that does not own the token: %d", status)
	}
	r.post("/revoke", url.Values{"client_id": {client}, "token": {got.Refresh}})
	if status, _ := r.whoAmI(got.Access); status != http.StatusUnauthorized {
		t.Errorf("access token after revocation: %d", status)
	}
	if after := r.token(refresh(client, got.Refresh)); after.Error != "invalid_grant" {
		t.Errorf("refresh after revocation: %+v", after)
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
			t.Errorf("registering %.90s: %d %s, want %s", body, a.status, a.body, want)
		}
	}
	if a, _ := r.register(uri("http://[::1]:1/cb")); a.status != http.StatusCreated {
		t.Errorf("the IPv6 literal is refused: %s", a.body)
	}
}

// Each fault of the sign-in does what its help says.
func TestSignInFaults(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, with())
	client := r.goodClient()
	redirects := map[fault.Name]func(url.Values) bool{
		fault.WrongISS:   func(q url.Values) bool { return q.Get("iss") != "" && q.Get("iss") != r.place.Issuer() },
		fault.NoISS:      func(q url.Values) bool { return !q.Has("iss") && q.Get("code") != "" },
		fault.WrongState: func(q url.Values) bool { return q.Get("state") != state && q.Get("code") != "" },
		fault.Denied:     func(q url.Values) bool { return q.Get("error") == "access_denied" && !q.Has("code") },
		fault.ReusedCode: func(q url.Values) bool {
			return r.token(exchange(client, q.Get("code"))).Error == "invalid_grant"
		},
		fault.TokenError: func(q url.Values) bool {
			return r.token(exchange(client, q.Get("code"))).Error == "invalid_grant"
		},
		fault.LostResponse: func(q url.Values) bool {
			_, err := r.client.PostForm(r.place.Issuer()+"/token", exchange(client, q.Get("code")))
			return err != nil
		},
	}
	for name, played := range redirects {
		turn(t, dir, name, true)
		if q := r.authorize(authorization(client)); !played(q) {
			t.Errorf("%s is not played: %v", name, q)
		}
		turn(t, dir, name, false)
	}
	for name, part := range map[fault.Name]string{
		fault.WrongIssuer: `/native/other"`, fault.PlainOnly: `["plain"]`, fault.Foreign: `"https://elsewhere.invalid/revoke"`,
		fault.QuietISS: `"authorization_response_iss_parameter_supported":false`,
	} {
		turn(t, dir, name, true)
		if a := r.get(r.place.Issuer() + "/.well-known/oauth-authorization-server"); !strings.Contains(string(a.body), part) {
			t.Errorf("%s is not played: %s", name, a.body)
		}
		turn(t, dir, name, false)
	}
	turn(t, dir, fault.NoRegister, true)
	if a := r.get(r.place.Issuer() + "/.well-known/oauth-authorization-server"); strings.Contains(string(a.body), "registration_endpoint") {
		t.Errorf("no-registration is not played: %s", a.body)
	}
	turn(t, dir, fault.NoRegister, false)
	turn(t, dir, fault.SlowToken, true)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.place.Issuer()+"/token", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := r.client.Do(req); err == nil {
		resp.Body.Close()
		t.Errorf("slow-token is not played: %s", resp.Status)
	}
	turn(t, dir, fault.SlowToken, false)
	turn(t, dir, fault.ServerError, true)
	if a := r.get(r.place.HubURL() + "/api/v1/manifest/timestamp.json"); a.status != http.StatusServiceUnavailable {
		t.Errorf("server-error is not played: %d", a.status)
	}
	turn(t, dir, fault.ServerError, false)
	r.signIn(client)
}

func turn(t *testing.T, dir string, n fault.Name, on bool) {
	t.Helper()
	if err := fault.Switch(dir+"/faults", n, on); err != nil {
		t.Fatal(err)
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
		t.Errorf("the issuer was %s and is %s", issuer, r.place.Issuer())
	}
	if status, who := r.whoAmI(got.Access); status != http.StatusOK || who["id"] != "ada" {
		t.Errorf("access token after the restart: %d %v", status, who)
	}
	if next := r.token(refresh(client, got.Refresh)); next.Access == "" {
		t.Errorf("refresh after the restart: %+v", next)
	}
	r.signIn(client)
}
