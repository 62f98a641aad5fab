// Package controlsock is both ends of the control socket: HTTP/1.1 and JSON over a Unix socket of mode 0600 in a
// folder of mode 0700. Each end checks that the other belongs to the same user (X2); root counts as another user. No
// reply carries a secret.
//
// The daemon serves with Listen and a Server; commands use a Client from Dial.
//
//	GET  /v1/status                 one messages.Status
//	GET  /v1/status/watch[?every=]  one line at once, and one at each change of availability or
//	                                lifecycle; with every (a Go duration) also that often
//	POST /v1/login {"device"}       a line {"page"}, then a line {"result"}; leaving cancels
//	POST /v1/logout                 {"reason","hub","again"}
//	GET  /v1/whoami                 {"user","reason"}
//	GET  /v1/models                 {"models","reason"}
//	POST /v1/prune {"dryRun"}       {"items","reason"}
//	POST /v1/pull {"name"}          {"reason"} when it is done; leaving does not end the download
//	POST /v1/use {"name"}           {"reason"} when the model is ready or has failed; leaving does not end the switch
//	POST /v1/reload                 {"reason"}: the user's own catalogue has changed
//	POST /v1/start, stop, restart   {"reason"}
//	POST /v1/confirm {"client"}     {"confirmed"}: the endpoint has accepted the connection from that address
//	POST /v1/tokens/reload          {"reason"} once the changed application tokens hold
//
// A command that the daemon understood answers 200 with a reason. A command that it could not accept answers
// another status and {"error":{"code","message"}}, which the Client returns as an *Error.
package controlsock

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"companion/messages"
)

// ErrNotRunning says that no process listens on the control socket, or that the daemon ended during the call.
var ErrNotRunning = errors.New("the companion is not running")

// ErrInUse says that another daemon listens on the socket.
var ErrInUse = errors.New("another companion answers on the control socket")

// UnresponsiveError says that a daemon accepted the connection and did not answer in time: it is suspended, or hangs.
type UnresponsiveError struct {
	PID int // the process that listens; 0: not known
}

func (e *UnresponsiveError) Error() string {
	if e.PID == 0 {
		return "the daemon does not answer"
	}
	return fmt.Sprintf("the daemon (pid %d) does not answer", e.PID)
}

// Viewer gives the daemon's status. Both methods return at once.
type Viewer interface {
	Status() messages.Status
	// Next returns the status and a channel that is closed when availability or lifecycle may have changed.
	Next() (messages.Status, <-chan struct{})
}

// SignIn is implemented by the session. Login calls onPage at most once, from the calling goroutine; the end of ctx
// cancels the attempt.
type SignIn interface {
	Login(ctx context.Context, device bool, onPage func(messages.LoginPage)) (messages.LoginResult, error)
	Logout(ctx context.Context) (messages.LogoutResult, error)
	WhoAmI(ctx context.Context) (messages.WhoAmIResult, error)
}

// Catalogue is implemented by the manifest. An empty name pulls the wanted model and runtime.
type Catalogue interface {
	Models(ctx context.Context) (messages.ModelList, error)
	Pull(ctx context.Context, name string) (messages.Reason, error)
	// Use serves another model; an empty name returns to the configured one.
	Use(ctx context.Context, name string) (messages.Reason, error)
	Prune(ctx context.Context, dryRun bool) (messages.PruneResult, error)
	Reload(ctx context.Context) (messages.Reason, error)
}

// Runtime starts and stops the runtime, not the daemon.
type Runtime interface {
	Start(ctx context.Context) (messages.Reason, error)
	Stop(ctx context.Context) (messages.Reason, error)
	Restart(ctx context.Context) (messages.Reason, error)
}

// Endpoint is implemented by the front door. ReloadTokens reads the file of application tokens again (L14); the tokens
// themselves never cross the socket. Confirms reports whether the front door has accepted the connection from
// client to server.
type Endpoint interface {
	ReloadTokens(ctx context.Context) (messages.Reason, error)
	Confirms(ctx context.Context, client, server netip.AddrPort) (bool, error)
}

// The Client has the methods of the daemon.
var (
	_ SignIn    = (*Client)(nil)
	_ Catalogue = (*Client)(nil)
	_ Runtime   = (*Client)(nil)

	_ Endpoint = (*Client)(nil)
)

// Error is a refusal by the daemon: a stable code and a text without secrets.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }

// The codes of Error.
const (
	CodeBadRequest = "bad_request"
	CodeNotFound   = "unknown_path"
	CodeTimeout    = "timeout"
	CodeInternal   = "internal"
)

// JSON shapes of the bodies.
type (
	errorBody struct {
		Error *Error `json:"error"`
	}
	reasonBody struct {
		Reason messages.Reason `json:"reason"`
	}
	confirmBody struct {
		Client netip.AddrPort `json:"client"`
		Server netip.AddrPort `json:"server"`
	}
	confirmedBody struct {
		Confirmed bool `json:"confirmed"`
	}
	loginBody struct {
		Device bool `json:"device"`
	}
	logoutBody struct {
		Reason messages.Reason      `json:"reason"`
		Hub    messages.Reason      `json:"hub"`
		Again  messages.RevokeAgain `json:"again,omitempty"`
	}
	pullBody struct {
		Name string `json:"name"`
	}
	pruneBody struct {
		DryRun bool `json:"dryRun"`
	}
	prunedBody struct {
		Items  []messages.PrunedItem `json:"items"`
		Reason messages.Reason       `json:"reason"`
	}
	whoAmIBody struct {
		User   messages.User   `json:"user"`
		Reason messages.Reason `json:"reason"`
	}
	modelsBody struct {
		Models []messages.ModelRow `json:"models"`
		Reason messages.Reason     `json:"reason"`
	}
	loginLine struct {
		Page   *messages.LoginPage `json:"page,omitempty"`
		Result *loginResult        `json:"result,omitempty"`
		Error  *Error              `json:"error,omitempty"`
	}
	loginResult struct {
		Reason messages.Reason `json:"reason"`
		Detail string          `json:"detail,omitempty"`
		User   messages.User   `json:"user"`
		Hub    messages.Reason `json:"hub,omitempty"`
	}
)
