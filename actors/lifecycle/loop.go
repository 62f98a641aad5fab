package lifecycle

import (
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/fsm"
	"companion/messages"
)

// The first retry comes soon, because one crash says little; the tenth does not (A8).
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// pair is a model and the runtime that serves it.
type pair struct {
	model   messages.VerifiedModel
	runtime messages.VerifiedRuntime
}

func (p *pair) same(q *pair) bool {
	return p != nil && q != nil && p.model.SHA256 == q.model.SHA256 && p.runtime.Dir == q.runtime.Dir
}

// loop is the state of one incarnation; Serve's goroutine alone touches it.
type loop struct {
	deps    Deps
	log     *zap.Logger
	machine *fsm.Lifecycle
	last    messages.Snapshot // what was published

	facts  messages.Facts
	causes fsm.Causes
	base   string

	// wanted is the user's wish; offered is what provision vouches for; proven became ready once
	// and is what a failed newer one falls back to (M12); running is what the launch was given.
	// rejected never became ready while proven did.
	wanted                             bool
	offered, proven, running, rejected *pair

	launch    messages.Launch
	lastReady messages.Launch // the last launch that became ready
	confirmed bool            // process has said what runs
	alive     bool            // launch has not ended yet
	ending    bool            // a Kill is on its way
	exitBy    time.Time       // the process dies, and its exit will be told by then; else zero
	blame     messages.Reason // the failure that an asked-for end stands for
	excused   bool            // the end of launch is no crash
	again     bool            // the user wants another launch than this one
	backEnd   messages.BackEnd
	model     messages.Model
	startedBy time.Time // the start deadline, while starting
	readyAt   time.Time

	failures *messages.Failures // never nil; what is published is not changed
	restarts int
	lastExit *messages.ExitReport
	backoff  *backoff.ExponentialBackOff
	retryAt  time.Time

	drained   chan int // the reply to a Drain, nil when none is asked
	drainBy   time.Time
	cleared   chan messages.Reason
	clearedBy time.Time
	onStopped []chan<- messages.Reason // who waits for the runtime to have ended
	onStart   []chan<- messages.Reason // who waits for the start of a restart
	onEnd     []chan<- struct{}        // who waits for the shutdown

	process   actorkit.Outbox[messages.ToProcess]
	provision actorkit.Outbox[messages.ToProvision]
	frontDoor actorkit.Outbox[messages.ToFrontDoor]
	health    actorkit.Outbox[messages.ToHealth]
	custody   actorkit.Outbox[messages.LoopbackRequest]
	manifest  actorkit.Outbox[messages.ManifestCommand]
}

func newLoop(deps Deps) *loop {
	before := deps.Snapshot.Get()
	retry := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(firstRetry),
		backoff.WithMultiplier(3),
		backoff.WithRandomizationFactor(0.3),
		backoff.WithMaxInterval(lastRetry),
		backoff.WithMaxElapsedTime(0),
	)
	l := &loop{
		deps:      deps,
		log:       deps.Log,
		machine:   fsm.NewLifecycle(),
		last:      before,
		wanted:    before.Wanted,
		launch:    before.Launch,
		lastReady: before.Proven,
		restarts:  before.Restarts,
		lastExit:  before.LastExit,
		failures:  &messages.Failures{},
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
		l.causes.Ready = messages.ReasonCrashLoop
	}
	return l
}

// held reports whether a crash loop is held (A8).
func (l *loop) held() bool { return !l.failures.HeldTill.IsZero() }

