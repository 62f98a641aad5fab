package server

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
)

var styleElement = regexp.MustCompile(`(?s)<style>(.*)</style>`)

var sealField = regexp.MustCompile(`name="seal" value="([^"]+)"`)

// The sign-in page accepts a name and a password. Its form works only in the browser and for the request that it was made
// for.
func TestSignInPage(t *testing.T) {
	r := start(t, t.TempDir(), Options{})
	var users []struct{ ID, Password string }
	data, err := os.ReadFile(r.place.Path("users.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &users); err != nil {
		t.Fatal(err)
	}
	client := r.goodClient()
	target := r.place.Issuer() + "/authorize?" + authorization(client).Encode()
	page := r.get(target)
	csp := page.header.Get("Content-Security-Policy")
	if page.status != http.StatusOK || !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") {
		t.Fatalf("got status %d with policy %q, want 200 and a strict policy", page.status, csp)
	}
	style := styleElement.FindSubmatch(page.body)[1]
	if digest := sha256.Sum256(style); !strings.Contains(csp, "'sha256-"+base64.StdEncoding.EncodeToString(digest[:])+"'") {
		t.Errorf("got the policy %q, want one that allows the page's own style", csp)
	}
	seal := html.UnescapeString(string(sealField.FindSubmatch(page.body)[1]))
	cookie := strings.SplitN(page.header.Get("Set-Cookie"), ";", 2)[0]
	good := url.Values{"user": {"ada"}, "password": {users[0].Password}, "seal": {seal}}

	post := func(target, cookie string, header http.Header, form url.Values) answer {
		req, err := http.NewRequest(http.MethodPost, target, strings.NewReader(form.Encode()))
		req.Header = header.Clone()
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Cookie", cookie)
		return r.do(req, err)
	}
	change := func(key, value string) url.Values {
		f := url.Values{}
		for k, v := range good {
			f[k] = v
		}
		f.Set(key, value)
		return f
	}
	other := authorization(client)
	other.Set("state", "another-state")
	otherTarget := r.place.Issuer() + "/authorize?" + other.Encode()
	crossSite := http.Header{"Sec-Fetch-Site": {"cross-site"}}
	for name, a := range map[string]answer{
		"wrong password":  post(target, cookie, http.Header{}, change("password", "x")),
		"unknown user":    post(target, cookie, http.Header{}, change("user", "nobody")),
		"empty password":  post(target, cookie, http.Header{}, url.Values{"user": {"nobody"}, "password": {""}, "seal": {seal}}),
		"wrong seal":      post(target, cookie, http.Header{}, change("seal", "x")),
		"another browser": post(target, "__Host-devhub-form=other", http.Header{}, good),
		"no cookie":       post(target, "", http.Header{}, good),
		"another request": post(otherTarget, cookie, http.Header{}, good),
		"another site":    post(target, cookie, crossSite, good),
	} {
		if a.header.Get("Location") != "" || a.status < 400 {
			t.Errorf("%s: got status %d to %q, want an error page", name, a.status, a.header.Get("Location"))
		}
	}
	a := post(target, cookie, http.Header{"Sec-Fetch-Site": {"same-origin"}}, good)
	location, _ := url.Parse(a.header.Get("Location"))
	if got := r.token(exchange(client, location.Query().Get("code"))); got.Access == "" {
		t.Errorf("got status %d to %s and %+v, want a code that gives tokens", a.status, location, got)
	}
}
