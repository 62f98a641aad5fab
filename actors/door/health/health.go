// Package health is the actor that probes whether local inference works (A4). It reports to the lifecycle
// actor, which decides what to do (A5).
//
// While the runtime starts, health asks the front door for the model and the back end for one token, and
// repeats both until they succeed. The lifecycle actor's start deadline ends a start that never succeeds. A
// start that adopts a running runtime needs both as well, but its listings are judged as in the ready state:
// the runtime may have requests, which nothing else would end.
//
// A model that gives its memory back when it is idle (R14) must not be woken or kept awake: after ProbeIdle without
// a client it is only listed, until a client asks it. While the request of a client wakes the model, which means that it
// is read from the disk, the runtime is not hung before the time of a start has passed.
//
// While the runtime is ready, health lists the model through the front door at each beat. When the runtime
// has sent no client anything for a while, health also asks it for one token, which finds a server whose web
// thread answers while its compute thread hangs. A token may be late behind a client's long prompt; then the
// processor time of the runtime tells a busy one from a hung one.
//
// The first failure is reported at once. Then health asks the back end directly to find out what is at fault.
// Only a runtime that itself fails twice in a row is reported as hung, because a hung runtime is killed. A
// busy runtime, and one behind a broken front door, must not be killed.
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

// Defaults of the times below. Together they meet the bounds of A5: a success counts from the time of the
// front door's answer, and the next one is reported at most 2 × GenerateDeadline = 12 s later, within the
// recency bound of 15 s. A runtime that stops answering is noticed within Beat + AnswerDeadline = 8 s, and
// reported as hung within 12 s.
const (
	DefaultBeat             = 5 * time.Second
	DefaultAnswerDeadline   = 3 * time.Second // measured: a busy runtime lists its model within 15 ms
	DefaultGenerateDeadline = 6 * time.Second
	DefaultIdleAfter        = 30 * time.Second
	DefaultStartDeadline    = 2 * time.Minute
)

// computing is the smallest share of one processor that a runtime uses while it computes an answer. An idle
// one uses less than 1 % in its web threads.
const computing = 0.02

const (
	// strikesUntilHung is how many failures in a row make a runtime hung. A single failure may be transient.
	strikesUntilHung = 2
	// startGenerateDeadline is for the first token of a launch, which includes the warm-up. The lifecycle
	// actor's start deadline usually ends earlier.
	startGenerateDeadline = time.Minute
	// A start must be noticed as soon as it works. After a failure of a ready runtime the next probe waits a little
	// longer, so that the exit of the process is reported before its silence.
	startRetry, startRetryMax = 10 * time.Millisecond, 80 * time.Millisecond
	readyRetry                = 250 * time.Millisecond
)

// Prober makes probes; *healthprobe.Prober implements it. Errors are *healthprobe.Error.
type Prober interface {
	Door(ctx context.Context, baseURL string, token messages.Secret, model string) error
	Models(ctx context.Context, backEnd messages.BackEnd, model string) error
	Generate(ctx context.Context, backEnd messages.BackEnd, model messages.Model) error
	Asleep(ctx context.Context, backEnd messages.BackEnd) (bool, error)
}

// Deps is what the composition root passes in. A zero time means the default.
type Deps struct {
	Inbox     <-chan messages.ToHealth
	Lifecycle chan<- messages.ToLifecycle
	FrontDoor chan<- messages.ToFrontDoor
	Snapshot  *actorkit.Watch[messages.Snapshot]
	Door      func() messages.DoorView // its LastActivity and InFlight do not count probes
	// Observation has the processor time of the runtime. GPU means that it may compute without processor
	// time.
	Observation func() messages.Observation
	GPU         bool
	Prober      Prober

	Beat             time.Duration // time between two probes of a ready runtime
	AnswerDeadline   time.Duration // of a listing
	GenerateDeadline time.Duration // of one token of an idle runtime
	IdleAfter        time.Duration // time without activity until a token is asked for, and between two of them
	// ProbeIdle is the time without activity after which a model that can sleep is not asked for tokens (R14).
	ProbeIdle time.Duration
	// StartDeadline is how long a model may take to wake, as for a start.
	StartDeadline time.Duration
	Log           *zap.Logger
}

// Actor is the suture service; see the package comment.
type Actor struct {
	deps  Deps
	token messages.Secret
}

// New returns the actor with the probe token of this daemon: 32 random bytes, which are only in memory.
func New(deps Deps) *Actor {
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&deps.Beat, DefaultBeat},
		{&deps.AnswerDeadline, DefaultAnswerDeadline},
		{&deps.GenerateDeadline, DefaultGenerateDeadline},
		{&deps.IdleAfter, DefaultIdleAfter},
		{&deps.StartDeadline, DefaultStartDeadline},
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
		case fault := <-l.tasks.Panicked():
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
