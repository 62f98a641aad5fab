// Package frontdoor is the actor that serves the guarded OpenAI endpoint on loopback. It owns the listener,
// the tokens, the rate windows and the admission queue (L1–L11, A6). Every request passes the guard, the
// route table, the gate, the check of its body and the quarantine, and then goes to the runtime (handler.go).
// No mailbox is on that path: handlers read the lifecycle actor's snapshot and the last observation, and take
// a slot of the admission queue.
//
// The actor tells the lifecycle actor when it is bound and when it is not, gets the loopback token from
// custody and the probe token from health, and refuses every request until it has them.
package frontdoor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/door/guard"
	"companion/adapters/door/http1"
	"companion/adapters/door/loopback"
	"companion/adapters/door/relay"
	"companion/messages"
)

// Bounds are the configurable limits of L3, L6, L9 and P3. Start with DefaultBounds: a zero is a limit of
// zero, which refuses everything.
type Bounds struct {
	RatePerMinute int // of the windows of failures and of admitted requests
	MaxInFlight   int
	QueueBound    int
	QueueTimeout  time.Duration
	Resources     messages.ResourceLimits

	HeadBytes   int
	HeadTime    time.Duration
	BodyBytes   int64
	BodyTime    time.Duration
	BodyMemory  int64 // bytes that all large bodies hold at once
	IdleTime    time.Duration
	Connections int
	WriteStall  time.Duration // for a client to take an event, or the whole of another answer
	KeepAlive   time.Duration // silence in a stream until a comment is sent
	CloseTime   time.Duration // for running requests when the actor ends
	EndTime     time.Duration // for the runtime to end its work for a client that left

	DropUnknown bool // leave unknown fields of a body out, which are refused otherwise (L12)
}

// DefaultBounds returns the defaults of the contract and of cli.md.
func DefaultBounds() Bounds {
	return Bounds{
		RatePerMinute: 600, MaxInFlight: 2, QueueBound: 16, QueueTimeout: 10 * time.Minute,
		HeadBytes: 16 << 10, HeadTime: 10 * time.Second, BodyBytes: 16 << 20, BodyTime: 30 * time.Second, BodyMemory: 256 << 20,
		IdleTime: 2 * time.Minute, Connections: 1024, WriteStall: 25 * time.Second, KeepAlive: 15 * time.Second, CloseTime: time.Second,
		EndTime: suspicionTime, // a runtime that has not noticed by then hangs, and health ends it
	}
}

// probesPerMinute limits the health probe's requests (A4); it is not configurable. It is more than the
// shortest beat (100 ms) and the retries of a start (80 ms) need together.
const probesPerMinute = 2000

// Deps is what the composition root gives. Inbox outlives restarts of the actor.
type Deps struct {
	Address      string // "127.0.0.1" or "[::1]"
	Port         uint16 // 0: of the system's choice (L14)
	EndpointPath string // of the endpoint file; empty means that none is written
	TokensPath   string // of the application tokens (L14); empty means that there are none
	Bounds       Bounds

	Inbox     <-chan messages.ToFrontDoor
	Lifecycle chan<- messages.ToLifecycle
	Custody   chan<- messages.LoopbackRequest
	Health    chan<- messages.ToHealth // gets DeliverProbeToken only

	Quarantine  *Quarantine // shared with the lifecycle actor; nil means a new one
	Snapshot    *actorkit.Watch[messages.Snapshot]
	Observation *actorkit.Watch[messages.Observation]
	Log         *zap.Logger
}

// Actor is the front door. View is safe for concurrent use; the rest belongs to Serve.
type Actor struct {
	deps  Deps
	stats stats
	life  atomic.Pointer[life]
	port  uint16 // of the last run
}

// New returns the actor. It listens when it serves.
func New(d Deps) *Actor {
	if d.Quarantine == nil {
		d.Quarantine = NewQuarantine()
	}
	return &Actor{deps: d}
}

func (a *Actor) String() string { return string(messages.ActorFrontDoor) }

// View returns the counts for status and metrics. It does not block.
func (a *Actor) View() messages.DoorView {
	v := messages.DoorView{MaxInFlight: a.deps.Bounds.MaxInFlight, QueueBound: a.deps.Bounds.QueueBound}
	a.stats.fill(&v)
	v.EndedRuntime = a.deps.Quarantine.refused()
	if l := a.life.Load(); l != nil {
		counts := l.door.admission.now()
		v.BaseURL, v.InFlight, v.Queued = l.baseURL, counts.InFlight, counts.Queued+int(l.door.held.count.Load())
		v.Applications = l.door.callers.Load().views()
	}
	return v
}

// life is the state of one run of Serve. Its loop owns the tokens.
type life struct {
	deps        *Deps
	door        *door
	server      *http1.Server
	endRequests context.CancelCauseFunc
	baseURL     string
	user, probe messages.Secret
	granted     []*grant       // the application tokens
	tasks       sync.WaitGroup // goroutines besides the loop
}

