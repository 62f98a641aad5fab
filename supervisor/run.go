// Package supervisor is the composition root of the daemon: it builds all actors, connects them by mailboxes
// and runs the suture supervision tree (C1). Each wing is built in its own function, so that no wing gets
// the dependencies of another. Read Run from top to bottom to see which actors exist and how the daemon starts and
// stops. Only cmd/companion imports it.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/thejerf/suture/v4"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/actors/door/frontdoor"
	"companion/actors/lifecycle"
	"companion/actors/logfile"
	"companion/adapters/authority/transport"
	"companion/adapters/config"
	"companion/adapters/lowlatency"
	"companion/adapters/runtime/spawn"
	"companion/messages"
)

// Options are the inputs of Run, from `companion run`.
type Options struct {
	Settings config.Settings
	Places   config.Places
	Version  string
	Logger   *zap.Logger
	Journal  *logfile.Journal
	// OnReady is called once, with the base URL, when local inference is available for the first time. It
	// may be nil.
	OnReady func(baseURL string)
}

// Error says why the daemon could not start or had to stop.
type Error struct {
	Reason messages.Reason
	what   string
}

func (e *Error) Error() string { return fmt.Sprintf("%s (%s)", e.what, e.Reason) }

// shutdownMargin is the time for an orderly shutdown besides the drain and the end of the runtime.
const shutdownMargin = 5 * time.Second

// Run runs the daemon until ctx ends, then shuts down in order: stop admitting requests, drain, stop the
// runtime, clear the token, end the tree (X7). It returns nil after that, an *Error if there is no keychain at
// the start (K3), or another error if a folder or the configuration is not usable.
func Run(ctx context.Context, o Options) error {
	if err := spawn.Harden(); err != nil {
		return fmt.Errorf("protecting the daemon's memory (X8): %w", err)
	}
	lowlatency.SetEnabled(o.Settings.Runtime.LowLatency)
	if err := lowlatency.ShortenSlices(); err != nil {
		o.Logger.Debug("no short time slices", zap.Error(err))
	}
	if err := o.Places.Create(); err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	o.Logger = instrumentLog(o.Logger)
	b := newBoxes()
	t := newTree(b.lifecycle, o.Logger.Named("supervisor"))

	hub, err := transport.New(o.Settings.Hub.CAFile)
	if err != nil {
		return err
	}
	roots, err := transport.Roots(o.Settings.Hub.CAFile)
	if err != nil {
		return err
	}
	authority, err := authorityWing(o, b, hub, func(reason messages.Reason) {
		fail(&Error{reason, "the keychain service cannot be reached, and no secret is kept anywhere else"})
	})
	if err != nil {
		return err
	}
	runtime, err := runtimeWing(o, b, roots)
	if err != nil {
		return err
	}
	t.add(o.Journal)
	quarantine := frontdoor.NewQuarantine()
	t.add(lifecycleActor(o, b, quarantine.RuntimeEnded))
	t.wing("authority", authority...)
	t.wing("runtime", runtime...)
	t.wing("door", doorWing(o, b, quarantine, t.views)...)
	t.root.Add(&notifier{b.snapshot, b.lifecycle, o.Logger.Named("systemd")})
	t.root.Add(&trimmer{b.snapshot, o.Logger.Named("supervisor"), dropProgramPages})
	if o.OnReady != nil {
		t.root.Add(&announcer{b.snapshot, o.OnReady})
	}

	treeCtx, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	ended := t.root.ServeBackground(treeCtx)
	select {
	case <-ctx.Done():
		o.Logger.Info("shutting down")
		shutDown(treeCtx, b, o.Settings.Runtime.DrainTimeout+o.Settings.Runtime.StopTimeout+shutdownMargin)
		cut()
		<-ended
	case err := <-ended:
		return fmt.Errorf("the supervision tree ended: %w", err)
	}
	var fatal *Error
	if errors.As(context.Cause(ctx), &fatal) {
		return fatal
	}
	return nil
}

// shutDown asks the lifecycle actor for the orderly shutdown and waits for it. suture stops all services of a
// supervisor at the same time, which would end the runtime while requests run.
func shutDown(ctx context.Context, b boxes, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, _ = actorkit.Ask(ctx, b.lifecycle, func(reply chan<- struct{}) messages.ToLifecycle {
		return messages.ShutdownRequested{Reply: reply}
	})
}

func lifecycleActor(o Options, b boxes, requestsEnded func(l messages.Launch, byItself bool) bool) *lifecycle.Actor {
	return lifecycle.New(lifecycle.Deps{
		Inbox: b.lifecycle, Process: b.process, Provision: b.provision, FrontDoor: b.frontDoor,
		Health: b.health, Custody: b.loopback, Manifest: b.manifest, Snapshot: b.snapshot,
		Recency: o.Settings.Health.Recency, StartDeadline: o.Settings.Runtime.StartTimeout,
		DrainDeadline: o.Settings.Runtime.DrainTimeout, RequestsEnded: requestsEnded,
		Log: o.Logger.Named(string(messages.ActorLifecycle)),
	})
}

// announcer calls tell when inference is available for the first time, then ends.
type announcer struct {
	snapshot *actorkit.Watch[messages.Snapshot]
	tell     func(baseURL string)
}

func (a *announcer) String() string { return "announcer" }

func (a *announcer) Serve(ctx context.Context) error {
	for {
		snapshot, changed := a.snapshot.Next()
		if snapshot.Available {
			a.tell(snapshot.BaseURL)
			return suture.ErrDoNotRestart
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
