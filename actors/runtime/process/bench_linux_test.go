package process

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"companion/actors/actorkit"
	"companion/adapters/runtime/spawn"
	"companion/adapters/runtime/spawn/spawntest"
	"companion/messages"
)

func TestMain(m *testing.M) { spawntest.Main(m) }

// bench is an actor with real children; the test holds the lifecycle actor's mailbox.
type bench struct {
	t         *testing.T
	deps      Deps
	mailbox   chan messages.ToProcess
	lifecycle chan messages.ToLifecycle
	stop      context.CancelFunc
	served    chan error
}

func newBench(t *testing.T) *bench {
	dir := spawntest.Dir(t)
	b := &bench{t: t, mailbox: make(chan messages.ToProcess, 8), lifecycle: make(chan messages.ToLifecycle, 64)}
	b.deps = Deps{
		Inbox: b.mailbox, Lifecycle: b.lifecycle, View: actorkit.NewWatch(messages.ProcessView{}),
		RunDir: dir, RecordPath: filepath.Join(dir, "runtime.json"),
		Context: 512, MaxInFlight: 1, Sandbox: spawn.Require,
		StartDeadline: 20 * time.Second, KillGrace: 2 * time.Second,
		Log: zaptest.NewLogger(t), Output: zap.NewNop(),
	}
	return b
}

func (b *bench) serve() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	b.stop, b.served = cancel, make(chan error, 1)
	actor := New(b.deps)
	go func() { b.served <- actor.Serve(ctx) }()
	b.t.Cleanup(b.end)
	expect[messages.ActorStarted](b)
}

func (b *bench) end() {
	b.stop()
	if b.served != nil {
		if err := <-b.served; !errors.Is(err, context.Canceled) {
			b.t.Errorf("Serve: got %v, want %v", err, context.Canceled)
		}
		b.served = nil
	}
}

// expect takes the next message to the lifecycle actor, which must be an M.
func expect[M messages.ToLifecycle](b *bench) M {
	b.t.Helper()
	select {
	case m := <-b.lifecycle:
		want, ok := m.(M)
		if !ok {
			b.t.Fatalf("lifecycle got %T %+v, want %T", m, m, want)
		}
		return want
	case <-time.After(30 * time.Second):
		var want M
		b.t.Fatalf("lifecycle got no message, want %T", want)
		return want
	}
}

func (b *bench) quiet() {
	b.t.Helper()
	select {
	case m := <-b.lifecycle:
		b.t.Fatalf("lifecycle got %T %+v, want no message", m, m)
	case <-time.After(50 * time.Millisecond):
	}
}

func (b *bench) spawn(l messages.Launch, script map[string]any) messages.Spawn {
	b.t.Helper()
	m := messages.Spawn{Launch: l, Model: spawntest.Model(b.t, script), Runtime: spawntest.Runtime(b.t)}
	b.mailbox <- m
	return m
}