// Serve binds the listener and serves until ctx ends. It returns when every handler has returned.
func (a *Actor) Serve(ctx context.Context) error {
	if err := actorkit.Tell[messages.ToLifecycle](ctx, a.deps.Lifecycle, messages.ActorStarted{Actor: messages.ActorFrontDoor}); err != nil {
		return ctx.Err()
	}
	raw, bound, err := a.listen(ctx)
	if err != nil {
		a.deps.Log.Error("front door not bound", zap.String("reason", string(messages.ReasonBindFailed)), zap.Error(err))
		_ = actorkit.Tell[messages.ToLifecycle](ctx, a.deps.Lifecycle, messages.DoorLost{Reason: messages.ReasonBindFailed})
		return fmt.Errorf("starting the front door: %w", err)
	}
	a.port = bound.Port()
	l := a.open(raw, bound)
	a.life.Store(l)
	defer a.life.Store(nil)
	return l.run(ctx)
}

// listen binds the fixed port if there is one, and never another one then.
func (a *Actor) listen(ctx context.Context) (net.Listener, netip.AddrPort, error) {
	if a.deps.Port != 0 {
		return loopback.ListenAt(ctx, a.deps.Address, a.deps.Port)
	}
	return loopback.Listen(ctx, a.deps.Address, a.port)
}

// open builds the state around the listener.
func (a *Actor) open(raw net.Listener, bound netip.AddrPort) *life {
	b := a.deps.Bounds
	l := &life{deps: &a.deps, baseURL: loopback.BaseURL(bound)}
	l.door = &door{
		bounds: b, snapshot: a.deps.Snapshot, observation: a.deps.Observation, log: a.deps.Log, quarantine: a.deps.Quarantine, began: time.Now(), stats: &a.stats,
		origin: strings.TrimSuffix(l.baseURL, "/v1"),
		hosts:  guard.Hosts(bound.Addr().String(), fmt.Sprint(bound.Port())),
		relay:  relay.New(relay.Options{KeepAlive: b.KeepAlive, IdleConns: b.MaxInFlight + 1, ErrorEvent: errorEvent}),
		windows: guard.Windows{
			Failures: guard.NewWindow(b.RatePerMinute, int64(time.Minute)),
			Admitted: guard.NewWindow(b.RatePerMinute, int64(time.Minute)),
			Probe:    guard.NewWindow(probesPerMinute, int64(time.Minute)),
		},
	}
	l.door.memory.bound = b.BodyMemory
	l.door.checks = newChecks(b.BodyBytes)
	l.door.admission.counts.MaxInFlight, l.door.admission.counts.QueueBound = b.MaxInFlight, b.QueueBound
	l.door.refusals.log = a.deps.Log
	l.loadApplications() // a failure is logged
	l.useTokens()
	// Requests outlive the loop by CloseTime. Their contexts end with a cause of their own, so that they are
	// not mistaken for requests whose client has left.
	requests, end := context.WithCancelCause(context.Background())
	l.endRequests, l.door.closing = end, requests
	l.server = http1.New(requests, raw, l.door, b.Connections, http1.Limits{
		HeadBytes: b.HeadBytes, HeadTime: b.HeadTime, BodyTime: b.BodyTime, IdleTime: b.IdleTime, WriteStall: b.WriteStall,
	})
	l.door.unfit = func(ctx context.Context, launch messages.Launch, why string) {
		_ = actorkit.Tell[messages.ToLifecycle](ctx, a.deps.Lifecycle, messages.SpeculationUnfit{Launch: launch, Why: why})
	}
	l.door.guardPanicked = func(value any) { l.door.panicked("guard", value) }
	l.server.Panicked = func(value any) { l.door.panicked("connection", value) }
	return l
}

func (l *life) useTokens() { l.door.callers.Store(newCallers(l.user, l.probe, l.granted)) }

var errClosing = errors.New("the front door is closing")

// tokenPatience is how long connections wait in the listener's backlog for the loopback token. Otherwise a
// client with the right token would be refused after a restart of this actor. A keychain that takes longer is
// locked or broken, and clients must be told.
const tokenPatience = 500 * time.Millisecond

