package signin

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"companion/adapters/authority/keychain"
	"companion/cmd/devhub/fault"
	"companion/e2e/harness"
	"companion/messages"
)

// loginFaults are the faults of a sign-in, with the reason that the command line says; empty: the sign-in works.
var loginFaults = map[fault.Name]messages.Reason{
	fault.WrongISS:     messages.ReasonIssuerMismatch,
	fault.NoISS:        messages.ReasonIssuerMissing,
	fault.QuietISS:     "",
	fault.WrongState:   messages.ReasonStateMismatch,
	fault.ReusedCode:   messages.ReasonTokenExchangeFailed,
	fault.Denied:       messages.ReasonAuthorizationServerError,
	fault.TokenError:   messages.ReasonTokenExchangeFailed,
	fault.WrongIssuer:  messages.ReasonIssuerMismatch,
	fault.Foreign:      messages.ReasonMetadataInvalid,
	fault.PlainOnly:    messages.ReasonUnsupportedPKCEMethod,
	fault.NoRegister:   messages.ReasonRegistrationFailed,
	fault.SlowToken:    "",
	fault.LostResponse: messages.ReasonTokenExchangeFailed,
	fault.TokenElse:    messages.ReasonMetadataInvalid,
	fault.TokenMoves:   messages.ReasonTokenExchangeFailed,
	fault.HugeTokens:   messages.ReasonInvalidTokenResponse,
	fault.BadExpiry:    messages.ReasonInvalidTokenResponse,
	fault.HugeAnswer:   messages.ReasonTokenExchangeFailed,
	fault.SlowBody:     messages.ReasonTokenExchangeFailed,
	fault.CutBody:      messages.ReasonTokenExchangeFailed,
	fault.WrongType:    messages.ReasonInvalidTokenResponse,
	fault.NoRotation:   "",
	fault.NoScope:      "",
	fault.ShortTokens:  "",
	fault.Storm:        "*", // which of its requests fail is chance
	fault.Restarts:     "*",
	fault.EarlyRevoked: "",
	fault.Previews:     "",
	fault.NoDevice:     "",
	fault.ServerError:  messages.ReasonHubUnreachable,
}

// O1, O3, O4, O6, O7, O8: each fault of a sign-in that the hub injects, from the command line. A sign-in that fails
// says why and takes no more memory than one that works, and the session that the user has stays as it is. Without
// the fault the next sign-in works.
func TestLoginFaults(t *testing.T) {
	t.Parallel() // most of it is waiting
	for _, f := range fault.All[:slices.IndexFunc(fault.All, func(f fault.Fault) bool { return f.Name == fault.ExpiredManifest })] {
		if _, there := loginFaults[f.Name]; !there {
			t.Errorf("the fault %s: got no row, want one", f.Name)
		}
	}
	hub := harness.NewHub(t)
	c := hub.Companion("")
	c.Edit("[hub]\n", "[hub]\nsign_in_timeout = \"10s\"\n")
	c.Start()
	c.SignIn()
	for name, want := range loginFaults {
		before, _ := c.Secret(keychain.RefreshToken)
		hub.Fault(string(name), true)
		r := c.TryLogin()
		hub.Fault(string(name), false)
		after, found := c.Secret(keychain.RefreshToken)
		switch {
		case r.Code == 0 && (want == "" || want == "*"):
			if before == after {
				t.Errorf("%s: got the session of before, want a new one", name)
			}
		case r.Code != 0 && want == "*", r.Code == 1 && want != "" && strings.Contains(r.Stdout, string(want)):
			if !found || before != after {
				t.Errorf("%s: got a changed session after a failed sign-in, want the one of before", name)
			}
		default:
			t.Errorf("%s: got exit %d, want reason %q:\n%s", name, r.Code, want, r.Stdout)
		}
		if r.Code == 0 { // a session of a fault may have no refresh token, or be refreshed at any time
			c.SignIn()
		}
	}
	c.SignIn()
	if who := c.Must("whoami"); !strings.Contains(strings.ToLower(who), harness.User) {
		t.Errorf("whoami after all faults: got %q, want %s", who, harness.User)
	}
	if most := harness.Memory(t, c.Daemon.PID, "VmHWM"); most > 100+100*raceFactor() {
		t.Errorf("the daemon's largest memory: got %.0f MiB, want an answer of 100 MiB not read into it", most)
	}
	if strings.Contains(hub.Output(), "refresh token reused") {
		t.Error("got a refresh token that was sent twice, want none")
	}
}

func raceFactor() float64 {
	if harness.RaceBuilt {
		return 1
	}
	return 0
}

// signInExpired signs the user in with an access token that has expired, after the refresh that the daemon begins then.
func signInExpired(t testing.TB, c *harness.Companion, hub *harness.Hub) {
	t.Helper()
	hub.Fault(string(fault.ShortTokens), true)
	before := tokenRequests(hub)
	c.SignIn()
	c.Await("the refresh after the sign-in", time.Minute, func(messages.Status) bool { return tokenRequests(hub) >= before+2 })
	hub.Fault(string(fault.ShortTokens), false)
}

func tokenRequests(hub *harness.Hub) int { return strings.Count(hub.Output(), `/token"`) }

