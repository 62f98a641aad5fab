package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"companion/adapters/authority/keychain"
	"companion/adapters/completion"
	"companion/adapters/config"
	"companion/adapters/door/controlsock"
	"companion/adapters/door/loopback"
	"companion/messages"
)

// door is the endpoint of the running daemon, and its token.
type door struct {
	baseURL string
	token   messages.Secret
	status  messages.Status
}

// openDoor finds the endpoint and its token. The token comes from the keychain, never over the control socket (cli.md).
// An endpoint file or a token of an earlier start is never used: the daemon that answers must have written the file, and
// must vouch for its token.
func (a *app) openDoor(ctx context.Context) (door, error) {
	s, places, err := a.load()
	if err != nil {
		return door{}, err
	}
	status, err := controlsock.Dial(places.ControlSocket).Status(ctx)
	if err != nil {
		return door{}, err
	}
	if !status.Facts.Token && exitOf(status.Reason) == exitKeychain {
		return door{}, refused("the daemon's token", status.Reason)
	}
	endpoint, err := loopback.ReadEndpoint(places.Endpoint)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return door{}, err
	}
	current := err == nil && endpoint.PID == status.PID && endpoint.BaseURL == status.FrontDoor.BaseURL
	if !current || !status.Facts.Bound || !status.Facts.Token {
		return door{}, &failure{code: string(messages.ReasonNotReady), message: "the endpoint is not open", exit: exitUnavailable}
	}
	token, err := loopbackToken(ctx, s)
	if err != nil {
		return door{}, err
	}
	return door{baseURL: endpoint.BaseURL, token: token, status: status}, nil
}

func loopbackToken(ctx context.Context, s config.Settings) (messages.Secret, error) {
	chain, err := keychain.Open(keychain.Options{Backend: s.Keychain.Backend, Service: s.Keychain.Service})
	if err != nil {
		return messages.Secret{}, err
	}
	token, found, err := chain.Get(keychain.Ask(ctx), keychain.LoopbackToken)
	if err != nil {
		return messages.Secret{}, err
	}
	if !found {
		return messages.Secret{}, &failure{code: string(messages.ReasonKeychainUnavailable), exit: exitKeychain,
			message: "the keychain does not hold the daemon's token",
			hint:    "[keychain] backend and service must be the daemon's: `companion config show`"}
	}
	return token, nil
}

// client asks the local lane, through the endpoint as any program does (E5).
func (d door) client() (*completion.Client, error) {
	if !d.status.CompanionAvailable {
		return nil, &failure{code: string(d.status.Reason), exit: exitUnavailable,
			message: fmt.Sprintf("local inference is not available: %s", explain(d.status.Reason))}
	}
	return completion.New(completion.Target{BaseURL: d.baseURL, Key: d.token, Model: d.status.Model.Name, Local: true}), nil
}