// run is the actor's loop.
func (l *life) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer l.close(cancel)
	served := make(chan error, 1)
	begin := sync.OnceFunc(func() { l.tasks.Go(func() { served <- l.server.Serve() }) })
	patience := time.NewTimer(tokenPatience)
	defer patience.Stop()
	l.announce(ctx)
	l.deps.Log.Info("front door bound", zap.String("baseURL", l.baseURL))
	l.recordEndpoint()
	for {
		s, changed := l.deps.Snapshot.Next()
		if s.BackEnd != (messages.BackEnd{}) {
			l.door.relay.Use(relay.Target{Launch: s.Launch, BackEnd: s.BackEnd})
		}
		select {
		case m := <-l.deps.Inbox:
			l.handle(ctx, m)
			if !l.user.IsZero() {
				begin()
			}
		case <-patience.C:
			begin()
		case <-changed:
		case err := <-served:
			l.deps.Log.Error("front door lost", zap.String("reason", string(messages.ReasonBindFailed)))
			_ = actorkit.Tell[messages.ToLifecycle](ctx, l.deps.Lifecycle, messages.DoorLost{Reason: messages.ReasonBindFailed})
			return fmt.Errorf("serving the front door: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// announce tells the other actors, in goroutines of its own: an actor that is restarting must not block the
// loop.
func (l *life) announce(ctx context.Context) {
	l.sayBound(ctx)
	l.tasks.Go(func() {
		_ = actorkit.Tell[messages.LoopbackRequest](ctx, l.deps.Custody, messages.DeliverLoopbackToken{})
	})
	l.tasks.Go(func() {
		_ = actorkit.Tell[messages.ToHealth](ctx, l.deps.Health, messages.DeliverProbeToken{})
	})
}

func (l *life) sayBound(ctx context.Context) {
	l.tasks.Go(func() {
		_ = actorkit.Tell[messages.ToLifecycle](ctx, l.deps.Lifecycle, messages.DoorBound{BaseURL: l.baseURL})
	})
}

func (l *life) handle(ctx context.Context, m messages.ToFrontDoor) {
	switch m := m.(type) {
	case messages.UseLoopbackToken:
		if l.user.IsZero() { // custody may send it twice
			l.deps.Log.Info("loopback token in use")
		}
		l.user = m.Token
		l.useTokens()
	case messages.DropLoopbackToken:
		if !l.user.IsZero() {
			l.deps.Log.Info("loopback token dropped")
		}
		l.user = messages.Secret{}
		l.useTokens()
	case messages.UseProbeToken:
		l.probe = m.Token
		l.useTokens()
	case messages.ConfirmFrontDoor:
		l.sayBound(ctx)
	case messages.ConfirmConnection:
		l.tasks.Go(func() { m.Reply <- l.serves(ctx, m.Client, m.Server) }) // has capacity one
	case messages.ReloadApplicationTokens:
		reason := l.loadApplications()
		l.useTokens()
		m.Reply <- reason // has capacity one
	case messages.Drain:
		l.tasks.Go(func() { l.drain(ctx, m) })
	}
}

// The limits of serves: a connection may still be in the listener's backlog.
const (
	confirmWithin = 2 * time.Second
	confirmEvery  = 5 * time.Millisecond
)

// serves reports whether a client's connection to server is one of the front door's.
func (l *life) serves(ctx context.Context, client, server netip.AddrPort) bool {
	ctx, cancel := context.WithTimeout(ctx, confirmWithin)
	defer cancel()
	look := time.NewTicker(confirmEvery)
	defer look.Stop()
	for !l.server.Serves(client, server) {
		select {
		case <-ctx.Done():
			return false
		case <-look.C:
		}
	}
	return true
}

// drain replies when no request is in the runtime, or at the deadline (A7).
func (l *life) drain(ctx context.Context, m messages.Drain) {
	ctx, cancel := context.WithDeadline(ctx, m.Deadline)
	defer cancel()
	select {
	case <-l.door.admission.empty():
	case <-ctx.Done():
	}
	m.Reply <- l.door.admission.now().InFlight // has capacity one
}

// recordEndpoint writes the endpoint file. It only logs a failure (L2).
func (l *life) recordEndpoint() {
	if l.deps.EndpointPath == "" {
		return
	}
	err := loopback.WriteEndpoint(l.deps.EndpointPath, loopback.Endpoint{BaseURL: l.baseURL, PID: os.Getpid(), StartedAt: l.door.began})
	if err != nil {
		l.deps.Log.Error("endpoint file not written", zap.Error(err))
	}
}

// close ends the run: running requests get CloseTime, then every connection is closed.
func (l *life) close(cancel context.CancelFunc) {
	if l.deps.EndpointPath != "" {
		if err := loopback.RemoveEndpoint(l.deps.EndpointPath); err != nil {
			l.deps.Log.Error("endpoint file not removed", zap.Error(err))
		}
	}
	select { // without waiting; after a crash ActorStarted has the same effect
	case l.deps.Lifecycle <- messages.DoorLost{Reason: messages.ReasonNotReady}:
	default:
	}
	cancel()
	l.endRequests(errClosing)
	grace, stop := context.WithTimeout(context.Background(), l.deps.Bounds.CloseTime)
	defer stop()
	l.server.Shutdown(grace)
	l.door.refusals.close()
	l.tasks.Wait()
	l.door.relay.Close()
}
