package control

import (
	"context"
	"net/netip"
	"time"

	"companion/actors/actorkit"
	"companion/messages"
)

// How long a command may take before its caller gets a timeout. The actors have shorter deadlines of their own; these
// only keep a stuck actor from blocking a caller.
const (
	answerWithin = 45 * time.Second // one round trip to the hub or the keychain, which may ask the user
	stopWithin   = 2 * time.Minute  // drain, SIGTERM, SIGKILL
	loginWithin  = 2 * time.Hour    // longer than any attempt; hub.sign_in_timeout is at most an hour
	pullWithin   = 24 * time.Hour   // the largest model over the slowest line
)

// runtime passes commands on to the lifecycle actor.
type runtime struct{ box chan<- messages.ToLifecycle }

func (r runtime) Start(ctx context.Context) (messages.Reason, error) {
	return ask(ctx, answerWithin, r.box, func(reply chan<- messages.Reason) messages.ToLifecycle {
		return messages.StartRequested{Reply: reply}
	})
}

func (r runtime) Stop(ctx context.Context) (messages.Reason, error) {
	return ask(ctx, stopWithin, r.box, func(reply chan<- messages.Reason) messages.ToLifecycle {
		return messages.StopRequested{Reply: reply}
	})
}

func (r runtime) Restart(ctx context.Context) (messages.Reason, error) {
	return ask(ctx, stopWithin, r.box, func(reply chan<- messages.Reason) messages.ToLifecycle {
		return messages.RestartRequested{Reply: reply}
	})
}

// catalogue passes commands on to the manifest actor.
type catalogue struct {
	box chan<- messages.ManifestCommand
}

func (c catalogue) Models(ctx context.Context) (messages.ModelList, error) {
	return ask(ctx, answerWithin, c.box, func(reply chan<- messages.ModelList) messages.ManifestCommand {
		return messages.ListModels{Reply: reply}
	})
}

func (c catalogue) Prune(ctx context.Context, dryRun bool) (messages.PruneResult, error) {
	return ask(ctx, answerWithin, c.box, func(reply chan<- messages.PruneResult) messages.ManifestCommand {
		return messages.PruneUnused{DryRun: dryRun, Reply: reply}
	})
}

func (c catalogue) Reload(ctx context.Context) (messages.Reason, error) {
	return ask(ctx, answerWithin, c.box, func(reply chan<- messages.Reason) messages.ManifestCommand {
		return messages.ReloadOwn{Reply: reply}
	})
}

func (c catalogue) Pull(ctx context.Context, name string) (messages.Reason, error) {
	return ask(ctx, pullWithin, c.box, func(reply chan<- messages.Reason) messages.ManifestCommand {
		return messages.Pull{Name: name, Reply: reply}
	})
}

func (c catalogue) Use(ctx context.Context, name string) (messages.Reason, error) {
	return ask(ctx, pullWithin, c.box, func(reply chan<- messages.Reason) messages.ManifestCommand {
		return messages.Use{Name: name, Reply: reply}
	})
}

// endpoint passes commands on to the front door.
type endpoint struct{ box chan<- messages.ToFrontDoor }

func (e endpoint) ReloadTokens(ctx context.Context) (messages.Reason, error) {
	return ask(ctx, answerWithin, e.box, func(reply chan<- messages.Reason) messages.ToFrontDoor {
		return messages.ReloadApplicationTokens{Reply: reply}
	})
}

// Confirms asks the front door whether it has accepted a connection.
func (e endpoint) Confirms(ctx context.Context, client, server netip.AddrPort) (bool, error) {
	return ask(ctx, answerWithin, e.box, func(reply chan<- bool) messages.ToFrontDoor {
		return messages.ConfirmConnection{Client: client, Server: server, Reply: reply}
	})
}

// signIn passes commands on to the session actor.
type signIn struct {
	box chan<- messages.SessionCommand
}

func (s signIn) Logout(ctx context.Context) (messages.LogoutResult, error) {
	return ask(ctx, answerWithin, s.box, func(reply chan<- messages.LogoutResult) messages.SessionCommand {
		return messages.Logout{Reply: reply}
	})
}

func (s signIn) WhoAmI(ctx context.Context) (messages.WhoAmIResult, error) {
	return ask(ctx, answerWithin, s.box, func(reply chan<- messages.WhoAmIResult) messages.SessionCommand {
		return messages.WhoAmI{Reply: reply}
	})
}

// Login calls onPage as soon as the page is known; the end of ctx cancels the attempt.
func (s signIn) Login(ctx context.Context, device bool, onPage func(messages.LoginPage)) (messages.LoginResult, error) {
	ctx, cancel := context.WithTimeout(ctx, loginWithin)
	defer cancel()
	pages, done := make(chan messages.LoginPage, 1), make(chan messages.LoginResult, 1)
	err := actorkit.Tell[messages.SessionCommand](ctx, s.box, messages.Login{
		Device: device, Page: pages, Done: done, Cancelled: ctx.Done(),
	})
	if err != nil {
		return messages.LoginResult{}, err
	}
	for {
		select {
		case page := <-pages:
			onPage(page)
		case result := <-done:
			return result, nil
		case <-ctx.Done():
			return messages.LoginResult{}, context.Cause(ctx)
		}
	}
}

func ask[M, R any](ctx context.Context, within time.Duration, box chan<- M, build func(chan<- R) M) (R, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return actorkit.Ask(ctx, box, build)
}
