package lifecycle

import (
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/fsm"
	"companion/messages"
)

// Bounds of the backoff between a crash and the next launch (A8). The first retry is almost immediate,
// because a single crash is usually transient.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// loop is the state of one incarnation of the actor. Only the goroutine of Serve touches it.
type loop struct {
	deps    Deps
	log     *zap.Logger
	machine *fsm.Lifecycle
	last    messages.Snapshot // the last published one

	facts  messages.Facts
	causes fsm.Causes
	base   string
	model  messages.Model

	// The user's requests. They outlive a launch: restart also applies to a launch that a new
	// incarnation has not adopted yet.
	wanted  bool // the runtime should run
	restart bool // the current launch should be replaced

	// retiredAt is when a ready launch was retired for the next one, and zero once that is ready or does not follow.
	retiredAt time.Time

	// offered: the pair to run. proven: the last pair that became ready, in this daemon or an earlier one (M13); it is
	// the fallback (M12). rejected: newer pair that failed to start.
	offered, proven, rejected *pair
	recorded                  digests                      // of the last PairReady
	wrong                     map[[32]byte]messages.Reason // artifacts whose bytes are known to be wrong
	plain                     *pair                        // is started without speculative decoding (R12)
	rechecked                 bool                         // since a launch became ready, one was refused for changed artifacts

	current   *launch         // nil: no runtime runs, as far as this actor knows
	number    messages.Launch // of the current or the last launch
	lastReady messages.Launch // the last launch that became ready
	confirmed bool            // the process actor has reported what runs

	failures *messages.Failures // never nil; a published value is never changed
	restarts int
	lastExit *messages.ExitReport
	backoff  *backoff.ExponentialBackOff
	retryAt  time.Time

	cleared   chan messages.Reason // the reply to ClearLoopbackToken, nil when none is awaited
	clearedBy time.Time
	onStopped []chan<- messages.Reason // StopRequested: reply when the runtime has ended
	onStart   []chan<- messages.Reason // RestartRequested: reply when the next launch starts
	onReady   []messages.AwaitReady    // reply when the model is ready, or has failed
	onEnd     []chan<- struct{}        // ShutdownRequested: reply when the shutdown is complete

	process   actorkit.Outbox[messages.ToProcess]
	provision actorkit.Outbox[messages.ToProvision]
	frontDoor actorkit.Outbox[messages.ToFrontDoor]
	health    actorkit.Outbox[messages.ToHealth]
	custody   actorkit.Outbox[messages.LoopbackRequest]
	manifest  actorkit.Outbox[messages.ManifestCommand]
}

func newLoop(deps Deps) *loop {
	before := deps.Snapshot.Get()
	retry := &backoff.ExponentialBackOff{InitialInterval: firstRetry, Multiplier: 3, RandomizationFactor: 0.3, MaxInterval: lastRetry}
	l := &loop{
		deps:      deps,
		log:       deps.Log,
		machine:   fsm.NewLifecycle(),
		last:      before,
		wanted:    before.Wanted,
		number:    before.Launch,
		lastReady: before.Proven,
		restarts:  before.Restarts,
		lastExit:  before.LastExit,
		failures:  &messages.Failures{},
		wrong:     map[[32]byte]messages.Reason{},
		backoff:   retry,

		process:   actorkit.Outbox[messages.ToProcess]{Box: deps.Process},
		provision: actorkit.Outbox[messages.ToProvision]{Box: deps.Provision},
		frontDoor: actorkit.Outbox[messages.ToFrontDoor]{Box: deps.FrontDoor},
		health:    actorkit.Outbox[messages.ToHealth]{Box: deps.Health},
		custody:   actorkit.Outbox[messages.LoopbackRequest]{Box: deps.Custody},
		manifest:  actorkit.Outbox[messages.ManifestCommand]{Box: deps.Manifest},
	}
	if before.Failures != nil {
		l.failures = before.Failures
	}
	if l.held() {
		l.causes.Ready = heldReason(l.lastExit)
	}
	return l
}

// held reports whether launches are held back after a crash loop (A8).
func (l *loop) held() bool { return !l.failures.HeldTill.IsZero() }