// handle takes one message in; it changes facts and asks for nothing that reconcile can ask for.
func (l *loop) handle(message messages.ToLifecycle) {
	switch m := message.(type) {
	case messages.ActorStarted:
		l.actorStarted(m.Actor)
	case messages.ActorEnded:
		l.forget(m.Actor)
	case messages.ArtifactsVerified:
		l.offer(&pair{m.Model, m.Runtime})
	case messages.IntegrityLost:
		l.integrityLost(m)
	case messages.IdentityChanged:
		if m.Launch == l.launch {
			l.excused = true
			l.facts.Verified, l.causes.Verified = false, messages.ReasonNotReady
			l.offered = nil
			l.provision.Put(messages.Reverify{})
		}
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
		if l.alive && m.Launch == l.launch {
			l.backEnd, l.model = m.BackEnd, m.Model
		}
	case messages.RuntimeExited:
		l.runtimeExited(m)
	case messages.HealthSucceeded:
		l.healthSucceeded(m)
	case messages.HealthFailed:
		l.healthFailed(m)
	case messages.MemoryExceeded:
		l.memoryExceeded(m)
	case messages.StartRequested:
		m.Reply <- l.want()
	case messages.StopRequested:
		l.unwant(messages.ReasonInvalidTransition)
		l.onStopped = append(l.onStopped, m.Reply)
	case messages.RestartRequested:
		l.restartRequested(m)
	case messages.Ping:
		m.Reply <- struct{}{}
	case messages.ShutdownRequested:
		l.facts.ShuttingDown = true
		l.unwant(messages.ReasonNotReady)
		l.onEnd = append(l.onEnd, m.Reply)
	}
}

// apply moves the machine by an event that the code around it knows to fit; one that does not is a
// fault of this actor, which its supervisor answers by a clean start.
func (l *loop) apply(event messages.Event, reason messages.Reason) {
	from := l.machine.State()
	if refused := l.machine.Apply(event); refused != messages.ReasonOK {
		panic("lifecycle: " + string(event) + " in " + string(from) + ": " + string(refused))
	}
	to := l.machine.State()
	l.facts.Ready = to == messages.StateReady
	if l.facts.Ready {
		l.causes.Ready = ""
		l.readyAt = time.Now()
	} else {
		l.causes.Ready = reason
		l.facts.LastHealth = time.Time{}
	}
	l.log.Info("lifecycle changed", zap.String("from", string(from)), zap.String("to", string(to)),
		zap.String("on", string(event)), zap.String("reason", string(reason)))
}

// publish makes one snapshot of what holds now, if anything changed.
func (l *loop) publish() {
	now := time.Now()
	available, reason := fsm.Available(l.facts, l.causes, now, l.deps.Recency)
	next := messages.Snapshot{
		State: l.machine.State(), Available: available, Reason: reason, Since: l.last.Since,
		Facts: l.facts, BaseURL: l.base, Launch: l.launch, Proven: l.lastReady, BackEnd: l.backEnd, Model: l.model,
		Restarts: l.restarts, LastExit: l.lastExit, RetryAt: l.retryAt,
		Held: l.held(), Failures: l.failures, Wanted: l.wanted,
	}
	if next == l.last {
		return
	}
	changed := next.Available != l.last.Available || next.State != l.last.State
	if changed || next.Since.IsZero() {
		next.Since = now
	}
	was := l.last.Available
	l.last = next
	l.deps.Snapshot.Set(next)
	if available != was {
		l.log.Info("availability changed", zap.Bool("available", available), zap.String("reason", string(reason)))
	}
}

// untilNext is the time until something happens by itself: the last health success ages out, a
// deadline passes, a retry or the end of a hold comes due.
func (l *loop) untilNext() time.Duration {
	const idle = time.Hour
	now, next := time.Now(), idle
	due := func(at time.Time) {
		if !at.IsZero() {
			next = min(next, at.Sub(now))
		}
	}
	if l.last.Available {
		// One nanosecond past the bound: at the bound itself the success still counts.
		due(l.facts.LastHealth.Add(l.deps.Recency + 1))
	}
	due(l.startedBy)
	due(l.retryAt)
	due(l.failures.HeldTill)
	due(l.exitBy)
	due(l.clearedBy)
	due(l.drainBy)
	if l.machine.State() == messages.StateReady && len(l.failures.At) > 0 {
		due(l.readyAt.Add(fsm.HealthyAfter))
	}
	return max(next, 0)
}
