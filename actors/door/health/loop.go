package health

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/door/healthprobe"
	"companion/messages"
)

// target is what is probed.
type target struct {
	launch  messages.Launch
	backEnd messages.BackEnd
	baseURL string
	model   messages.Model
}

// loop is the state of one incarnation; Serve's goroutine alone touches it.
type loop struct {
	deps  Deps
	token messages.Secret

	target   *target // nil: nothing is to be probed
	starting bool
	adopted  bool               // starting with a runtime that was ready for an earlier lifecycle actor
	stop     context.CancelFunc // of the round that runs, nil when none does
	beside   *actorkit.Group
	rounds   chan round
	number   int // of the newest round
	timer    *time.Timer
	due      bool // a round is to begin as soon as none runs

	strikes    int  // failures in a row that are the runtime's own
	suspect    bool // the last round failed
	noToken    bool // the last token that was asked for did not come
	lastToken  time.Time
	retry      *backoff.ExponentialBackOff
	owesToken  bool                 // the front door is to be told the token
	introduced bool                 // the lifecycle knows that this actor is new
	verdict    messages.ToLifecycle // the newest one that was not sent yet, or nil
}

func newLoop(deps Deps, token messages.Secret) *loop {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &loop{deps: deps, token: token, beside: actorkit.NewGroup(), rounds: make(chan round), timer: timer, owesToken: true}
}

func (l *loop) end() {
	l.timer.Stop()
	l.abandon()
	l.beside.Wait()
}

// follow takes over what the lifecycle says, and begins a round when one is due.
func (l *loop) follow(ctx context.Context, snapshot messages.Snapshot) {
	probed := (snapshot.State == messages.StateStarting || snapshot.State == messages.StateReady) &&
		snapshot.BackEnd != (messages.BackEnd{}) && snapshot.BaseURL != ""
	if !probed {
		l.target = nil
		l.abandon()
		return
	}
	next := target{snapshot.Launch, snapshot.BackEnd, snapshot.BaseURL, snapshot.Model}
	starting := snapshot.State == messages.StateStarting
	adopted := starting && snapshot.Proven == snapshot.Launch
	if l.target == nil || *l.target != next || starting && (!l.starting || adopted != l.adopted) {
		l.target = &next
		l.strikes, l.suspect, l.noToken, l.lastToken = 0, false, false, time.Time{}
		l.retry = newRetry(starting && !adopted, l.deps.Beat)
		l.probeNow()
	} else if l.starting && !starting {
		l.retry = newRetry(false, l.deps.Beat)
	}
	l.starting, l.adopted = starting, adopted
	if l.due && l.stop == nil {
		l.due = false
		l.begin(ctx)
	}
}

func newRetry(starting bool, beat time.Duration) *backoff.ExponentialBackOff {
	first, most := readyRetry, beat
	if starting {
		first, most = startRetry, startRetryMax
	}
	return backoff.NewExponentialBackOff(backoff.WithInitialInterval(first), backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(0), backoff.WithMaxInterval(most), backoff.WithMaxElapsedTime(0))
}

// probeNow ends the round that runs, because it may be about something else, and begins another.
func (l *loop) probeNow() {
	l.abandon()
	l.due = true
}

// abandon ends the round that runs; nothing is heard of it.
func (l *loop) abandon() {
	l.timer.Stop()
	l.due = false
	if l.stop != nil {
		l.stop()
		l.stop = nil
	}
}

// round is what one round of probes found; a nil error is also that of a probe that was left out.
type round struct {
	number                int
	launch                messages.Launch
	door, models, token   error
	askedModels, askedOne bool
	late, cut             bool // the token that was asked for says nothing; it was not waited for
	starting, adopted     bool
	began, at             time.Time // at: when the front door had answered
}

// begin starts the probes of one round side by side.
func (l *loop) begin(ctx context.Context) {
	ctx, l.stop = context.WithCancel(ctx)
	of, starting := *l.target, l.starting
	l.number++
	r := round{number: l.number, launch: of.launch, began: time.Now(), starting: starting, adopted: l.adopted, askedModels: l.suspect, askedOne: starting || l.wantsToken()}
	cut, cutToken := context.WithCancel(ctx)
	before := l.look()
	listed := func(err error) error {
		if err != nil && (!r.starting || r.adopted) {
			cutToken() // its longer deadline must not hold up the verdict on a runtime that hangs
		}
		return err
	}
	l.beside.Go(func() {
		defer cutToken()
		var probes sync.WaitGroup
		probe := func(ctx context.Context, within time.Duration, into *error, do func(context.Context) error) {
			probes.Add(1)
			l.beside.Go(func() {
				defer probes.Done()
				ctx, cancel := context.WithTimeout(ctx, within)
				defer cancel()
				*into = do(ctx)
			})
		}
		probe(ctx, l.deps.AnswerDeadline, &r.door, func(ctx context.Context) error {
			err := l.deps.Prober.Door(ctx, of.baseURL, l.token, of.model.Name)
			r.at = time.Now()
			return listed(err)
		})
		if r.askedModels {
			probe(ctx, l.deps.AnswerDeadline, &r.models, func(ctx context.Context) error {
				return listed(l.deps.Prober.Models(ctx, of.backEnd, of.model.Name))
			})
		}
		if r.askedOne {
			within := l.deps.GenerateDeadline
			if starting {
				within = startGenerateDeadline
			}
			probe(cut, within, &r.token, func(ctx context.Context) error {
				return l.deps.Prober.Generate(ctx, of.backEnd, of.model)
			})
		}
		probes.Wait()
		r.cut = cut.Err() != nil
		if r.token != nil && (r.cut || !starting && !before.hung(l.look())) {
			// It was cut off, or is behind somebody else's tokens: no failure, and no success either.
			r.token, r.late = nil, true
		}
		select {
		case l.rounds <- r:
		case <-ctx.Done():
		}
	})
}

