// Package process is the actor that owns the runtime process: one child at a time, spawned and
// killed on the lifecycle actor's word, and every exit reported exactly once.
//
// The loop holds the state. Each launch runs beside it in a goroutine of its own
// (launch.go), which spawns, waits until the back end answers, kills and reports; what happens comes
// back as an event. Words to the lifecycle actor wait in an outbox, so that the loop answers even
// while that actor is busy.
package process

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"companion/actors/actorkit"
	"companion/adapters/runtime/spawn"
	"companion/messages"
)

// Defaults of Deps.
const (
	DefaultStartDeadline = 2 * time.Minute
	DefaultKillGrace     = 5 * time.Second
)

// Deps is what the actor is given.
type Deps struct {
	Inbox     <-chan messages.ToProcess
	Lifecycle chan<- messages.ToLifecycle
	View      *actorkit.Watch[messages.ProcessView]

	RunDir      string // private folder for the sockets
	RecordPath  string // in a private folder: the identity of the child (R7)
	Context     int    // tokens of each request
	Threads     int    // 0: the runtime's choice
	MaxInFlight int
	MemoryLimit int64 // bytes, 0: none
	GPU         bool
	Sandbox     spawn.Mode
	// StartDeadline bounds the time from Spawn to the first healthy answer (A3), KillGrace the time
	// from the polite signal to the hard one (R6); zero means the default.
	StartDeadline, KillGrace time.Duration

	Log    *zap.Logger // the actor's own
	Output *zap.Logger // the runtime's lines, as an actor of their own (R8)
}

// Actor is a suture.Service.
type Actor struct {
	Deps
	health func(context.Context, messages.BackEnd, int) error // spawn.Health, but for tests
}

// New makes the actor. Nothing starts before Serve.
func New(d Deps) *Actor {
	if d.StartDeadline == 0 {
		d.StartDeadline = DefaultStartDeadline
	}
	if d.KillGrace == 0 {
		d.KillGrace = DefaultKillGrace
	}
	return &Actor{Deps: d, health: spawn.Health}
}

func (a *Actor) String() string { return string(messages.ActorProcess) }

// Serve runs the actor until ctx ends. When it returns, or panics, no child is left.
func (a *Actor) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	launches := actorkit.NewGroup()
	defer a.View.Set(messages.ProcessView{})
	defer launches.Wait()
	defer cancel()

	a.View.Set(messages.ProcessView{})
	if err := actorkit.Tell[messages.ToLifecycle](ctx, a.Lifecycle, messages.ActorStarted{Actor: messages.ActorProcess}); err != nil {
		return ctx.Err()
	}
	ended, err := spawn.Reclaim(ctx, a.RecordPath, a.RunDir)
	if err != nil {
		return fmt.Errorf("reclaiming the runtime of an earlier daemon: %w", err)
	}
	if ended {
		a.Log.Warn("runtime of an earlier daemon ended")
	}

	l := loop{actor: a, launches: launches, events: make(chan event)}
	for {
		var send chan<- messages.ToLifecycle
		var word messages.ToLifecycle
		if len(l.outbox) > 0 {
			send, word = a.Lifecycle, l.outbox[0]
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case p := <-launches.Panicked():
			panic(p)
		case send <- word:
			l.outbox = l.outbox[1:]
		case m := <-a.Inbox:
			l.take(ctx, m)
		case e := <-l.events:
			l.happened(ctx, e)
		}
	}
}

// loop is the state of one Serve; nobody else sees it.
type loop struct {
	actor    *Actor
	launches *actorkit.Group
	events   chan event

	outbox  []messages.ToLifecycle
	current *launch
	next    *messages.Spawn // waits for current to end
	asked   bool            // a ConfirmProcess waits for its answer
}

func (l *loop) tell(words ...messages.ToLifecycle) { l.outbox = append(l.outbox, words...) }

func (l *loop) take(ctx context.Context, m messages.ToProcess) {
	switch m := m.(type) {
	case messages.Spawn:
		l.spawn(ctx, m)
	case messages.Kill:
		switch {
		case l.next != nil && l.next.Launch == m.Launch:
			l.tell(notStarted(m.Launch, true))
			l.next = nil
		case l.current != nil && l.current.spawn.Launch == m.Launch:
			l.current.requestKill(l.actor.KillGrace)
		case l.next == nil && l.current == nil:
			l.tell(messages.RuntimeAbsent(m))
		case l.next == nil:
			l.tell(confirm(l.current)...)
		}
	case messages.ConfirmProcess:
		// A launch that is not there yet answers when it is, and one that is being ended when it has
		// ended and nothing follows it.
		if l.next != nil || l.current != nil && (l.current.started == nil || l.current.killRequested()) {
			l.asked = true
			return
		}
		l.tell(confirm(l.current)...)
	}
}

// happened takes what the current launch reports.
func (l *loop) happened(ctx context.Context, e event) {
	l.tell(l.actor.handle(l.current, e)...)
	switch {
	case e.started != nil:
		l.asked = l.asked && l.current.killRequested()
	case e.exited != nil:
		l.ended(ctx)
	}
}

// spawn begins the launch, or lets it wait until the one that runs has ended: at once, because a
// sender who starts a newer one has lost sight of it.
func (l *loop) spawn(ctx context.Context, m messages.Spawn) {
	switch {
	case l.current == nil:
		l.begin(ctx, m)
	case m.Launch <= l.current.spawn.Launch || l.next != nil && m.Launch <= l.next.Launch:
		l.tell(notStarted(m.Launch, false))
	default:
		if l.next != nil {
			l.tell(notStarted(l.next.Launch, false))
		}
		l.next = &m
		l.current.requestKill(0)
	}
}

