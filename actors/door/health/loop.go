package health

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
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
	sleeps  bool // the model gives its memory back when it is idle
}

// loop is the state of one run of Serve. Only Serve's goroutine uses it.
type loop struct {
	deps  Deps
	token messages.Secret

	target   *target // nil when nothing is to be probed
	starting bool
	adopted  bool               // starting with a runtime that was ready under an earlier lifecycle actor
	stop     context.CancelFunc // ends the running round; nil when none runs
	tasks    *actorkit.Group
	rounds   chan round
	number   int // of the newest round
	timer    *time.Timer
	due      bool // begin a round as soon as none runs

	strikes    int // failures in a row that are the runtime's fault
	sleep      sleep
	suspect    bool // the last round failed
	noToken    bool // the last token did not come
	lastToken  time.Time
	since      time.Time // when this target was first seen
	retry      *backoff.ExponentialBackOff
	owesToken  bool                 // the front door must be told the token
	introduced bool                 // the lifecycle actor has got this run's ActorStarted
	verdict    messages.ToLifecycle // the newest one that is not sent, or nil
}

func newLoop(deps Deps, token messages.Secret) *loop {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &loop{deps: deps, token: token, tasks: actorkit.NewGroup(), rounds: make(chan round), timer: timer, owesToken: true}
}

func (l *loop) end() {
	l.timer.Stop()
	l.abandon()
	l.sleep.forget()
	l.tasks.Wait()
}

