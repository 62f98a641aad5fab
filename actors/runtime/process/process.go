// Package process is the actor that spawns, supervises and kills the llama-server process: one child at a
// time, as the lifecycle actor orders, with every exit reported exactly once.
//
// The loop holds the state. Each launch runs in a goroutine of its own (launch.go), which spawns the child,
// waits until the back end answers, kills it and sends events to the loop. Messages to the lifecycle actor
// wait in an outbox, so that the loop answers even while that actor is busy.
package process

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"companion/actors/actorkit"
	"companion/adapters/gguf"
	"companion/adapters/runtime/spawn"
	"companion/messages"
)

// Defaults of Deps.
const (
	DefaultStartDeadline = 2 * time.Minute
	DefaultKillGrace     = 5 * time.Second
)

// Deps are the mailboxes, settings and loggers that the composition root passes in.
type Deps struct {
	Inbox     <-chan messages.ToProcess
	Lifecycle chan<- messages.ToLifecycle
	View      *actorkit.Watch[messages.ProcessView]

	RunDir      string // private folder for the sockets
	RecordPath  string // in a private folder: the identity of the child (R7)
	OptionsPath string // in a private folder: what the runtimes listed; empty: they are asked in each daemon
	Context     int    // tokens of each request; 0: what the model was trained for, as far as memory allows
	Threads     int    // 0: the physical cores that the daemon may use
	MaxInFlight int
	MemoryLimit int64         // bytes, 0: none
	Speculate   bool          // speculative decoding where the runtime can (R12)
	PromptCache int64         // bytes; negative: a share of the free memory (R13)
	SleepAfter  time.Duration // 0: never
	Background  bool          // the user's other programs come first
	GPU         bool
	Sandbox     spawn.Mode
	// StartDeadline bounds the time from Spawn to the first healthy answer (A3), KillGrace the time from
	// SIGTERM to SIGKILL (R6). Zero means the default.
	StartDeadline, KillGrace time.Duration

	Log    *zap.Logger // the actor's own
	Output *zap.Logger // the runtime's output, logged under a separate actor name (R8)
}

// Actor is a suture.Service.
type Actor struct {
	Deps
	health func(context.Context, messages.BackEnd, int) error // spawn.Health, except in tests

	headersMu sync.Mutex
	headers   map[[32]byte]gguf.Header // by the digest of the model
	sharing   map[[32]byte]bool        // by the digest of the runtime

	mu       sync.Mutex
	features map[string]spawn.Features // of the pinned runtimes that were asked; nil: not read yet; guarded by mu
}

// New makes the actor. Serve starts it.
func New(d Deps) *Actor {
	if d.StartDeadline == 0 {
		d.StartDeadline = DefaultStartDeadline
	}
	if d.KillGrace == 0 {
		d.KillGrace = DefaultKillGrace
	}
	return &Actor{Deps: d, health: spawn.Health, headers: map[[32]byte]gguf.Header{}, sharing: map[[32]byte]bool{}}
}

func (a *Actor) String() string { return string(messages.ActorProcess) }

// Serve runs the actor until ctx ends. When it returns or panics, no child is left.
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
	if errors.Is(err, spawn.ErrUnended) {
		a.Log.Warn("runtime of an earlier daemon does not end: SIGKILL is pending", zap.Error(err))
	} else if err != nil {
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

// loop is the state of one Serve. Only its goroutine uses it.
type loop struct {
	actor    *Actor
	launches *actorkit.Group
	events   chan event

	outbox  []messages.ToLifecycle
	current *launch
	next    *messages.Spawn // waits for current to end
	asked   bool            // a ConfirmProcess has not been answered yet
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
	case messages.CheckModel:
		l.checkModel(m)
	case messages.ConfirmProcess:
		// While a launch is being spawned, RuntimeStarted answers; while one is being killed, RuntimeAbsent
		// does after its exit, unless another launch follows.
		if l.next != nil || l.current != nil && (l.current.started == nil || l.current.killRequested()) {
			l.asked = true
			return
		}
		l.tell(confirm(l.current)...)
	}
}

