package server

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"companion/cmd/devhub/fault"
)

// Each fault of the sign-in has the effect that its help names.
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
			t.Errorf("%s: got %v, want the fault", name, q)
		}
		turn(t, dir, name, false)
	}
	for name, part := range map[fault.Name]string{
		fault.WrongIssuer: `/native/other"`, fault.PlainOnly: `["plain"]`, fault.Foreign: `"https://elsewhere.invalid/revoke"`,
		fault.QuietISS: `"authorization_response_iss_parameter_supported":false`,
	} {
		turn(t, dir, name, true)
		if a := r.get(r.place.Issuer() + "/.well-known/oauth-authorization-server"); !strings.Contains(string(a.body), part) {
			t.Errorf("%s: got %s, want the fault", name, a.body)
		}
		turn(t, dir, name, false)
	}
	turn(t, dir, fault.NoRegister, true)
	if a := r.get(r.place.Issuer() + "/.well-known/oauth-authorization-server"); strings.Contains(string(a.body), "registration_endpoint") {
		t.Errorf("no-registration: got %s, want no registration endpoint", a.body)
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
		t.Errorf("slow-token: got %s, want no answer in time", resp.Status)
	}
	turn(t, dir, fault.SlowToken, false)
	turn(t, dir, fault.ServerError, true)
	if a := r.get(r.place.HubURL() + "/api/v1/manifest/timestamp.json"); a.status != http.StatusServiceUnavailable {
		t.Errorf("server-error: got status %d, want 503", a.status)
	}
	turn(t, dir, fault.ServerError, false)
	r.signIn(client)
}

// The faults of the token answer and of the whole hub have their effect, and the hub serves again without them.
func TestTokenFaults(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, with())
	client := r.goodClient()
	fresh := func() url.Values { return refresh(client, r.signIn(client).Refresh) }
	for name, played := range map[fault.Name]func(answer) bool{
		fault.TokenMoves: func(a answer) bool { return a.status == http.StatusTemporaryRedirect },
		fault.HugeTokens: func(a answer) bool { return len(a.body) > 9000 },
		fault.BadExpiry:  func(a answer) bool { return strings.Contains(string(a.body), `"expires_in":-1`) },
		fault.HugeAnswer: func(a answer) bool { return len(a.body) > 100<<20 },
		fault.CutBody:    func(a answer) bool { return a.err != nil && a.status == http.StatusOK },
		fault.WrongType:  func(a answer) bool { return strings.Contains(string(a.body), `"token_type":"DPoP"`) },
		fault.NoRotation: func(a answer) bool {
			return !strings.Contains(string(a.body), "refresh_token") && a.status == http.StatusOK
		},
		fault.NoScope:     func(a answer) bool { return !strings.Contains(string(a.body), "scope") && a.status == http.StatusOK },
		fault.ShortTokens: func(a answer) bool { return strings.Contains(string(a.body), `"expires_in":1,`) },
	} {
		form := fresh()
		if a := r.post("/token", form); a.status != http.StatusOK || a.err != nil {
			t.Fatalf("without a fault: got status %d and %s, want 200", a.status, a.body)
		}
		form = fresh()
		turn(t, dir, name, true)
		if a := r.post("/token", form); !played(a) {
			t.Errorf("%s: got %d %.300s (%v), want the fault", name, a.status, a.body, a.err)
		}
		turn(t, dir, name, false)
	}
	turn(t, dir, fault.SlowBody, true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.place.Issuer()+"/token", strings.NewReader(freshRefresh(r, dir, client)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if a := r.do(req, nil); a.err == nil {
		t.Errorf("slow-token-body: got %s, want no answer in time", a.body)
	}
	turn(t, dir, fault.SlowBody, false)

	for _, name := range []fault.Name{fault.Storm, fault.Restarts} {
		turn(t, dir, name, true)
		failed := 0
		for range 9 {
			resp, err := r.client.Get(r.place.Issuer() + "/.well-known/oauth-authorization-server")
			if err != nil {
				failed++
				continue
			}
			if resp.StatusCode != http.StatusOK {
				failed++
			}
			resp.Body.Close()
		}
		if failed == 0 || failed == 9 {
			t.Errorf("%s: got %d of 9 requests failed, want some", name, failed)
		}
		turn(t, dir, name, false)
	}
	got := r.signIn(client)
	turn(t, dir, fault.EarlyRevoked, true)
	if status, _ := r.whoAmI(got.Access); status != http.StatusUnauthorized {
		t.Errorf("early-revocation: got status %d, want 401", status)
	}
	turn(t, dir, fault.EarlyRevoked, false)
	for name, key := range map[fault.Name]string{fault.NoDevice: "device_authorization_endpoint", fault.TokenElse: r.place.Issuer() + "/token\""} {
		turn(t, dir, name, true)
		if a := r.get(r.place.Issuer() + "/.well-known/oauth-authorization-server"); strings.Contains(string(a.body), key) {
			t.Errorf("%s: got %s, want the fault", name, a.body)
		}
		turn(t, dir, name, false)
	}
	r.signIn(client)

	var previewed atomic.Int64
	scanned := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { previewed.Add(1) }))
	defer scanned.Close()
	_, scannedClient := r.register(`{"redirect_uris":["` + scanned.URL + `/callback"],"token_endpoint_auth_method":"none"}`)
	query := authorization(scannedClient)
	query.Set("redirect_uri", scanned.URL+"/callback")
	turn(t, dir, fault.Previews, true)
	r.authorize(query)
	turn(t, dir, fault.Previews, false)
	if previewed.Load() == 0 {
		t.Error("previews: got no request to the redirect URI, want some")
	}
}

