package health

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/door/healthprobe"
	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	atRuntime = &healthprobe.Error{Reason: messages.ReasonUpstreamFailed, Fault: healthprobe.FaultRuntime}
	atDoor    = &healthprobe.Error{Reason: messages.ReasonProbeFailed, Fault: healthprobe.FaultDoor}
)

// fakeProber acts as front door and runtime. Each probe calls its function; nil means success.
type fakeProber struct {
	mu                     sync.Mutex
	door, models, generate func(context.Context) error
	tokens                 []time.Time // times of the token probes
	doors                  int
	answered               []time.Time // times of the front door's answers
	asleep                 func(context.Context) (bool, error)
	asked                  int // how often the prober was asked whether the model sleeps
}

func (p *fakeProber) set(door, models, generate func(context.Context) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.door, p.models, p.generate = door, models, generate
}

func (p *fakeProber) do(ctx context.Context, pick func() func(context.Context) error) error {
	p.mu.Lock()
	f := pick()
	p.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(ctx)
}

func (p *fakeProber) Door(ctx context.Context, _ string, _ messages.Secret, _ string) error {
	err := p.do(ctx, func() func(context.Context) error { p.doors++; return p.door })
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.answered = append(p.answered, time.Now())
	}
	return err
}

func (p *fakeProber) Models(ctx context.Context, _ messages.BackEnd, _ string) error {
	return p.do(ctx, func() func(context.Context) error { return p.models })
}

func (p *fakeProber) Generate(ctx context.Context, _ messages.BackEnd, _ messages.Model) error {
	return p.do(ctx, func() func(context.Context) error {
		p.tokens = append(p.tokens, time.Now())
		return p.generate
	})
}

func (p *fakeProber) Asleep(ctx context.Context, _ messages.BackEnd) (bool, error) {
	p.mu.Lock()
	p.asked++
	f := p.asleep
	p.mu.Unlock()
	if f == nil {
		return false, nil
	}
	return f(ctx)
}

func (p *fakeProber) sleeps(asleep bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asleep = func(context.Context) (bool, error) { return asleep, nil }
}

func (p *fakeProber) counts() (doors, tokens int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.doors, len(p.tokens)
}

// didAnswer reports whether the front door answered at that time, in the current round or in the one before.
func (p *fakeProber) didAnswer(at time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.answered[max(0, len(p.answered)-2):], at.Equal)
}

func failing(err error) func(context.Context) error {
	return func(context.Context) error { return err }
}

// silent acts as a paused runtime: it accepts the request and sends nothing.
func silent(ctx context.Context) error {
	<-ctx.Done()
	return &healthprobe.Error{Reason: messages.ReasonRuntimeUnavailable, Fault: healthprobe.FaultRuntime}
}

// harness is the actor with a fake prober and the mailboxes of the other actors, in a synctest bubble.
type harness struct {
	prober    *fakeProber
	inbox     chan messages.ToHealth
	lifecycle chan messages.ToLifecycle
	frontDoor chan messages.ToFrontDoor
	snapshot  *actorkit.Watch[messages.Snapshot]
	door      *actorkit.Watch[messages.DoorView]
	computes  atomic.Bool // the runtime uses the processor
	actor     *Actor
	began     time.Time
}

// withHarness runs test with the actor in a bubble, and waits until both have ended.
func withHarness(t *testing.T, test func(t *testing.T, h *harness)) { withHarnessDeps(t, Deps{}, test) }

// withHarnessDeps is withHarness with other dependencies, such as a GPU or other times.
func withHarnessDeps(t *testing.T, deps Deps, test func(t *testing.T, h *harness)) {
	synctest.Test(t, func(t *testing.T) {
		h := &harness{prober: &fakeProber{}, inbox: make(chan messages.ToHealth, 4),
			lifecycle: make(chan messages.ToLifecycle), frontDoor: make(chan messages.ToFrontDoor, 4),
			snapshot: actorkit.NewWatch(messages.Snapshot{State: messages.StateStopped}),
			door:     actorkit.NewWatch(messages.DoorView{}), began: time.Now()}
		deps.Inbox, deps.Lifecycle, deps.FrontDoor, deps.Snapshot = h.inbox, h.lifecycle, h.frontDoor, h.snapshot
		deps.Door, deps.Observation, deps.Prober, deps.Log = h.door.Get, h.observe, h.prober, zap.NewNop()
		h.actor = New(deps)
		stop := h.serve(t)
		defer stop()
		test(t, h)
	})
}

func (h *harness) observe() messages.Observation {
	now := messages.Observation{At: time.Now(), PID: 7, CPUTime: time.Second}
	if h.computes.Load() {
		now.CPUTime += time.Since(h.began)
	}
	return now
}

// serve starts an incarnation and takes its first message (A9).
func (h *harness) serve(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.actor.Serve(ctx) }()
	if first := <-h.lifecycle; first != (messages.ActorStarted{Actor: messages.ActorHealth}) {
		t.Fatalf("first message: got %#v, want ActorStarted of health", first)
	}
	return func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: got %v, want context.Canceled", err)
		}
	}
}

func (h *harness) become(state messages.State, launch messages.Launch) {
	h.snapshot.Set(messages.Snapshot{State: state, Launch: launch, BaseURL: "http://127.0.0.1:1/v1",
		BackEnd: messages.BackEnd{Network: "unix", Address: "/b.sock"}, Model: messages.Model{Name: "gemma"}})
}

// adopt publishes what a new lifecycle actor publishes about a runtime that was ready under its predecessor.
func (h *harness) adopt(launch messages.Launch) {
	s := h.snapshot.Get()
	s.State, s.Launch, s.Proven = messages.StateStarting, launch, launch
	h.snapshot.Set(s)
}

// ready brings the runtime up as the lifecycle actor does, and returns the time when it is ready.
func (h *harness) ready(t *testing.T, launch messages.Launch) time.Time {
	t.Helper()
	h.become(messages.StateStarting, launch)
	h.wantSuccess(t, launch, 0)
	h.become(messages.StateReady, launch)
	return time.Now()
}

// next returns the next message to the lifecycle actor within d, or nil.
func (h *harness) next(d time.Duration) messages.ToLifecycle {
	select {
	case m := <-h.lifecycle:
		return m
	case <-time.After(d):
		return nil
	}
}

func (h *harness) wantSuccess(t *testing.T, launch messages.Launch, within time.Duration) {
	t.Helper()
	began := time.Now()
	m, ok := h.next(within + time.Nanosecond).(messages.HealthSucceeded)
	if !ok || m.Launch != launch || !h.prober.didAnswer(m.At) {
		t.Fatalf("after %v: got %#v, want a success of launch %d", time.Since(began), m, launch)
	}
}

func (h *harness) wantFailure(t *testing.T, within time.Duration, reason messages.Reason, hung bool) {
	t.Helper()
	m := h.next(within + time.Nanosecond)
	if got, ok := m.(messages.HealthFailed); !ok || got.Reason != reason || got.Hung != hung {
		t.Fatalf("got %#v, want a failure for %s, hung %v", m, reason, hung)
	}
}

func (h *harness) wantSilence(t *testing.T, d time.Duration) {
	t.Helper()
	if m := h.next(d); m != nil {
		t.Fatalf("got %#v, want no message for %v", m, d)
	}
}