// follow takes over a snapshot, and begins a round if one is due.
func (l *loop) follow(ctx context.Context, snapshot messages.Snapshot) {
	probed := (snapshot.State == messages.StateStarting || snapshot.State == messages.StateReady) &&
		snapshot.BackEnd != (messages.BackEnd{}) && snapshot.BaseURL != ""
	if !probed {
		l.target = nil
		l.sleep.forget()
		l.abandon()
		return
	}
	next := target{snapshot.Launch, snapshot.BackEnd, snapshot.BaseURL, snapshot.Model, snapshot.Sleeps}
	starting := snapshot.State == messages.StateStarting
	adopted := starting && snapshot.Proven == snapshot.Launch
	if l.target == nil || *l.target != next || starting && (!l.starting || adopted != l.adopted) {
		l.target = &next
		l.sleep.forget()
		l.strikes, l.suspect, l.noToken, l.lastToken = 0, false, false, time.Time{}
		l.since = time.Now()
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
	return &backoff.ExponentialBackOff{InitialInterval: first, Multiplier: 2, MaxInterval: most}
}

// probeNow ends the running round, which may be about something else, and requests another.
func (l *loop) probeNow() {
	l.abandon()
	l.due = true
}

// abandon ends the running round. Its result is dropped.
func (l *loop) abandon() {
	l.timer.Stop()
	l.due = false
	if l.stop != nil {
		l.stop()
		l.stop = nil
	}
}

// round is the result of one round of probes. The error of a probe that was not made is nil.
type round struct {
	number                int
	launch                messages.Launch
	door, models, token   error
	askedModels, askedOne bool
	late, cut             bool // the token's result says nothing: it came late, or its probe was cancelled
	starting, adopted     bool
	asleep                bool      // the model has given its memory back
	waking                bool      // the model may be waking: the runtime does not say whether it sleeps
	began, at             time.Time // at is the time of the front door's answer
}

// begin starts the probes of a round in parallel.
func (l *loop) begin(ctx context.Context) {
	ctx, l.stop = context.WithCancel(ctx)
	of, starting := *l.target, l.starting
	l.number++
	r := round{number: l.number, launch: of.launch, began: time.Now(), starting: starting, adopted: l.adopted, askedModels: l.suspect, askedOne: starting || l.wantsToken()}
	cut, cutToken := context.WithCancel(ctx)
	before := l.look()
	asked, mayWake := l.askAboutSleep(ctx, of, &r)
	listed := func(err error) error {
		if err != nil && (!r.starting || r.adopted) {
			cutToken() // its longer deadline must not delay the verdict on a hung runtime
		}
		return err
	}
	l.tasks.Go(func() {
		defer cutToken()
		if asked != nil {
			known, asleep := asked.wait(ctx)
			r.asleep, r.waking = asleep, mayWake && !known
			// A token would wake it, or wait until it is awake.
			r.askedOne = r.askedOne && !r.asleep && !r.waking
		}
		var probes sync.WaitGroup
		probe := func(ctx context.Context, within time.Duration, into *error, do func(context.Context) error) {
			probes.Add(1)
			l.tasks.Go(func() {
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
			// The probe was cancelled, or waits behind other requests: neither a failure nor a success.
			r.token, r.late = nil, true
		}
		select {
		case l.rounds <- r:
		case <-ctx.Done():
		}
	})
}

// letSleep reports whether the runtime has been idle for so long that no probe may keep its model awake.
func (l *loop) letSleep(door messages.DoorView) bool {
	return l.target.sleeps && door.InFlight+door.Queued == 0 && l.idleSince(door) >= l.deps.ProbeIdle
}

// wantsToken reports whether to ask for a token: the runtime has sent no client anything for a while, or the
// last token did not come and no request is ahead.
func (l *loop) wantsToken() bool {
	door, last := l.deps.Door(), l.lastToken
	if door.LastActivity.After(last) {
		last = door.LastActivity
	}
	if !l.noToken && l.letSleep(door) {
		return false
	}
	if busy := door.InFlight > 0 || door.Queued > 0; busy && last.After(l.lastToken) {
		return time.Since(last) >= l.deps.IdleAfter
	}
	return l.noToken || time.Since(last) >= l.deps.IdleAfter
}

// observation is what tells a hung runtime from a busy one, at one moment.
type observation struct {
	door messages.DoorView
	used messages.Observation
	gpu  bool
}

func (l *loop) look() observation {
	return observation{l.deps.Door(), l.deps.Observation(), l.deps.GPU}
}

// hung reports whether there is no excuse for a token that did not come between s and now: the runtime sent
// no client anything, and either there was no other request or it did not compute.
func (s observation) hung(now observation) bool {
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

// judge turns a round into a verdict, and sets the time of the next round.
func (l *loop) judge(r round) {
	if l.stop == nil || l.number != r.number {
		return // abandoned while its result was handed over
	}
	l.stop()
	l.stop = nil
	l.sleep.learn()
	err := errors.Join(r.door, r.models, r.token)
	if r.askedOne && !r.cut {
		l.lastToken = time.Now()
		if !r.late {
			l.noToken = r.token != nil
		}
	}
	if reasonOf(r.door) == messages.ReasonInvalidToken {
		l.owesToken = true // the front door lost the token without asking for it
	}
	if err == nil {
		l.succeeded(r)
		return
	}
	l.failed(r, err)
}

func (l *loop) succeeded(r round) {
	// The beat counts from the beginning of the round: a slow token must not make the next success late.
	l.timer.Reset(max(0, l.deps.Beat-time.Since(r.began)))
	if l.noToken {
		// A listing alone does not clear a runtime whose token is missing.
		return
	}
	if l.suspect {
		l.deps.Log.Info("probe succeeded again")
	}
	l.strikes, l.suspect = 0, false
	l.retry.Reset()
	l.verdict = messages.HealthSucceeded{Launch: r.launch, At: r.at, Asleep: r.asleep}
}

func (l *loop) failed(r round, err error) {
	l.timer.Reset(l.retry.NextBackOff())
	if r.starting && !r.adopted {
		l.deps.Log.Debug("not healthy yet", zap.Error(err))
		return
	}
	reason := reasonOf(firstOf(r.models, r.token, r.door))
	switch {
	case r.waking: // the threads that answer may all wait for the model
		l.strikes = 0
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

// reasonOf returns the reason of a failed probe. An error without a reason is a failure of the prober.
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

// doorBox returns the front door's mailbox while the token must be sent, and nil otherwise, so that the
// select skips it.
func (l *loop) doorBox() chan<- messages.ToFrontDoor {
	if !l.owesToken {
		return nil
	}
	return l.deps.FrontDoor
}

// lifecycleBox returns the lifecycle actor's mailbox while there is something to report. Only the newest
// verdict waits.
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
