// Package resources is the actor that monitors CPU, memory and GPU memory of the runtime process, for the
// gate and for status, and reports memory that stays over its limit (P1–P4).
//
// It observes only while a runtime runs; between runs it waits for the process actor's view to change.
package resources

import (
	"context"
	"time"

	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/runtime/probe"
	"companion/fsm"
	"companion/messages"
)

// The gate uses an observation for at most fsm.Reuse (P2). A new one starts Beat after the start of the last
// one, and is published as failed if it takes longer than patience.
const (
	Beat     = 200 * time.Millisecond
	patience = fsm.Reuse - Beat

	// IdleBeat replaces Beat in a configuration without limits, so that an idle daemon wakes the machine
	// less: then no request depends on an observation. Status shows it, and health compares two.
	IdleBeat = 2 * time.Second
)

// DefaultSustained is how long memory must stay over its limit before the runtime is replaced.
const DefaultSustained = 10 * time.Second

// Prober observes one process. The program uses *probe.Probe.
type Prober interface {
	Observe(ctx context.Context, pid int, now time.Time) (messages.Observation, error)
	Close()
}

// Deps are the views, limits and mailbox that the composition root passes in.
type Deps struct {
	Process     *actorkit.Watch[messages.ProcessView] // gives the process id
	Snapshot    *actorkit.Watch[messages.Snapshot]    // gives the launch
	Lifecycle   chan<- messages.ToLifecycle
	Observation *actorkit.Watch[messages.Observation]
	// NewProbe returns the probe of one Serve; nil means probe.New.
	NewProbe  func() Prober
	Limits    messages.ResourceLimits
	Sustained time.Duration // zero means DefaultSustained
	Log       *zap.Logger
}

// Actor is a suture.Service.
type Actor struct{ Deps }

// New makes the actor. Nothing starts before Serve.
func New(d Deps) *Actor {
	if d.Sustained == 0 {
		d.Sustained = DefaultSustained
	}
	if d.NewProbe == nil {
		d.NewProbe = func() Prober { return probe.New() }
	}
	return &Actor{d}
}

func (a *Actor) String() string { return string(messages.ActorResources) }

// Serve runs the actor until ctx ends.
func (a *Actor) Serve(ctx context.Context) error {
	a.Observation.Set(messages.Observation{})
	defer a.Observation.Set(messages.Observation{}) // the gate must not use an observation of an actor that has ended
	if err := actorkit.Tell[messages.ToLifecycle](ctx, a.Lifecycle, messages.ActorStarted{Actor: messages.ActorResources}); err != nil {
		return ctx.Err()
	}
	observer := newObserver(a.NewProbe())
	defer observer.close()
	var watch excess
	for {
		view, changed := a.Process.Next()
		if view.PID == 0 {
			watch = excess{}
			a.Observation.Set(messages.Observation{})
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			}
			continue
		}
		seen := a.observe(ctx, observer, view.PID)
		a.Observation.Set(seen)
		launch := a.Snapshot.Get().Launch
		if watch.add(seen, launch, a.Limits.ResidentBytes) >= a.Sustained {
			watch.since = seen.At // repeat the report while it lasts: lifecycle may have been restarting
			a.Log.Warn("memory over its limit", zap.String("reason", string(messages.ReasonRAMOverLimit)),
				zap.Int64("residentBytes", seen.ResidentBytes), zap.Int64("limit", a.Limits.ResidentBytes))
			if err := actorkit.Tell[messages.ToLifecycle](ctx, a.Lifecycle, messages.MemoryExceeded{Launch: launch}); err != nil {
				return ctx.Err()
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-time.After(time.Until(seen.At.Add(a.beat(seen)))):
		}
	}
}

// beat is the time from one observation to the next. After a failed one, which denies requests (P3), it is
// short.
func (a *Actor) beat(seen messages.Observation) time.Duration {
	if a.Limits == (messages.ResourceLimits{}) && !seen.Failed {
		return IdleBeat
	}
	return Beat
}

// observe publishes one observation. A failed one is published as failed, and logged if the last one was not.
func (a *Actor) observe(ctx context.Context, o *observer, pid int) messages.Observation {
	seen, err := o.observe(ctx, pid)
	if err != nil {
		seen = messages.Observation{At: time.Now(), PID: pid, Failed: true}
		if !a.Observation.Get().Failed {
			a.Log.Warn("observation failed", zap.String("reason", string(messages.ReasonProbeFailed)), zap.Error(err))
		}
	}
	return seen
}

// excess measures how long one launch has been over its memory limit without interruption.
type excess struct {
	launch messages.Launch
	since  time.Time
}

// add records an observation and returns the time over the limit so far. A failed observation neither ends
// nor extends it.
func (e *excess) add(seen messages.Observation, launch messages.Launch, limit int64) time.Duration {
	if launch != e.launch {
		*e = excess{launch: launch}
	}
	switch {
	case seen.Failed:
		return 0
	case limit <= 0 || seen.ResidentBytes <= limit:
		*e = excess{launch: launch}
		return 0
	case e.since.IsZero():
		e.since = seen.At
	}
	return seen.At.Sub(e.since)
}