// handle processes one message. It records facts; reconcile, which runs after every message, decides
// what follows from them.
func (l *loop) handle(message messages.ToLifecycle) {
	switch m := message.(type) {
	case messages.ActorStarted:
		l.actorStarted(m.Actor)
	case messages.ActorEnded:
		l.forget(m.Actor)
	case messages.ArtifactsVerified:
		l.offer(m)
	case messages.IntegrityLost:
		l.integrityLost(m)
	case messages.IdentityChanged:
		l.identityChanged(m)
	case messages.DoorBound:
		l.facts.Bound, l.causes.Bound, l.base = true, "", m.BaseURL
		if l.facts.LastHealth.IsZero() {
			l.health.Put(messages.ConfirmHealth{})
		}
	case messages.DoorLost:
		l.facts.Bound, l.causes.Bound, l.base = false, m.Reason, ""
	case messages.TokenStored:
		l.facts.Token, l.causes.Token = true, ""
	case messages.TokenLost:
		l.facts.Token, l.causes.Token = false, m.Reason
	case messages.RuntimeAbsent:
		l.runtimeAbsent(m)
	case messages.RuntimeStarted:
		l.runtimeStarted(m)
	case messages.BackEndUp:
		if c := l.running(m.Launch); c != nil {
			c.backEnd, l.model, c.speculates, c.sleeps = m.BackEnd, m.Model, m.Speculates, m.Sleeps
		}
	case messages.RuntimeExited:
		l.runtimeExited(m)
	case messages.HealthSucceeded:
		l.healthSucceeded(m)
	case messages.HealthFailed:
		l.healthFailed(m)
	case messages.MemoryExceeded:
		l.memoryExceeded(m)
	case messages.SpeculationUnfit:
		l.speculationUnfit(m)
	case messages.StartRequested:
		m.Reply <- l.want()
	case messages.StopRequested:
		l.unwant(messages.ReasonInvalidTransition)
		l.onStopped = append(l.onStopped, m.Reply)
	case messages.RestartRequested:
		l.restartRequested(m)
	case messages.AwaitReady:
		l.awaitReady(m)
	case messages.ForgetPrompts:
		l.forgetPrompts()
	case messages.Ping:
		m.Reply <- struct{}{}
	case messages.ShutdownRequested:
		l.facts.ShuttingDown = true
		l.unwant(messages.ReasonNotReady)
		l.onEnd = append(l.onEnd, m.Reply)
	}
}

// apply moves the state machine. Callers pass only events that the current state allows; any other
// event is a bug in this actor, so apply panics and the supervisor restarts the actor.
func (l *loop) apply(event messages.Event, reason messages.Reason) {
	from := l.machine.State()
	if refused := l.machine.Apply(event); refused != messages.ReasonOK {
		panic("lifecycle: " + string(event) + " in " + string(from) + ": " + string(refused))
	}
	to := l.machine.State()
	l.facts.Ready = to == messages.StateReady
	if l.facts.Ready {
		l.causes.Ready = ""
	} else {
		l.causes.Ready = reason
		l.facts.LastHealth = time.Time{}
	}
	l.log.Info("lifecycle changed", zap.String("from", string(from)), zap.String("to", string(to)),
		zap.String("on", string(event)), zap.String("reason", string(reason)))
}

// publish publishes a snapshot of the current state, if anything has changed.
func (l *loop) publish() {
	now := time.Now()
	available, reason := fsm.Available(l.facts, l.causes, now, l.deps.Recency)
	next := messages.Snapshot{
		State: l.machine.State(), Available: available, Reason: reason, Since: l.last.Since, AvailableFor: l.last.AvailableFor,
		Facts: l.facts, BaseURL: l.base, Launch: l.number, Proven: l.lastReady, BackEnd: l.backEnd(), Model: l.model,
		Restarts: l.restarts, LastExit: l.lastExit, RetryAt: l.retryAt,
		Held: l.held(), Failures: l.failures, Wanted: l.wanted, Replacing: l.replacing(),
	}
	if c := l.current; c != nil {
		next.Speculates, next.Sleeps, next.Asleep = c.speculates, c.sleeps, c.asleep
	}
	if next == l.last {
		return
	}
	changed := next.Available != l.last.Available || next.State != l.last.State
	if changed || next.Since.IsZero() {
		next.AvailableFor = availableUntil(l.last, now)
		next.Since = now
	}
	was := l.last.Available
	l.last = next
	l.deps.Snapshot.Set(next)
	if available != was {
		l.log.Info("availability changed", zap.Bool("available", available), zap.String("reason", string(reason)))
	}
}

// availableUntil returns how long inference was available, in all, until now.
func availableUntil(s messages.Snapshot, now time.Time) time.Duration {
	if s.Available {
		return s.AvailableFor + now.Sub(s.Since)
	}
	return s.AvailableFor
}

// untilNext is the time until the actor must act without a message: when the last health success
// ages out, a deadline passes, a retry is due or a hold ends.
func (l *loop) untilNext() time.Duration {
	const idle = time.Hour
	now, next := time.Now(), idle
	wake := func(at time.Time) {
		if !at.IsZero() {
			next = min(next, at.Sub(now))
		}
	}
	if l.last.Available {
		// One nanosecond later: a success that is exactly Recency old still counts.
		wake(l.facts.LastHealth.Add(l.deps.Recency + 1))
	}
	wake(l.retryAt)
	wake(l.failures.HeldTill)
	wake(l.clearedBy)
	if c := l.current; c != nil {
		wake(c.startBy)
		wake(c.exitBy)
		wake(c.drainBy)
		if l.machine.State() == messages.StateReady && len(l.failures.At) > 0 {
			wake(c.readyAt.Add(fsm.HealthyAfter))
		}
	}
	return max(next, 0)
}

// due reports whether the deadline at, where zero means none, has passed at now.
func due(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }
