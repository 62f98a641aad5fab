package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/thejerf/suture/v4"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/messages"
)

// restartPolicy of every supervisor in the tree: a failed actor restarts at once, up to ten times in ten
// seconds. After that its wing waits for a second, so that a permanent fault uses little CPU time and the wing recovers from
// a temporary one.
var restartPolicy = suture.Spec{
	FailureThreshold: 10,
	FailureDecay:     10,
	FailureBackoff:   time.Second,
	Timeout:          stopPatience,
	Sprint:           actorkit.DescribePanic,
}

// stopPatience bounds the wait for one actor when the tree ends.
const stopPatience = 10 * time.Second

// tree is the root supervisor with one supervisor per wing, and the counts of restarts.
type tree struct {
	root  *suture.Supervisor
	views *actorkit.Watch[[]messages.ActorView]
	ends  chan<- messages.ToLifecycle // gets ActorEnded for every actor of a wing
	log   *zap.Logger

	mu   sync.Mutex // the hook runs on the goroutine of each supervisor
	rows []messages.ActorView
}

func newTree(ends chan<- messages.ToLifecycle, log *zap.Logger) *tree {
	t := &tree{views: actorkit.NewWatch[[]messages.ActorView](nil), ends: ends, log: log}
	spec := restartPolicy
	spec.EventHook = t.hook
	t.root = suture.New("companion", spec)
	return t
}

// wing adds a supervisor for the given actors. suture gives it the root's event hook.
func (t *tree) wing(name string, actors ...suture.Service) {
	spec := restartPolicy
	spec.EventHook = t.hook
	wing := suture.New(name, spec)
	for _, actor := range actors {
		t.register(actor)
		wing.Add(instrument(told{actor, t.ends}))
	}
	t.root.Add(wing)
}

// told sends ActorEnded to the lifecycle actor when Serve of the actor ends. The next incarnation reports as
// well, but the supervisor may wait before it starts one, and until then no fact of the old one may hold (A9).
type told struct {
	suture.Service
	ends chan<- messages.ToLifecycle
}

func (t told) String() string { return fmt.Sprint(t.Service) }

func (t told) Serve(ctx context.Context) error {
	defer func() {
		select {
		case t.ends <- messages.ActorEnded{Actor: messages.Actor(t.String())}:
		default: // full: the lifecycle actor has ended too, which withdraws every fact
		}
	}()
	return t.Service.Serve(ctx)
}

// add adds an actor directly below the root.
func (t *tree) add(actor suture.Service) {
	t.register(actor)
	t.root.Add(instrument(actor))
}

func (t *tree) register(actor suture.Service) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, messages.ActorView{Name: messages.Actor(fmt.Sprint(actor))})
	t.views.Set(slices.Clone(t.rows))
}

// hook logs and counts every restart (A9). It runs on the goroutine of a supervisor, so it must not block or
// call a supervisor.
func (t *tree) hook(event suture.Event) {
	switch e := event.(type) {
	case suture.EventServicePanic:
		t.failed(e.ServiceName, "panic: "+e.PanicMsg, zap.String("stack", e.Stacktrace))
	case suture.EventServiceTerminate:
		err, _ := e.Err.(error)
		if errors.Is(err, context.Canceled) {
			return
		}
		t.failed(e.ServiceName, fmt.Sprint(e.Err))
	case suture.EventStopTimeout:
		t.log.Error("actor did not stop in time", zap.String("service", e.ServiceName))
	case suture.EventBackoff:
		t.log.Warn("supervisor pauses after repeated failures", zap.String("supervisor", e.SupervisorName))
	case suture.EventResume:
		t.log.Info("supervisor goes on", zap.String("supervisor", e.SupervisorName))
	}
}

func (t *tree) failed(name, cause string, fields ...zap.Field) {
	t.mu.Lock()
	for i := range t.rows {
		if string(t.rows[i].Name) == name {
			t.rows[i].Restarts++
			t.rows[i].LastError = cause
		}
	}
	t.views.Set(slices.Clone(t.rows))
	t.mu.Unlock()
	t.log.Error("actor failed and is restarted", append(fields, zap.String("service", name), zap.String("cause", cause))...)
}
