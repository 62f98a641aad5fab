// Package health is the actor that finds out whether local inference works (A4) and tells the
// lifecycle; what follows from it is decided there (A5).
//
// While the runtime starts it asks the front door for the model and the back end for one real token,
// again and again until both come; the lifecycle's start deadline ends a start that never succeeds. A
// start that only adopts a runtime needs both as well, but its listings are judged as in ready: it has
// requests on it that nobody else would end.
//
// While it is ready there is a beat through the front door, and when it has given nobody anything for a
// while, one token is asked for as well, which finds the server whose web thread answers while its
// compute hangs. Behind somebody's long prompt a token may be late; then it is the processor time of the
// runtime that tells a busy one from one that hangs. The first failure is told at once. What is then at
// fault is asked of the back end directly: only a runtime that fails twice in a row itself is reported as
// hung, because a hung one is killed, and a busy one, or one behind a broken front door, must not be.
package health

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"time"

	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/messages"
)

// Defaults of the times below. Together they keep the promise of A5: a success counts from the moment at
// which the front door had answered, and the next one is told within 2 × GenerateDeadline = 12 s of that,
// inside the recency bound of 15 s; a runtime that stops answering is noticed within Beat + AnswerDeadline
// = 8 s, and reported as hung within 12 s.
const (
	DefaultBeat             = 5 * time.Second
	DefaultAnswerDeadline   = 3 * time.Second // measured: a busy runtime lists its model in under 15 ms
	DefaultGenerateDeadline = 6 * time.Second
	DefaultIdleAfter        = 30 * time.Second
)

// computing is the least share of one processor that a runtime uses while it computes an answer. One
// that waits for requests uses less than 1 % of one, in its web threads.
const computing = 0.02

const (
	// strikesUntilHung is how many failures in a row make a runtime hung: one may be a hiccup.
	strikesUntilHung = 2
	// startGenerateDeadline is for the first token of a launch, which warms everything up; the start
	// deadline of the lifecycle usually ends earlier.
	startGenerateDeadline = time.Minute
	// A start is to be noticed the moment it works; a failure of a ready runtime is asked about
	// again a little later, so that the exit of a process is told before its silence is.
	startRetry, startRetryMax = 10 * time.Millisecond, 80 * time.Millisecond
	readyRetry                = 250 * time.Millisecond
)

// Prober makes probes; *healthprobe.Prober is one. Errors are *healthprobe.Error.
type Prober interface {
	Door(ctx context.Context, baseURL string, token messages.Secret, model string) error
	Models(ctx context.Context, backEnd messages.BackEnd, model string) error
	Generate(ctx context.Context, backEnd messages.BackEnd, model messages.Model) error
}

// Deps is what the composition root gives. Zero times mean the defaults.
type Deps struct {
	Inbox     <-chan messages.ToHealth
	Lifecycle chan<- messages.ToLifecycle
	FrontDoor chan<- messages.ToFrontDoor
	Snapshot  *actorkit.Watch[messages.Snapshot]
	Door      func() messages.DoorView // whose LastActivity and InFlight are the users' alone
	// Observation tells the processor time of the runtime, and GPU that it may compute without using any.
	Observation func() messages.Observation
	GPU         bool
	Prober      Prober

	Beat             time.Duration // between two probes of a ready runtime
	AnswerDeadline   time.Duration // of a listing
	GenerateDeadline time.Duration // of one token of an idle runtime
	IdleAfter        time.Duration // without activity: ask for a token, that often
	Log              *zap.Logger
}

// Actor is the suture service; see the package comment.
type Actor struct {
	deps  Deps
	token messages.Secret
}

// New returns the actor, with the probe token of this start of the daemon: 32 random bytes that
// exist in memory alone.
func New(deps Deps) *Actor {
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&deps.Beat, DefaultBeat},
		{&deps.AnswerDeadline, DefaultAnswerDeadline},
		{&deps.GenerateDeadline, DefaultGenerateDeadline},
		{&deps.IdleAfter, DefaultIdleAfter},
	} {
		if *d.value == 0 {
			*d.value = d.fallback
		}
	}
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails: crypto/rand ends the process instead
	return &Actor{deps, messages.NewSecret(base64.RawURLEncoding.EncodeToString(random[:]))}
}

func (a *Actor) String() string { return string(messages.ActorHealth) }

// Serve runs until ctx ends.
func (a *Actor) Serve(ctx context.Context) error {
	l := newLoop(a.deps, a.token)
	defer l.end()
	for {
		snapshot, changed := a.deps.Snapshot.Next()
		l.follow(ctx, snapshot)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case m := <-a.deps.Inbox:
			switch m.(type) {
			case messages.DeliverProbeToken:
				l.owesToken = true
			case messages.ConfirmHealth:
				l.probeNow()
			}
		case <-l.timer.C:
			l.due = true
		case fault := <-l.beside.Panicked():
			panic(fault)
		case r := <-l.rounds:
			l.judge(r)
		case l.doorBox() <- messages.UseProbeToken{Token: a.token}:
			l.owesToken = false
		case l.lifecycleBox() <- l.head():
			l.sent()
		}
	}
}
