package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"time"

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
	control *controlsock.Client
}

// openDoor finds the endpoint and its token. The token comes from the keychain, never over the control socket (cli.md).
// An endpoint file or a token of an earlier start is never used: the daemon that answers must have written the file, and
// must vouch for its token.
func (a *app) openDoor(ctx context.Context) (door, error) {
	s, places, err := a.load()
	if err != nil {
		return door{}, err
	}
	control := controlsock.Dial(places.ControlSocket)
	status, err := control.Status(ctx)
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
	if key := new(keychain.Error); errors.As(err, &key) && key.Reason == messages.ReasonKeychainUnavailable {
		return door{}, otherKeychain(key) // the daemon has stored its token, so that it uses another one
	}
	if err != nil {
		return door{}, err
	}
	return door{baseURL: endpoint.BaseURL, token: token, status: status, control: control}, nil
}

// otherKeychain is the failure of a command that cannot reach a keychain in which the running daemon has a token.
func otherKeychain(err error) error {
	return &failure{code: string(messages.ReasonKeychainUnavailable), exit: exitKeychain, err: err,
		message: "the daemon runs and has its token in a keychain, but this command reaches none (keychain_unavailable)",
		hint:    "give both the same keychain.backend: in the configuration, or in COMPANION_KEYCHAIN_BACKEND here, too"}
}

// unknownContext is assumed, in tokens, where no daemon says what the model has.
const unknownContext = 4096

// contextOf is the context of the served model, in tokens.
func contextOf(status messages.Status) int {
	if status.Model.Context > 0 {
		return status.Model.Context
	}
	return unknownContext
}

// localContext is the context of the local lane. The configuration tells it where no daemon serves a model.
func (a *app) localContext(ctx context.Context, s config.Settings) int {
	if client, err := a.control(); err == nil {
		if status, err := client.Status(ctx); err == nil && status.Model.Context > 0 {
			return status.Model.Context
		}
	}
	if s.Model.Context > 0 {
		return s.Model.Context
	}
	return unknownContext
}

// confirmWithin bounds the connection of confirm.
const confirmWithin = 5 * time.Second

// confirm proves that the daemon is the program that listens at the base URL: it opens a connection there, sends nothing,
// and asks the daemon over the control socket, whose peer is checked (X2), whether it has accepted this connection. Both
// ends are named: another program can use the same source address for a connection to the daemon, but not one to this port.
func (d door) confirm(ctx context.Context) error {
	u, err := url.Parse(d.baseURL)
	if err != nil {
		return fmt.Errorf("reading the base URL: %w", err)
	}
	dialer := net.Dialer{Timeout: confirmWithin}
	conn, err := dialer.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return &failure{code: string(messages.ReasonNotReady), message: "the endpoint " + u.Host + " does not accept a connection", exit: exitUnavailable, err: err}
	}
	defer conn.Close()
	return d.confirmConn(ctx, conn)
}

// confirmConn asks the daemon whether it has accepted this connection.
func (d door) confirmConn(ctx context.Context, conn net.Conn) error {
	host := conn.RemoteAddr().String()
	wrong := &failure{code: "foreign_listener", exit: exitIntegrity,
		message: "the daemon does not know a connection to " + host + ": another program listens there",
		hint:    "send nothing there; stop that program, then `companion status`"}
	from, ok := conn.LocalAddr().(*net.TCPAddr)
	if !ok {
		return wrong
	}
	to, err := netip.ParseAddrPort(host)
	if err != nil {
		return wrong
	}
	client := netip.AddrPortFrom(from.AddrPort().Addr().Unmap(), from.AddrPort().Port())
	confirmed, err := d.control.Confirms(ctx, client, netip.AddrPortFrom(to.Addr().Unmap(), to.Port()))
	if err != nil {
		return err
	}
	if !confirmed {
		if holder := loopback.Holder(to); holder != "" {
			wrong.message += ", " + holder
		}
		return wrong
	}
	return nil
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

// client asks the local lane, through the endpoint as any program does (E5). allow is called before each request; nil: no check.
func (d door) client(allow func() error) (*completion.Client, error) {
	if !d.status.CompanionAvailable {
		return nil, &failure{code: string(d.status.Reason), exit: exitUnavailable,
			message: fmt.Sprintf("local inference is not available: %s", explain(d.status.Reason))}
	}
	return completion.New(completion.Target{BaseURL: d.baseURL, Key: d.token, Model: d.status.Model.Name, Local: true, Confirm: d.confirmConn, Allow: allow}), nil
}
