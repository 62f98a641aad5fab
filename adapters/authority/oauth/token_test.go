package oauth

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"companion/messages"
)

// O7: the token response is checked before use.
func TestParseTokens(t *testing.T) {
	long := strings.Repeat("a", 8192)
	rows := map[string]struct {
		body string
		ok   bool
	}{
		"least":                    {`{"token_type":"Bearer","access_token":"a","expires_in":900}`, true},
		"everything":               {`{"token_type":"bEaReR","access_token":"a","expires_in":1,"refresh_token":"r","scope":"vault:read","x":[1]}`, true},
		"longest":                  {`{"token_type":"bearer","access_token":"` + long + `","expires_in":1,"refresh_token":"` + long + `"}`, true},
		"access too long":          {`{"token_type":"bearer","access_token":"a` + long + `","expires_in":1}`, false},
		"refresh too long":         {`{"token_type":"bearer","access_token":"a","expires_in":1,"refresh_token":"a` + long + `"}`, false},
		"empty refresh":            {`{"token_type":"bearer","access_token":"a","expires_in":1,"refresh_token":""}`, false},
		"empty access":             {`{"token_type":"bearer","access_token":"","expires_in":1}`, false},
		"no access":                {`{"token_type":"bearer","expires_in":1}`, false},
		"access with a line break": {`{"token_type":"bearer","access_token":"a\r\nX: y","expires_in":1}`, false},
		"access with a space":      {`{"token_type":"bearer","access_token":"a b","expires_in":1}`, false},
		"mac token":                {`{"token_type":"mac","access_token":"a","expires_in":1}`, false},
		"no type":                  {`{"access_token":"a","expires_in":1}`, false},
		"no expiry":                {`{"token_type":"bearer","access_token":"a"}`, false},
		"zero expiry":              {`{"token_type":"bearer","access_token":"a","expires_in":0}`, false},
		"negative expiry":          {`{"token_type":"bearer","access_token":"a","expires_in":-1}`, false},
		"fraction":                 {`{"token_type":"bearer","access_token":"a","expires_in":1.5}`, false},
		"exponent":                 {`{"token_type":"bearer","access_token":"a","expires_in":1e3}`, false},
		"expiry as text":           {`{"token_type":"bearer","access_token":"a","expires_in":"900"}`, false},
		"expiry null":              {`{"token_type":"bearer","access_token":"a","expires_in":null}`, false},
		"huge expiry":              {`{"token_type":"bearer","access_token":"a","expires_in":99999999999999999999}`, false},
		"error beside a token":     {`{"token_type":"bearer","access_token":"a","expires_in":1,"error":"x"}`, false},
		"null error":               {`{"token_type":"bearer","access_token":"a","expires_in":1,"error":null}`, false},
		"key in capitals":          {`{"token_type":"bearer","ACCESS_TOKEN":"a","expires_in":1}`, false},
		"repeated key":             {`{"token_type":"bearer","access_token":"a","access_token":"b","expires_in":1}`, false},
		"form":                     {`access_token=a&token_type=bearer&expires_in=1`, false},
		"html":                     {`<html>access_token</html>`, false},
		"scope that says nothing":  {`{"token_type":"bearer","access_token":"a","expires_in":1,"scope":""}`, true},
		"nothing":                  {``, false},
		"array":                    {`[]`, false},
		"two values":               {`{"token_type":"bearer","access_token":"a","expires_in":1}{}`, false},
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			got, ok := parseTokens([]byte(r.body), now)
			if ok != r.ok {
				t.Fatalf("got ok %v, want %v", ok, r.ok)
			}
			if ok == got.Access.IsZero() {
				t.Fatalf("got ok %v with empty token %v, want a token only with ok", ok, got.Access.IsZero())
			}
			if ok && !got.Expires.After(now) {
				t.Fatalf("got expiry %v, want one after %v", got.Expires, now)
			}
		})
	}
}