// O8: a hub that restarts costs no session: what could not be connected to is tried again. One that cuts connections, as a
// proxy does in front of a hub that restarts, either costs none or says that the user must sign in again.
func TestHubRestarts(t *testing.T) {
	t.Parallel() // most of it is waiting
	hub := harness.NewHub(t)
	c := hub.Companion("")
	c.Start()
	hub.Fault(string(fault.ShortTokens), true)
	c.SignIn()
	hub.Stop()
	before, _ := c.Secret(keychain.RefreshToken)
	c.Await("the hub missed", time.Minute, func(s messages.Status) bool {
		c.Run("whoami") // refreshes at once
		return s.Session.Trouble != "" && s.Session.State == messages.SessionSignedIn
	})
	hub.Restart()
	hub.Fault(string(fault.ShortTokens), false)
	c.Await("a refreshed session", 2*time.Minute, func(s messages.Status) bool {
		c.Run("whoami")
		now, found := c.Secret(keychain.RefreshToken)
		return found && now != before && s.Session.State == messages.SessionSignedIn && s.Session.Trouble == ""
	})
	hub.Stop()
	if r := c.Run("whoami"); r.Code == 0 {
		t.Error("whoami without a hub: got exit 0, want a failure")
	}
	hub.Restart()
	if r := c.Run("whoami"); r.Code != 0 {
		t.Errorf("whoami after the restart: got exit %d, want 0:\n%s", r.Code, r.Stderr)
	}
	hub.Fault(string(fault.Restarts), true)
	harness.RefuseAccessToken(c, hub)
	hub.Fault(string(fault.Restarts), false)
	s := c.Await("a session or the word that there is none", 2*time.Minute, func(s messages.Status) bool {
		return s.Session.State == messages.SessionSignedOut || s.Session.Trouble == ""
	})
	if s.Session.State == messages.SessionSignedOut && s.Session.Trouble != messages.ReasonRefreshInterrupted {
		t.Errorf("after cut connections: got %+v, want signed in, or refresh_interrupted", s.Session)
	}
	if strings.Contains(hub.Output(), "refresh token reused") {
		t.Error("got a refresh token that was sent twice, want none")
	}
}

// O8: a hub that spends the refresh token and issues no new one ends the session at the next refresh, and the daemon says so.
func TestHubWithoutRotation(t *testing.T) {
	t.Parallel() // most of it is waiting
	hub := harness.NewHub(t)
	c := hub.Companion("")
	c.Start()
	c.SignIn()
	access, _ := c.Secret(keychain.AccessToken)
	hub.Fault(string(fault.NoRotation), true)
	harness.RefuseAccessToken(c, hub)
	c.Await("a new access token", time.Minute, func(messages.Status) bool {
		now, found := c.Secret(keychain.AccessToken)
		return found && now != access
	})
	if r := c.Run("whoami"); r.Code != 0 {
		t.Errorf("whoami: got exit %d, want 0:\n%s", r.Code, r.Stderr)
	}
	harness.RefuseAccessToken(c, hub)
	c.Await("signed out", time.Minute, func(s messages.Status) bool { return s.Session.State == messages.SessionSignedOut })
	if _, found := c.Secret(keychain.RefreshToken); found {
		t.Error("the keychain: got the spent refresh token, want none")
	}
	c.SignIn()
}

// O9, K8: the hub is down at the sign-out, and the daemon is killed. The next start revokes the session, before the user signs in
// again. Until then logout, status and doctor say so.
func TestLogoutWithoutHub(t *testing.T) {
	t.Parallel() // most of it is waiting
	hub := harness.NewHub(t)
	c := hub.Companion("")
	c.Edit("[hub]\nurl", "[hub]\nclient_id = \"companion-development\"\nurl")
	c.Start()
	c.SignIn()
	token, _ := c.Secret(keychain.RefreshToken)
	hub.Stop()
	if r := c.Run("logout"); r.Code != 0 || !strings.Contains(r.Stderr, "as soon as it can, also after a restart") {
		t.Errorf("logout without the hub: got exit %d, %s; want 0 and what happens next", r.Code, r.Stderr)
	}
	if kept, found := c.Secret(keychain.Revocations[0]); !found || kept != token {
		t.Errorf("the keychain: got a token to revoke %v, the session's %v; want true, true", found, kept == token)
	}
	c.Daemon.Kill()
	c.Start()
	s := c.Await("the pending revocation", harness.AvailableWithin, func(s messages.Status) bool { return s.Session.Unrevoked == 1 })
	if s.Session.State != messages.SessionSignedOut {
		t.Errorf("after the restart: got %s, want %s", s.Session.State, messages.SessionSignedOut)
	}
	for _, command := range []string{"status", "doctor"} {
		if r := c.Run(command); !strings.Contains(r.Stdout, "yet to be told of 1 ended session") {
			t.Errorf("%s: got %s, want the ended session", command, r.Stdout)
		}
	}
	if r := c.Run("whoami"); r.Code != 4 {
		t.Errorf("whoami: got exit %d, want 4", r.Code)
	}
	hub.Restart()
	c.Await("the revocation", time.Minute, func(s messages.Status) bool { return s.Session.Unrevoked == 0 })
	if _, found := c.Secret(keychain.Revocations[0]); found {
		t.Error("the keychain: got a token to revoke, want none")
	}
	client, err := hub.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	answer, err := client.PostForm(hub.URL+"/api/v1/auth/native/token", url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {"companion-development"},
	})
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusBadRequest {
		t.Errorf("a refresh with the revoked token: got status %d, want 400", answer.StatusCode)
	}
}
