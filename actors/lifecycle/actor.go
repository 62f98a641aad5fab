// Package lifecycle is the actor that decides when the model runtime starts, stops, restarts and falls
// back, and whether local inference is available (companionAvailable, A1–A9).
//
// The other actors report what they observe; only this one decides. After each message it publishes an
// immutable snapshot, which the gate, the front door, the health probe, control and resources read. It
// never waits for another actor: outgoing messages go into outboxes, which its select loop drains.
//
// Everything that belongs to one execution of the runtime is in one value of type launch, which is
// dropped as a whole when the execution ends.
//
// A new incarnation of the actor starts without any fact, asks all actors to report again, and adopts a
// runtime that still runs, so that the requests in it go on. From the last published snapshot it takes
// only values that no fact depends on: the user's request to run, the counters, the failures and the last exit.
package lifecycle

import (
	"context"
	"time"

	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/messages"
)

// Defaults of the times in Deps.
const (
	DefaultRecency       = 15 * time.Second
	DefaultStartDeadline = 2 * time.Minute
	DefaultDrainDeadline = 20 * time.Second

	// clearDeadline bounds the wait for the keychain at shutdown. A token that stays there is useless:
	// the daemon that accepted it has ended (K6).
	clearDeadline = 3 * time.Second
)

// Deps are the mailboxes, times and logger that the composition root passes in.
type Deps struct {
	Inbox     <-chan messages.ToLifecycle
	Process   chan<- messages.ToProcess
	Provision chan<- messages.ToProvision
	FrontDoor chan<- messages.ToFrontDoor
	Health    chan<- messages.ToHealth
	Custody   chan<- messages.LoopbackRequest
	Manifest  chan<- messages.ManifestCommand
	Snapshot  *actorkit.Watch[messages.Snapshot]

	// RequestsEnded reports whether requests were in the runtime of a launch when it ended (R11). ByItself says that the
	// runtime died, and was not ended by the daemon; only then it notes the requests. It is called once for each launch,
	// after its end, and must not block. Nil means that no crash is caused by requests.
	RequestsEnded func(l messages.Launch, byItself bool) bool

	Recency       time.Duration // how old the last health success may be (A5)
	StartDeadline time.Duration // from spawn to ready (A3)
	DrainDeadline time.Duration // for running requests (A7)
	Log           *zap.Logger
}

// Actor is the suture service; see the package comment.
type Actor struct{ deps Deps }

// New returns the actor. Zero times mean the defaults.
func New(deps Deps) *Actor {
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&deps.Recency, DefaultRecency},
		{&deps.StartDeadline, DefaultStartDeadline},
		{&deps.DrainDeadline, DefaultDrainDeadline},
	} {
		if *d.value == 0 {
			*d.value = d.fallback
		}
	}
	if deps.RequestsEnded == nil {
		deps.RequestsEnded = func(messages.Launch, bool) bool { return false }
	}
	return &Actor{deps}
}

func (a *Actor) String() string { return string(messages.ActorLifecycle) }

// Serve runs until ctx ends.
func (a *Actor) Serve(ctx context.Context) error {
	defer a.withdraw()
	l := newLoop(a.deps)
	l.publish()
	l.process.Put(messages.ConfirmProcess{})
	l.provision.Put(messages.ConfirmProvision{})
	l.frontDoor.Put(messages.ConfirmFrontDoor{})
	l.custody.Put(messages.ConfirmCustody{})
	l.health.Put(messages.ConfirmHealth{})
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(l.untilNext())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case message := <-a.deps.Inbox:
			l.handle(message)
		case left := <-l.drainReply():
			l.drainEnded(left)
		case reason := <-l.cleared:
			l.tokenCleared(reason)
		case <-timer.C:
		case l.process.Out() <- l.process.Head():
			l.process.Sent()
			continue
		case l.provision.Out() <- l.provision.Head():
			l.provision.Sent()
			continue
		case l.frontDoor.Out() <- l.frontDoor.Head():
			l.frontDoor.Sent()
			continue
		case l.health.Out() <- l.health.Head():
			l.health.Sent()
			continue
		case l.custody.Out() <- l.custody.Head():
			l.custody.Sent()
			continue
		case l.manifest.Out() <- l.manifest.Head():
			l.manifest.Sent()
			continue
		}
		l.reconcile()
		l.publish()
	}
}

// withdraw publishes that nothing is available (A5): the supervisor may wait before it starts the next
// incarnation, which then waits for the reports of all actors. It keeps the values that no fact depends
// on, for newLoop.
func (a *Actor) withdraw() {
	last, now := a.deps.Snapshot.Get(), time.Now()
	a.deps.Snapshot.Set(messages.Snapshot{
		State: messages.StateStopped, Reason: messages.ReasonNotReady, Since: now, AvailableFor: availableUntil(last, now),
		Launch: last.Launch, Proven: last.Proven, Restarts: last.Restarts, LastExit: last.LastExit,
		Held: last.Held, Failures: last.Failures, Wanted: last.Wanted,
	})
}