// checkModel ends the launch if the file of its model has changed: a sleeping model reads it again when it wakes (M9).
func (l *loop) checkModel(m messages.CheckModel) {
	c := l.current
	if c == nil || c.spawn.Launch != m.Launch || c.killRequested() {
		return
	}
	if err := spawn.SameModel(c.spawn.Model); err != nil {
		l.actor.Log.Warn("model changed while it was asleep", zap.String("reason", string(reasonOf(err))), zap.Error(err))
		l.tell(lost(c.spawn, err)...)
		c.requestKill(0)
	}
}

// happened handles an event of the current launch.
func (l *loop) happened(ctx context.Context, e event) {
	l.tell(l.actor.handle(l.current, e)...)
	switch {
	case e.started != nil:
		l.asked = l.asked && l.current.killRequested()
	case e.exited != nil:
		l.ended(ctx)
	}
}

// spawn starts the launch, or queues it and kills the current one without grace: a lifecycle actor that asks
// for a newer launch no longer knows of the current one.
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

// notStarted answers a Spawn that is older than the current launch, or that a newer Spawn or its own Kill
// has cancelled before it began.
func notStarted(l messages.Launch, requested bool) messages.RuntimeExited {
	return messages.RuntimeExited{Launch: l, Requested: requested, Exit: messages.ExitReport{
		At: time.Now(), Code: -1, Reason: messages.ReasonSpawnFailed,
		LastLines: []string{"another launch took its place"},
	}}
}

// confirm returns the answer to ConfirmProcess. A launch that is being spawned will report by itself.
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

// handle processes an event and returns the messages for the lifecycle actor.
func (a *Actor) handle(l *launch, e event) []messages.ToLifecycle {
	switch {
	case e.started != nil:
		l.started = &messages.RuntimeStarted{
			Launch: l.spawn.Launch, PID: e.started.Handle.PID(), Model: l.spawn.Model.SHA256, Runtime: l.spawn.Runtime.SHA256,
		}
		a.View.Set(messages.ProcessView{
			Name: l.spawn.Runtime.Name, Version: l.spawn.Runtime.Version, PID: l.started.PID,
			BackEnd: e.started.BackEnd.Network, Pinned: l.spawn.Runtime.Pinned, Own: l.spawn.Runtime.Own,
			Sandbox: e.started.Sandbox, StartedAt: time.Now(), ExpectedBytes: e.expected,
		})
		a.Log.Info("runtime started", zap.Int("pid", l.started.PID), zap.String("backEnd", e.started.BackEnd.Network),
			zap.Int("landlock", e.started.Sandbox.Landlock), zap.Bool("seccomp", e.started.Sandbox.Seccomp),
			zap.Bool("netns", e.started.Sandbox.Netns), zap.Int64("expectedBytes", e.expected))
		return []messages.ToLifecycle{*l.started}
	case e.up != nil:
		l.up = e.up
		a.Log.Info("back end answers")
		return []messages.ToLifecycle{*l.up}
	case e.ending && !l.killRequested():
		// RuntimeExited follows after the kernel has freed the memory of the runtime.
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

// spec translates m for the spawn package.
func (a *Actor) spec(m messages.Spawn) spawn.Spec {
	return spawn.Spec{
		Model: m.Model, Runtime: m.Runtime,
		RunDir: a.RunDir, RecordPath: a.RecordPath,
		Context: a.Context, Threads: a.threads(), MaxInFlight: a.MaxInFlight,
		MemoryLimit: a.MemoryLimit, GPU: a.GPU, Sandbox: a.Sandbox,
		Speculate: a.Speculate && !m.Plain, PromptCache: a.promptCache(m.Model), SleepAfter: a.SleepAfter, Background: a.Background,
		Line: a.outputLogger(),
	}
}

// Limits of the runtime's output in the log, in lines per second and as the burst at a start, so that a flood
// does not displace everything else.
const (
	linesPerSecond = 50
	linesAtOnce    = 500
)

// outputLogger returns a function that logs the lines of one launch and counts the dropped ones. The function
// must not be called concurrently.
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

// lost translates an error of spawn into the messages about an artifact that differs from the verified one.
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