func (l *loop) begin(ctx context.Context, m messages.Spawn) {
	current := newLaunch(m)
	l.current = current
	l.launches.Go(func() { l.actor.run(ctx, current, l.launches, l.events) })
}

func (l *loop) ended(ctx context.Context) {
	l.current = nil
	switch {
	case l.next != nil:
		l.begin(ctx, *l.next)
		l.next = nil
	case l.asked:
		l.asked = false
		l.tell(messages.RuntimeAbsent{})
	}
}

// notStarted answers a Spawn that is out of date, or was overtaken by a newer one or by its Kill
// before it began.
func notStarted(l messages.Launch, requested bool) messages.RuntimeExited {
	return messages.RuntimeExited{Launch: l, Requested: requested, Exit: messages.ExitReport{
		At: time.Now(), Code: -1, Reason: messages.ReasonSpawnFailed,
		LastLines: []string{"another launch took its place"},
	}}
}

// confirm says what runs. A launch that is being spawned says so by itself, soon.
func confirm(l *launch) []messages.ToLifecycle {
	switch {
	case l == nil:
		return []messages.ToLifecycle{messages.RuntimeAbsent{}}
	case l.started == nil:
		return nil
	case l.up == nil:
		return []messages.ToLifecycle{*l.started}
	default:
		return []messages.ToLifecycle{*l.started, *l.up}
	}
}

// handle takes what a launch reports, and returns what the lifecycle actor must hear.
func (a *Actor) handle(l *launch, e event) []messages.ToLifecycle {
	switch {
	case e.started != nil:
		l.started = &messages.RuntimeStarted{
			Launch: l.spawn.Launch, PID: e.started.Handle.PID(), Model: l.spawn.Model.SHA256, Runtime: l.spawn.Runtime.SHA256,
		}
		a.View.Set(messages.ProcessView{
			Name: l.spawn.Runtime.Name, Version: l.spawn.Runtime.Version, PID: l.started.PID,
			BackEnd: e.started.BackEnd.Network, Pinned: l.spawn.Runtime.Pinned,
			Sandbox: e.started.Sandbox, StartedAt: time.Now(),
		})
		a.Log.Info("runtime started", zap.Int("pid", l.started.PID), zap.String("backEnd", e.started.BackEnd.Network),
			zap.Int("landlock", e.started.Sandbox.Landlock), zap.Bool("seccomp", e.started.Sandbox.Seccomp))
		return []messages.ToLifecycle{*l.started}
	case e.up != nil:
		l.up = e.up
		a.Log.Info("back end answers")
		return []messages.ToLifecycle{*l.up}
	case e.ending && !l.killRequested():
		// The exit itself is told when the memory of the runtime has been freed.
		return []messages.ToLifecycle{messages.HealthFailed{Launch: l.spawn.Launch, Reason: messages.ReasonProcessExited}}
	case e.exited != nil:
		a.View.Set(messages.ProcessView{})
		exit := e.exited.Exit
		a.Log.Info("runtime exited", zap.String("reason", string(exit.Reason)), zap.Int("code", exit.Code),
			zap.String("signal", exit.Signal), zap.Bool("requested", e.exited.Requested))
		return append(e.lost, *e.exited)
	default:
		return nil
	}
}

// spec is the start that m asks for.
func (a *Actor) spec(m messages.Spawn) spawn.Spec {
	return spawn.Spec{
		Model: m.Model, Runtime: m.Runtime,
		RunDir: a.RunDir, RecordPath: a.RecordPath,
		Context: a.Context, Threads: a.Threads, MaxInFlight: a.MaxInFlight,
		MemoryLimit: a.MemoryLimit, GPU: a.GPU, Sandbox: a.Sandbox,
		Line: a.outputLogger(),
	}
}

// Lines per second of the runtime's output that reach the log, and the burst of a start: a flood
// must not push everything else out of it.
const (
	linesPerSecond = 50
	linesAtOnce    = 500
)

// outputLogger logs the lines of one launch, and how many a flood cost. It is called by one goroutine
// at a time.
func (a *Actor) outputLogger() func(string) {
	limiter := rate.NewLimiter(linesPerSecond, linesAtOnce)
	dropped := 0
	return func(line string) {
		switch {
		case !limiter.Allow():
			dropped++
		case dropped > 0:
			a.Output.Debug(line, zap.Int("dropped", dropped))
			dropped = 0
		default:
			a.Output.Debug(line)
		}
	}
}

// lost translates a refusal of spawn into what the lifecycle actor must know about the artifact.
func lost(m messages.Spawn, err error) []messages.ToLifecycle {
	var refusal *spawn.Error
	if !errors.As(err, &refusal) || refusal.Artifact == "" {
		return nil
	}
	if errors.Is(err, spawn.ErrIdentityChanged) {
		return []messages.ToLifecycle{messages.IdentityChanged{Launch: m.Launch, Artifact: refusal.Artifact}}
	}
	digest := m.Model.SHA256
	if refusal.Artifact == m.Runtime.Name {
		digest = m.Runtime.SHA256
	}
	return []messages.ToLifecycle{messages.IntegrityLost{Artifact: refusal.Artifact, SHA256: digest, Reason: refusal.Reason}}
}
