package session

import (
	"context"

	"companion/actors/actorkit"
	"companion/messages"
)

// WithoutHub is the session actor where no hub is configured (M16): there is nothing to sign in to, and no stored token is
// read. Its Deps need no Hub, Notes and KeychainChanged.
type WithoutHub struct{ deps Deps }

// NewWithoutHub returns the actor; Serve runs it.
func NewWithoutHub(deps Deps) *WithoutHub { return &WithoutHub{deps} }

func (a *WithoutHub) String() string { return string(messages.ActorSession) }

// Serve answers every request with no_hub until ctx ends, except Logout: that still removes the session of an earlier
// configuration.
func (a *WithoutHub) Serve(ctx context.Context) error {
	background := actorkit.NewGroup()
	defer background.Wait()
	a.deps.View.Set(messages.SessionView{State: messages.SessionNoHub, Reason: messages.ReasonNoHub})
	if err := actorkit.Tell[messages.ToLifecycle](ctx, a.deps.Lifecycle, messages.ActorStarted{Actor: messages.ActorSession}); err != nil {
		return ctx.Err()
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-a.deps.Tokens:
			r.Reply <- messages.AccessToken{Reason: messages.ReasonNoHub}
		case p := <-background.Panicked():
			panic(p)
		case m := <-a.deps.Inbox:
			switch m := m.(type) {
			case messages.Login:
				m.Done <- messages.LoginResult{Reason: messages.ReasonNoHub}
			case messages.WhoAmI:
				m.Reply <- messages.WhoAmIResult{Reason: messages.ReasonNoHub}
			case messages.Logout:
				background.Go(func() { m.Reply <- a.clear(ctx) })
			}
		}
	}
}

// clear removes a stored session. There is no hub to revoke it at; the result says so.
func (a *WithoutHub) clear(ctx context.Context) messages.LogoutResult {
	hub := messages.ReasonOK
	loaded, err := actorkit.Ask(ctx, a.deps.Custody, func(reply chan<- messages.LoadedSession) messages.ToCustody {
		return messages.LoadSession{Ask: true, Reply: reply}
	})
	if err == nil && !loaded.Session.RefreshToken.IsZero() {
		hub = messages.ReasonNoHub
	}
	reason, err := actorkit.Ask(ctx, a.deps.Custody, func(reply chan<- messages.Reason) messages.ToCustody {
		return messages.ClearSession{Reply: reply}
	})
	if err != nil {
		return messages.LogoutResult{Reason: messages.ReasonInternalError, Hub: messages.ReasonInternalError}
	}
	return messages.LogoutResult{Reason: reason, Hub: hub}
}