// O7: for any body, accepted tokens are within the bounds of a token response.
func FuzzTokenResponse(f *testing.F) {
	f.Add([]byte(`{"token_type":"bearer","access_token":"a","expires_in":1,"refresh_token":"r"}`))
	f.Add([]byte(`{"error":"invalid_grant"}`))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, body []byte) {
		got, ok := parseTokens(body, now)
		if !ok {
			return
		}
		a, r := got.Access.Reveal(), got.Refresh.Reveal()
		if len(a) < 1 || len(a) > 8192 || len(r) > 8192 || !got.Expires.After(now) || strings.ContainsAny(a+r, "\r\n\x00") {
			t.Fatalf("%q: got ok, want a refusal", body)
		}
	})
}

// O8: a session is valid until the skew before expiry, then needs a refresh, or without a refresh token a sign-in. A malformed
// session needs a sign-in.
func TestDecide(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	good := func() messages.Session {
		return messages.Session{
			AccessToken: messages.NewSecret("a"), RefreshToken: messages.NewSecret("r"),
			Meta: messages.SessionMeta{Issuer: testIssuer, ClientID: "c", AccessExpires: now.Add(time.Hour)},
		}
	}
	rows := map[string]struct {
		change func(*messages.Session)
		want   messages.Reason
	}{
		"fresh":                   {func(*messages.Session) {}, messages.ReasonSessionValid},
		"a moment over the skew":  {func(s *messages.Session) { s.Meta.AccessExpires = now.Add(Skew + 1) }, messages.ReasonSessionValid},
		"at the skew":             {func(s *messages.Session) { s.Meta.AccessExpires = now.Add(Skew) }, messages.ReasonSessionRefresh},
		"expired":                 {func(s *messages.Session) { s.Meta.AccessExpires = now.Add(-time.Hour) }, messages.ReasonSessionRefresh},
		"expired, no refresh":     {func(s *messages.Session) { s.Meta.AccessExpires = now; s.RefreshToken = messages.Secret{} }, messages.ReasonSignInNeeded},
		"fresh, no refresh":       {func(s *messages.Session) { s.RefreshToken = messages.Secret{} }, messages.ReasonSessionValid},
		"nothing":                 {func(s *messages.Session) { *s = messages.Session{} }, messages.ReasonSignInNeeded},
		"no access token":         {func(s *messages.Session) { s.AccessToken = messages.Secret{} }, messages.ReasonSignInNeeded},
		"access too long":         {func(s *messages.Session) { s.AccessToken = messages.NewSecret(strings.Repeat("a", 8193)) }, messages.ReasonSignInNeeded},
		"access with line break":  {func(s *messages.Session) { s.AccessToken = messages.NewSecret("a\n") }, messages.ReasonSignInNeeded},
		"refresh with line break": {func(s *messages.Session) { s.RefreshToken = messages.NewSecret("a\n") }, messages.ReasonSignInNeeded},
		"clock set back":          {func(s *messages.Session) { s.Meta.AccessIssued = now.Add(365 * 24 * time.Hour) }, messages.ReasonSessionRefresh},
		"clock a minute behind":   {func(s *messages.Session) { s.Meta.AccessIssued = now.Add(time.Minute) }, messages.ReasonSessionValid},
		"no expiry":               {func(s *messages.Session) { s.Meta.AccessExpires = time.Time{} }, messages.ReasonSignInNeeded},
		"another issuer":          {func(s *messages.Session) { s.Meta.Issuer += "/" }, messages.ReasonSignInNeeded},
		"no client":               {func(s *messages.Session) { s.Meta.ClientID = "" }, messages.ReasonSignInNeeded},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			s := good()
			r.change(&s)
			if got := decide(s, testIssuer, "", now); got != r.want {
				t.Fatalf("got %s, want %s", got, r.want)
			}
		})
	}
	if got := decide(good(), testIssuer, "configured", now); got != messages.ReasonSignInNeeded {
		t.Fatalf("session of another client: got %s, want %s", got, messages.ReasonSignInNeeded)
	}
}

