package signin

import (
	"encoding/pem"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"companion/adapters/authority/keychain"
	"companion/e2e/harness"
	"companion/messages"
)

// O1, O4, X5: the two keys of the hub relax exactly one check each: for a hub that neither announces nor
// sends iss, and for one that names an endpoint of another origin.
func TestSignInKeys(t *testing.T) {
	hub := harness.NewHub(t)
	hub.Fault("no-iss", true)
	for _, step := range []struct{ fault, variable, refused string }{
		{"", "COMPANION_HUB_FIRST_PARTY=false", "issuer_missing"}, // the metadata announces it
		{"unannounced-iss", "", "issuer_missing"},
		{"", "COMPANION_HUB_FIRST_PARTY=false", ""},
		{"foreign-endpoint", "COMPANION_HUB_FIRST_PARTY=false", "metadata_invalid"},
		{"", "COMPANION_HUB_FIRST_PARTY=false COMPANION_HUB_FOREIGN_ENDPOINTS=true", ""},
	} {
		if step.fault != "" {
			hub.Fault(step.fault, true)
		}
		c := hub.Companion("")
		c.Extra = strings.Fields(step.variable)
		c.Start()
		r, _ := c.Login()
		if step.refused == "" && r.Code != 0 || step.refused != "" && (r.Code != 1 || !strings.Contains(r.Stdout, step.refused)) {
			t.Errorf("%+v: got exit %d, %s, want %q", step, r.Code, r.Stdout, step.refused)
		}
		c.Stop()
	}
}

// O8, T14: a refresh token is stolen and used. The hub notices when the daemon comes with the one that it holds, ends the
// whole family, and the daemon asks for a new sign-in, which works.
func TestStolenRefreshToken(t *testing.T) {
	hub := harness.NewHub(t)
	c := hub.Companion("")
	c.Edit("[hub]\nurl", "[hub]\nclient_id = \"companion-development\"\nurl")
	c.Start()
	c.SignIn()
	stolen, found := c.Secret(keychain.RefreshToken)
	if !found {
		t.Fatal("the keychain holds no refresh token")
	}
	thief, err := hub.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer thief.CloseIdleConnections()
	answer, err := thief.PostForm(hub.URL+"/api/v1/auth/native/token", url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {stolen}, "client_id": {"companion-development"},
	})
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("the thief got status %d, want 200: this test proves nothing", answer.StatusCode)
	}
	// The access token is refused from now on, which makes the daemon refresh.
	hub.Fault("early-revocation", true)
	c.Run("whoami")
	c.Run("whoami")
	hub.Fault("early-revocation", false)
	c.Await("signed out", harness.AvailableWithin, func(s messages.Status) bool { return s.Session.State == messages.SessionSignedOut })
	if r := c.Run("whoami"); r.Code != 4 {
		t.Errorf("whoami after the theft: exit %d, want 4\n%s", r.Code, r.Stderr)
	}
	if !strings.Contains(hub.Output(), "refresh token reused") {
		t.Error("the hub noticed no reuse: this test proves nothing")
	}
	if _, found := c.Secret(keychain.RefreshToken); found {
		t.Error("the keychain holds a refresh token, want none")
	}
	c.SignIn()
}

// O11: device authorization with the built programs: the code that the terminal shows is confirmed at the hub.
func TestDeviceLogin(t *testing.T) {
	hub := harness.NewHub(t)
	c := hub.Companion("")
	c.Start()
	if r := c.DeviceLogin(); r.Code != 0 || !strings.Contains(r.Stdout, "Signed in as") {
		t.Errorf("login --device: got exit %d, want 0 and Signed in as\n%s", r.Code, r.Stdout)
	}
	if who := c.Must("whoami", "--json"); !strings.Contains(who, harness.User) {
		t.Errorf("whoami says %s, want %s", who, harness.User)
	}
	hub.Fault("no-device-authorization", true)
	if r := c.Run("login", "--device"); r.Code != 1 || !strings.Contains(r.Stderr, "device_unsupported") {
		t.Errorf("at a hub without device authorization: got exit %d, %s, want 1, device_unsupported", r.Code, r.Stderr)
	}
}

// O8, O9, K5: the daemon is killed at random moments of refreshes, sign-ins and sign-outs. Every next start finds a whole session
// or none, what was confirmed to the user holds, and the hub counts no reuse. E2E_KILLS sets how often.
func TestKilledDuringRefreshes(t *testing.T) {
	kills := 12
	if n, err := strconv.Atoi(os.Getenv("E2E_KILLS")); err == nil {
		kills = n
	}
	hub := harness.NewHub(t)
	c := hub.Companion("")
	hub.Fault("short-tokens", true) // every start and every whoami refreshes
	found := map[string]int{}
	for i := range kills {
		c.Start()
		s := c.Await("a session or none", harness.AvailableWithin, func(s messages.Status) bool { return s.Session.State != messages.SessionUnknown })
		if s.Session.State == messages.SessionSignedOut {
			found["none"]++
			c.SignIn()
		} else if r := c.Run("whoami"); r.Code == 0 {
			found["whole"]++
		} else if s, _ := c.Status(); s.Session.Trouble == messages.ReasonRefreshInterrupted {
			found["interrupted"]++
			c.SignIn()
		} else {
			t.Errorf("kill %d: got %+v and %s, want a session that works, or none", i, s.Session, r.Stderr)
		}
		ended := make(chan int, 1)
		switch i % 3 {
		case 0: // the refresh of a start
			c.Daemon.Kill()
			c.Launch()
			ended <- 1
		case 1: // the writes of a sign-in
			go func() { ended <- c.TryLogin().Code }()
		case 2: // those of a sign-out
			go func() { ended <- c.Run("logout").Code }()
		}
		time.Sleep(rand.N(400 * time.Millisecond))
		c.Daemon.Kill()
		if <-ended == 0 {
			c.Start()
			s := c.Await("what was confirmed", harness.AvailableWithin, func(s messages.Status) bool { return s.Session.State != messages.SessionUnknown })
			lost := i%3 == 1 && s.Session.State == messages.SessionSignedOut && s.Session.Trouble != messages.ReasonRefreshInterrupted
			if lost || i%3 == 2 && s.Session.State == messages.SessionSignedIn {
				t.Errorf("kill %d after a confirmed sign-in or sign-out: got %+v, want it kept", i, s.Session)
			}
			c.Daemon.Kill()
		}
	}
	if strings.Contains(hub.Output(), "refresh token reused") {
		t.Error("got a refresh token that was sent twice, want none")
	}
	refreshes := strings.Count(hub.Output(), `/token"`)
	if refreshes < kills/2 {
		t.Errorf("token requests: got %d for %d kills, want at least one for two: this test proves nothing", refreshes, kills)
	}
	t.Logf("%d kills: %d token requests, no reuse; the next start found %v", kills, refreshes, found)
}