// wantsToken says whether a token may be asked for: the runtime has given nobody anything for a while,
// or, when nothing is generated that it would wait behind, the last one did not come.
func (l *loop) wantsToken() bool {
	door, last := l.deps.Door(), l.lastToken
	if door.LastActivity.After(last) {
		last = door.LastActivity
	}
	if busy := door.InFlight > 0 || door.Queued > 0; busy && last.After(l.lastToken) {
		return time.Since(last) >= l.deps.IdleAfter
	}
	return l.noToken || time.Since(last) >= l.deps.IdleAfter
}

// sight is what tells a runtime that hangs from a busy one, at one moment.
type sight struct {
	door messages.DoorView
	used messages.Observation
	gpu  bool
}

func (l *loop) look() sight { return sight{l.deps.Door(), l.deps.Observation(), l.deps.GPU} }

// hung reports whether a token that did not come between s and now has no excuse: the runtime gave
// nobody else anything, and either there was nobody else, or it did not even compute.
func (s sight) hung(now sight) bool {
	if !now.door.LastActivity.Equal(s.door.LastActivity) {
		return false
	}
	if s.door.InFlight+s.door.Queued+now.door.InFlight+now.door.Queued == 0 {
		return true
	}
	passed := now.used.At.Sub(s.used.At)
	comparable := !s.gpu && passed > 0 && s.used.PID != 0 && s.used.PID == now.used.PID && !s.used.Failed && !now.used.Failed
	return comparable && (now.used.CPUTime-s.used.CPUTime).Seconds() < computing*passed.Seconds()
}

// judge turns a round into a verdict, and sets the time of the next.
func (l *loop) judge(r round) {
	if l.stop == nil || l.number != r.number {
		return // abandoned while it was handed over
	}
	l.stop()
	l.stop = nil
	err := errors.Join(r.door, r.models, r.token)
	if r.askedOne && !r.cut {
		l.lastToken = time.Now()
		if !r.late {
			l.noToken = r.token != nil
		}
	}
	if reasonOf(r.door) == messages.ReasonInvalidToken {
		l.owesToken = true // a front door that forgot it without asking
	}
	if err == nil {
		l.succeeded(r)
		return
	}
	l.failed(r, err)
}

func (l *loop) succeeded(r round) {
	// From the beginning: a token that takes its time must not make the next success late.
	l.timer.Reset(max(0, l.deps.Beat-time.Since(r.began)))
	if l.noToken {
		// The listing alone does not clear a runtime that owes a token.
		return
	}
	if l.suspect {
		l.deps.Log.Info("probe succeeded again")
	}
	l.strikes, l.suspect = 0, false
	l.retry.Reset()
	l.verdict = messages.HealthSucceeded{Launch: r.launch, At: r.at}
}

func (l *loop) failed(r round, err error) {
	l.timer.Reset(l.retry.NextBackOff())
	if r.starting && !r.adopted {
		l.deps.Log.Debug("not healthy yet", zap.Error(err))
		return
	}
	reason := reasonOf(firstOf(r.models, r.token, r.door))
	switch {
	case r.models != nil, r.token != nil, !r.askedModels && byRuntime(r.door):
		l.strikes++
	default:
		l.strikes = 0
	}
	hung := l.strikes >= strikesUntilHung
	if !l.suspect || hung {
		l.deps.Log.Warn("probe failed", zap.String("reason", string(reason)), zap.Bool("hung", hung), zap.Error(err))
	}
	l.suspect = true
	l.verdict = messages.HealthFailed{Launch: r.launch, Reason: reason, Hung: hung}
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func byRuntime(err error) bool {
	var failed *healthprobe.Error
	return errors.As(err, &failed) && failed.Fault == healthprobe.FaultRuntime
}

// reasonOf is the reason of a failed probe; a prober that gives none has failed itself.
func reasonOf(err error) messages.Reason {
	var failed *healthprobe.Error
	switch {
	case err == nil:
		return messages.ReasonOK
	case errors.As(err, &failed):
		return failed.Reason
	default:
		return messages.ReasonProbeFailed
	}
}

// doorBox is the front door's mailbox while it is owed the token, else nil, which no select takes.
func (l *loop) doorBox() chan<- messages.ToFrontDoor {
	if !l.owesToken {
		return nil
	}
	return l.deps.FrontDoor
}

// lifecycleBox is the lifecycle's mailbox while there is something to tell. Only the newest verdict
// waits: an older one is of no use to anybody.
func (l *loop) lifecycleBox() chan<- messages.ToLifecycle {
	if l.introduced && l.verdict == nil {
		return nil
	}
	return l.deps.Lifecycle
}

func (l *loop) head() messages.ToLifecycle {
	if !l.introduced {
		return messages.ActorStarted{Actor: messages.ActorHealth}
	}
	return l.verdict
}

func (l *loop) sent() {
	if !l.introduced {
		l.introduced = true
		return
	}
	l.verdict = nil
}
