package session

import (
	"context"
	"testing"

	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/messages"
)

// M16: without a hub nothing asks for a sign-in: every request is answered with no_hub at once. A sign-out still clears a
// session that is stored.
func TestWithoutHub(t *testing.T) {
	inbox, tokens := make(chan messages.SessionCommand), make(chan messages.AccessTokenRequest)
	custody, lifecycle := make(chan messages.ToCustody, 1), make(chan messages.ToLifecycle, 1)
	view := actorkit.NewWatch(messages.SessionView{State: messages.SessionUnknown})
	actor := NewWithoutHub(Deps{Inbox: inbox, Tokens: tokens, Custody: custody, Lifecycle: lifecycle, View: view, Log: zap.NewNop()})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- actor.Serve(ctx) }()
	if m := <-lifecycle; m != (messages.ActorStarted{Actor: messages.ActorSession}) {
		t.Errorf("got %+v, want ActorStarted", m)
	}
	login := make(chan messages.LoginResult, 1)
	inbox <- messages.Login{Done: login}
	if r := <-login; r.Reason != messages.ReasonNoHub {
		t.Errorf("login: got %s, want no_hub", r.Reason)
	}
	who := make(chan messages.WhoAmIResult, 1)
	inbox <- messages.WhoAmI{Reply: who}
	if r := <-who; r.Reason != messages.ReasonNoHub {
		t.Errorf("whoami: got %s, want no_hub", r.Reason)
	}
	token := make(chan messages.AccessToken, 1)
	tokens <- messages.AccessTokenRequest{Reply: token}
	if r := <-token; r.Reason != messages.ReasonNoHub {
		t.Errorf("token: got %s, want no_hub", r.Reason)
	}
	out := make(chan messages.LogoutResult, 1)
	inbox <- messages.Logout{Reply: out}
	stored := messages.Session{RefreshToken: messages.NewSecret("refresh")}
	(<-custody).(messages.LoadSession).Reply <- messages.LoadedSession{Session: stored, Found: true, Reason: messages.ReasonOK}
	(<-custody).(messages.ClearSession).Reply <- messages.ReasonOK
	if r := <-out; r.Reason != messages.ReasonOK || r.Hub != messages.ReasonNoHub {
		t.Errorf("logout: got %+v, want ok, and no_hub for the hub", r)
	}
	inbox <- messages.Logout{Reply: out}
	(<-custody).(messages.LoadSession).Reply <- messages.LoadedSession{Reason: messages.ReasonOK}
	(<-custody).(messages.ClearSession).Reply <- messages.ReasonOK
	if r := <-out; r.Reason != messages.ReasonOK || r.Hub != messages.ReasonOK {
		t.Errorf("logout without a session: got %+v, want ok", r)
	}
	if v := view.Get(); v.State != messages.SessionNoHub {
		t.Errorf("got the state %s, want no_hub", v.State)
	}
	cancel()
	<-done
}