// O2, O3: link scanners that open the start page and the redirect URI before the user does end no sign-in.
func TestLoginScanned(t *testing.T) {
	hub := harness.NewHub(t)
	hub.Fault("previews", true)
	c := hub.Companion("")
	c.Scanned = true
	c.Start()
	c.SignIn()
}

// O1, X5: hub.issuer names an authorization server whose issuer is not hub.url + /api/v1/auth/native, at another origin.
func TestIssuerKey(t *testing.T) {
	hub := harness.NewHub(t)
	client, err := hub.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	target, err := url.Parse(hub.URL)
	if err != nil {
		t.Fatal(err)
	}
	site := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/auth/native") {
			http.NotFound(w, r) // this site has no authorization server
			return
		}
		proxy := &httputil.ReverseProxy{Transport: client.Transport, Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target) }}
		proxy.ServeHTTP(w, r)
	}))
	defer site.Close()
	authority, err := os.ReadFile(hub.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	c := hub.Companion("")
	both := filepath.Join(c.Home, "both.pem")
	authority = append(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: site.Certificate().Raw})...)
	if err := os.WriteFile(both, authority, 0o600); err != nil {
		t.Fatal(err)
	}
	c.Edit(strconv.Quote(hub.CAFile), strconv.Quote(both))
	c.Edit("url = "+strconv.Quote(hub.URL), "url = "+strconv.Quote(site.URL))
	c.Start()
	if r := c.TryLogin(); r.Code == 0 {
		t.Error("login without hub.issuer: got exit 0, want a failure: this test proves nothing")
	}
	c.Stop()
	c.Edit("url = "+strconv.Quote(site.URL), "url = "+strconv.Quote(site.URL)+"\nissuer = "+strconv.Quote(hub.URL+"/api/v1/auth/native"))
	c.Start()
	c.SignIn()
	if who := c.Must("whoami", "--json"); !strings.Contains(who, harness.User) {
		t.Errorf("whoami says %s, want %s", who, harness.User)
	}
}

// O12: over SSH, in WSL and without a display the command says how the user's browser reaches the page, and opens a browser only
// where it can be the user's.
func TestLoginElsewhere(t *testing.T) {
	c := harness.NewHub(t).Companion("")
	tools := harness.TempDir(t)
	opened := filepath.Join(tools, "opened")
	for _, name := range []string{"xdg-open", "wslview"} {
		if err := os.WriteFile(filepath.Join(tools, name), []byte("#!/bin/sh\necho \"$1\" >"+opened+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	c.Start()
	path := "PATH=" + tools + ":" + os.Getenv("PATH")
	for _, row := range []struct {
		env, flags []string
		says       []string
		opens      bool
	}{
		{[]string{"SSH_CONNECTION=192.0.2.1 5 192.0.2.2 22", "USER=ada"}, nil, []string{"SSH session", "ssh -N -L 127.0.0.1:PORT:127.0.0.1:PORT ada@192.0.2.2", "--device"}, false},
		{[]string{"SSH_CONNECTION=192.0.2.1 5 192.0.2.2 22"}, []string{"--no-browser"}, []string{"ssh -N -L 127.0.0.1:PORT:127.0.0.1:PORT 192.0.2.2"}, false},
		{[]string{"WSL_DISTRO_NAME=Debian"}, nil, []string{"browser of Windows", "localhostForwarding", "--device"}, true},
		{nil, nil, []string{"no display", "ssh -N -L 127.0.0.1:PORT:127.0.0.1:PORT", "--device"}, false},
		{[]string{"DISPLAY=:7"}, nil, []string{"Open this page"}, true},
	} {
		_ = os.Remove(opened)
		c.Extra = append([]string{path}, row.env...)
		r, visit := c.LoginWith(row.flags...)
		page, err := url.Parse(visit.URLs[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range append(row.says, "Waiting for the browser until", "Signed in as") {
			if want = strings.ReplaceAll(want, "PORT", page.Port()); r.Code != 0 || !strings.Contains(r.Stdout, want) {
				t.Errorf("login %v with %v: got exit %d and %q, want 0 and %q", row.flags, row.env, r.Code, r.Stdout, want)
			}
		}
		seen, err := os.ReadFile(opened)
		if row.opens != (strings.TrimSpace(string(seen)) == visit.URLs[0]) {
			t.Errorf("login %v with %v: got %q opened (%v), want the page: %t", row.flags, row.env, seen, err, row.opens)
		}
	}
}
