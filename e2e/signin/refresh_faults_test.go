package signin

import (
	"strings"
	"testing"
	"time"

	"companion/adapters/authority/keychain"
	"companion/cmd/devhub/fault"
	"companion/e2e/harness"
	"companion/messages"
)

// refreshEnd is what a fault does to a session that is refreshed during it.
type refreshEnd int

const (
	refreshed   refreshEnd = iota // the session is refreshed during the fault
	later                         // it is refreshed after the fault
	interrupted                   // the hub may have spent the token: sign in again
	over                          // the hub has ended the session
)

var refreshFaults = map[fault.Name]refreshEnd{
	fault.TokenElse:    later,
	fault.TokenMoves:   later,
	fault.WrongIssuer:  later,
	fault.ServerError:  later,
	fault.Storm:        later, // metadata and token in a row never get through
	fault.NoScope:      refreshed,
	fault.SlowToken:    refreshed,
	fault.HugeTokens:   interrupted,
	fault.BadExpiry:    interrupted,
	fault.HugeAnswer:   interrupted,
	fault.SlowBody:     interrupted,
	fault.CutBody:      interrupted,
	fault.WrongType:    interrupted,
	fault.LostResponse: interrupted,
	fault.TokenError:   over,
}

// O8: each fault of the hub during a refresh. The session is refreshed at once or after the fault, or the daemon says that the
// user must sign in again, and why. No refresh token is sent twice.
func TestRefreshFaults(t *testing.T) {
	t.Parallel() // most of it is waiting
	hub := harness.NewHub(t)
	c := hub.Companion("")
	c.Start()
	for name, want := range refreshFaults {
		signInExpired(t, c, hub)
		before, _ := c.Secret(keychain.RefreshToken)
		hub.Fault(string(name), true)
		c.Run("whoami") // needs the refresh
		status := c.Await(string(name)+" to show", 2*time.Minute, func(s messages.Status) bool {
			now, _ := c.Secret(keychain.RefreshToken)
			signedOut := s.Session.State == messages.SessionSignedOut
			return now != before && !signedOut && want == refreshed || s.Session.Trouble != "" && (signedOut || want == later)
		})
		hub.Fault(string(name), false)
		trouble := status.Session.Trouble
		switch {
		case want == later && status.Session.State == messages.SessionSignedIn && trouble != "",
			want == refreshed && status.Session.State == messages.SessionSignedIn:
			c.Await("refreshed after "+string(name), 2*time.Minute, func(s messages.Status) bool {
				c.Run("whoami") // refreshes at once
				now, found := c.Secret(keychain.RefreshToken)
				return found && now != before && s.Session.Trouble == "" && s.Session.State == messages.SessionSignedIn
			})
			if r := c.Run("whoami"); r.Code != 0 {
				t.Errorf("%s: whoami afterwards got exit %d, want 0:\n%s", name, r.Code, r.Stderr)
			}
		case want == interrupted && status.Session.State == messages.SessionSignedOut && trouble == messages.ReasonRefreshInterrupted,
			want == over && status.Session.State == messages.SessionSignedOut && trouble == messages.ReasonTokenExchangeFailed:
			if r := c.Run("whoami"); r.Code != 4 {
				t.Errorf("%s: whoami got exit %d, want 4:\n%s", name, r.Code, r.Stderr)
			}
			if r := c.Run("status"); want == interrupted && !strings.Contains(r.Stdout, "refresh") {
				t.Errorf("%s: status got %q, want the interrupted refresh", name, r.Stdout)
			}
		default:
			t.Errorf("%s: got session %+v, want end %d", name, status.Session, want)
		}
	}
	c.SignIn()
	if strings.Contains(hub.Output(), "refresh token reused") {
		t.Error("got a refresh token that was sent twice, want none")
	}
}