// O8 as a property: never valid within the skew, never refresh without a refresh token.
func TestDecideProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "now"), 0)
		s := messages.Session{
			AccessToken: messages.NewSecret(rapid.SampledFrom([]string{"", "a", "a b", "ok-token"}).Draw(t, "access")),
			Meta: messages.SessionMeta{
				Issuer:        rapid.SampledFrom([]string{"", testIssuer, "https://evil.example"}).Draw(t, "issuer"),
				ClientID:      rapid.SampledFrom([]string{"", "c"}).Draw(t, "client"),
				AccessExpires: now.Add(time.Duration(rapid.Int64Range(-3600, 3600).Draw(t, "left")) * time.Second),
			},
		}
		if rapid.Bool().Draw(t, "refresh") {
			s.RefreshToken = messages.NewSecret("r")
		}
		switch decide(s, testIssuer, "", now) {
		case messages.ReasonSessionValid:
			if s.Meta.AccessExpires.Sub(now) <= Skew || s.Meta.Issuer != testIssuer {
				t.Fatalf("expiry %v, issuer %s: got valid, want refresh or sign-in", s.Meta.AccessExpires, s.Meta.Issuer)
			}
		case messages.ReasonSessionRefresh:
			if s.RefreshToken.IsZero() || s.Meta.Issuer != testIssuer {
				t.Fatalf("no refresh token, or issuer %s: got refresh, want sign-in", s.Meta.Issuer)
			}
		case messages.ReasonSignInNeeded:
		default:
			t.Fatal("got another result, want valid, refresh or sign-in")
		}
	})
}

// O6: a registered client that differs from the requested public one is refused.
func TestCheckRegistration(t *testing.T) {
	const uri = "http://127.0.0.1:1/callback/x"
	rows := map[string]struct {
		body string
		want messages.Reason
	}{
		"public":           {`{"client_id":"c","redirect_uris":["` + uri + `"],"token_endpoint_auth_method":"none"}`, messages.ReasonOK},
		"id alone":         {`{"client_id":"c"}`, messages.ReasonOK},
		"with a secret":    {`{"client_id":"c","client_secret":"s"}`, messages.ReasonRegistrationFailed},
		"confidential":     {`{"client_id":"c","token_endpoint_auth_method":"client_secret_post"}`, messages.ReasonRegistrationFailed},
		"no id":            {`{}`, messages.ReasonRegistrationFailed},
		"id too long":      {`{"client_id":"` + strings.Repeat("c", 513) + `"}`, messages.ReasonRegistrationFailed},
		"another redirect": {`{"client_id":"c","redirect_uris":["https://evil.example/"]}`, messages.ReasonInvalidRedirectURI},
		"no redirect":      {`{"client_id":"c","redirect_uris":[]}`, messages.ReasonInvalidRedirectURI},
		"html":             {`<html>`, messages.ReasonRegistrationFailed},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			id, reason := checkRegistration([]byte(r.body), uri)
			if reason != r.want || (id != "") != (reason == messages.ReasonOK) {
				t.Fatalf("got %q %s, want %s", id, reason, r.want)
			}
		})
	}
}

// Terminals show the fields of the session endpoint's response: they are bounded and have no control characters.
func TestParseUser(t *testing.T) {
	for body, want := range map[string]bool{
		`{"sub":"s","provider":"p","id":"i","name":"Änne Ünal","role":"member"}`: true,
		`{"sub":"s"}`:                     true,
		`{"sub":""}`:                      false,
		`{"sub":"s","name":"\u001b[31m"}`: false,
		`{"sub":"s","name":"a\nb"}`:       false,
		`{"sub":"s","sub":"t"}`:           false,
		`{"sub":1}`:                       false,
		`[]`:                              false,
		`{"sub":"` + strings.Repeat("s", 257) + `"}`: false,
	} {
		if _, ok := parseUser([]byte(body)); ok != want {
			t.Errorf("%.60s: got %v, want %v", body, ok, want)
		}
	}
}
