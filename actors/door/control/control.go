// Package control is the actor behind the control socket (X2): it builds the status of the daemon from what
// the other actors publish, and passes commands on to the actors that own them. It owns only the socket, and no
// reply carries a secret.
package control

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/door/controlsock"
	"companion/messages"
)

// Deps is what the composition root passes in. The views are called for each status; the Get method of a Watch
// implements one.
type Deps struct {
	Lifecycle chan<- messages.ToLifecycle
	Session   chan<- messages.SessionCommand
	Manifest  chan<- messages.ManifestCommand
	FrontDoor chan<- messages.ToFrontDoor // gets ReloadApplicationTokens and ConfirmConnection

	Snapshot *actorkit.Watch[messages.Snapshot]
	Views    Views

	SocketPath string // in the runtime folder
	Version    string
	StartedAt  time.Time     // of the daemon
	Recency    time.Duration // how old the last health success may be (A5)
	Log        *zap.Logger
}

// Views are the sources of the status besides the snapshot.
type Views struct {
	Door        func() messages.DoorView
	Process     func() messages.ProcessView
	Observation func() messages.Observation
	Session     func() messages.SessionView
	Manifest    func() messages.ManifestView
	Transfers   func() []messages.Transfer
	Actors      func() []messages.ActorView
}

// Actor is the suture service; see the package comment.
type Actor struct{ deps Deps }

// New returns the actor.
func New(deps Deps) *Actor { return &Actor{deps} }

func (a *Actor) String() string { return string(messages.ActorControl) }

// Serve answers on the control socket until ctx ends.
func (a *Actor) Serve(ctx context.Context) error {
	if err := actorkit.Tell[messages.ToLifecycle](ctx, a.deps.Lifecycle, messages.ActorStarted{Actor: messages.ActorControl}); err != nil {
		return ctx.Err()
	}
	ln, err := controlsock.Listen(a.deps.SocketPath, func(err error) {
		a.deps.Log.Warn("connection refused", zap.Error(err))
	})
	if err != nil {
		return fmt.Errorf("opening the control socket: %w", err)
	}
	server := &controlsock.Server{
		View: viewer{a.deps}, SignIn: signIn{a.deps.Session}, Catalogue: catalogue{a.deps.Manifest},
		Runtime: runtime{a.deps.Lifecycle}, Log: a.deps.Log, Endpoint: endpoint{a.deps.FrontDoor},
	}
	if err := server.Serve(ctx, ln); err != nil {
		return err
	}
	return ctx.Err()
}