// freshRefresh returns a refresh whose token was made before the current fault was switched on.
func freshRefresh(r *running, dir, client string) string {
	turn(r.T, dir, fault.SlowBody, false)
	form := refresh(client, r.signIn(client).Refresh).Encode()
	turn(r.T, dir, fault.SlowBody, true)
	return form
}

// O11, RFC 8628: the whole device authorization: pending, slow down, confirmed once, tokens that refresh; refused, unknown,
// another client's, expired codes.
func TestDevice(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, Options{})
	a, client := r.register(`{"token_endpoint_auth_method":"none","grant_types":["urn:ietf:params:oauth:grant-type:device_code","refresh_token"]}`)
	if client == "" {
		t.Fatalf("registering: got %d %s, want a client", a.status, a.body)
	}
	type authorization struct {
		Code     string `json:"device_code"`
		User     string `json:"user_code"`
		Page     string `json:"verification_uri"`
		Complete string `json:"verification_uri_complete"`
		Expires  int    `json:"expires_in"`
	}
	begin := func() (d authorization) {
		t.Helper()
		a := r.post("/device", url.Values{"client_id": {client}, "scope": {"vault:read"}})
		if err := json.Unmarshal(a.body, &d); err != nil || a.status != http.StatusOK || d.Code == "" || len(d.User) != 9 || d.Expires <= 0 {
			t.Fatalf("device authorization: got %d %s, want codes", a.status, a.body)
		}
		return d
	}
	poll := func(id, code string) tokens {
		t.Helper()
		return r.token(url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {code}, "client_id": {id}})
	}
	for name, form := range map[string]url.Values{
		"unknown client": {"client_id": {"nobody"}, "scope": {"vault:read"}},
		"other scope":    {"client_id": {client}, "scope": {"admin"}},
		"no scope":       {"client_id": {client}},
	} {
		if a := r.post("/device", form); a.status == http.StatusOK {
			t.Errorf("%s: got status 200 and %s, want a refusal", name, a.body)
		}
	}
	d := begin()
	if got := poll(client, d.Code); got.Error != "authorization_pending" {
		t.Errorf("the first poll: got %+v, want authorization_pending", got)
	}
	if got := poll(client, d.Code); got.Error != "slow_down" {
		t.Errorf("an immediate second poll: got %+v, want slow_down", got)
	}
	if got := poll("companion-development", d.Code); got.Error != "invalid_grant" {
		t.Errorf("another client: got %+v, want invalid_grant", got)
	}
	if got := poll(client, "guessed"); got.Error != "invalid_grant" {
		t.Errorf("a guessed code: got %+v, want invalid_grant", got)
	}
	if a := r.get(d.Page); a.status != http.StatusOK || !strings.Contains(string(a.body), `name="user_code"`) {
		t.Errorf("the page: got %d %s, want a form for the code", a.status, a.body)
	}
	if a := r.do(http.NewRequest(http.MethodPost, d.Page, strings.NewReader("user_code="+d.User))); a.status == http.StatusOK {
		t.Error("a form without the page's seal: got status 200, want a refusal")
	}
	r.stop()

	r = start(t, dir, with())
	d = begin()
	if a := r.get(d.Page + "?user_code=WRONG-CODE"); a.status != http.StatusNotFound {
		t.Errorf("an unknown user code: got status %d, want 404", a.status)
	}
	if a := r.get(strings.ToLower(d.Complete[:len(d.Complete)-9]) + strings.ToLower(d.User)); a.status != http.StatusOK {
		t.Errorf("the code in lower case: got %d %s, want 200", a.status, a.body)
	}
	got := poll(client, d.Code)
	if got.Access == "" || got.Refresh == "" || got.Scope != "vault:read" {
		t.Fatalf("after the confirmation: got %+v, want tokens for vault:read", got)
	}
	if status, who := r.whoAmI(got.Access); status != http.StatusOK || who["id"] != "ada" {
		t.Errorf("session: got %d %v, want ada", status, who)
	}
	if next := r.token(refresh(client, got.Refresh)); next.Access == "" {
		t.Errorf("refresh: got %+v, want an access token", next)
	}
	if again := poll(client, d.Code); again.Error != "invalid_grant" {
		t.Errorf("a spent code: got %+v, want invalid_grant", again)
	}
	d = begin()
	turn(t, dir, fault.Denied, true)
	r.get(d.Complete)
	turn(t, dir, fault.Denied, false)
	if got := poll(client, d.Code); got.Error != "access_denied" {
		t.Errorf("a refused code: got %+v, want access_denied", got)
	}
}

func turn(t *testing.T, dir string, n fault.Name, on bool) {
	t.Helper()
	if err := fault.Switch(dir+"/faults", n, on); err != nil {
		t.Fatal(err)
	}
}
