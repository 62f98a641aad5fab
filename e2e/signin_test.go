package e2e

import (
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
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
		t.Error("the keychain still holds a refresh token")
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

// O8, K5: the daemon is killed again and again while it refreshes and stores. Every next start finds a whole session or none,
// and the hub counts no reuse. E2E_KILLS sets how often.
func TestKilledDuringRefreshes(t *testing.T) {
	kills := 12
	if n, err := strconv.Atoi(os.Getenv("E2E_KILLS")); err == nil {
		kills = n
	}
	hub := harness.NewHub(t)
	c := hub.Companion("")
	hub.Fault("short-tokens", true) // every start refreshes at once
	signIns, interrupted := 0, 0
	for range kills {
		c.Start()
		s := c.Await("a session or none", harness.AvailableWithin, func(s messages.Status) bool { return s.Session.State != messages.SessionUnknown })
		if s.Session.Trouble == messages.ReasonRefreshInterrupted {
			interrupted++
		}
		if s.Session.State == messages.SessionSignedOut {
			c.SignIn()
			signIns++
		}
		c.Daemon.Kill()
		c.Launch()
		time.Sleep(rand.N(400 * time.Millisecond))
		c.Daemon.Kill()
	}
	if strings.Contains(hub.Output(), "refresh token reused") {
		t.Error("a refresh token was sent twice")
	}
	refreshes := strings.Count(hub.Output(), `/token"`)
	if refreshes < kills/2 {
		t.Errorf("got %d token requests in %d starts, want at least one in four: this test proves nothing", refreshes, 2*kills)
	}
	t.Logf("%d kills: %d token requests, %d sign-ins, %d interrupted refreshes, no reuse", 2*kills, refreshes, signIns, interrupted)
}
