package process

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/runtime/probe"
	"companion/adapters/runtime/spawn"
	"companion/messages"
)

// readinessBeat is the pause between two health requests to a back end that does not answer yet, and
// readinessPatience the timeout of one request.
const (
	readinessBeat     = 5 * time.Millisecond
	readinessPatience = 5 * time.Second
)

// launch is one attempt to run the runtime. Only the actor's loop uses the fields after kill.
type launch struct {
	spawn messages.Spawn
	kill  chan struct{} // closed when the exit is requested
	grace time.Duration // from SIGTERM to SIGKILL; written before kill is closed
	dying bool          // the runtime had begun to end before; written before kill is closed

	started *messages.RuntimeStarted
	up      *messages.BackEndUp
}

func newLaunch(m messages.Spawn) *launch {
	return &launch{spawn: m, kill: make(chan struct{})}
}

// requestKill requests the exit; later calls do nothing. Only the actor's loop calls it.
func (l *launch) requestKill(grace time.Duration) {
	if !l.killRequested() {
		l.grace = grace
		l.dying = l.started != nil && spawn.IsEnding(l.started.PID)
		close(l.kill)
	}
}

// endedByRequest reports whether the exit answers a request for it. A runtime that had begun to die before does not: the
// request came while the kernel freed its memory.
func (l *launch) endedByRequest() bool { return l.killRequested() && !l.dying }

func (l *launch) killRequested() bool {
	select {
	case <-l.kill:
		return true
	default:
		return false
	}
}

// event is a report of a launch to the loop. Exactly one field is set, except that lost comes
// with exited and expected with started.
type event struct {
	started  *spawn.Started
	expected int64 // with started: the memory that the launch may take, in bytes
	up       *messages.BackEndUp
	ending   bool
	exited   *messages.RuntimeExited
	lost     []messages.ToLifecycle // sent to the lifecycle actor before exited
}

// run spawns the runtime, waits until it is ready, and reports its exit. It returns when the child has ended;
// when ctx ends, the child is killed without grace. Its goroutines belong to group and end soon after it: a
// panic in one of them ends the actor, and with it ctx.
func (a *Actor) run(ctx context.Context, l *launch, group *actorkit.Group, events chan<- event) {
	tell := func(e event) {
		select {
		case events <- e:
		case <-ctx.Done():
		}
	}
	began := time.Now()
	ahead, enough := context.WithCancel(ctx)
	defer enough()
	group.Go(func() { spawn.ReadAhead(ahead, l.spawn.Model, probe.FreeMemory()/2) })
	spec, served := a.spec(l.spawn), a.model(l.spawn.Model, l.spawn.Runtime)
	spec.Context, spec.ShareContext = served.Context, served.Share != served.Context
	spec.Features = a.ask(ctx, l, group)
	var started spawn.Started
	err := a.checkParts(l.spawn.Model)
	if err == nil {
		started, err = spawn.Spawn(spec)
	}
	if err != nil {
		a.Log.Warn("runtime not started", zap.String("reason", string(reasonOf(err))), zap.Error(err))
		tell(event{
			exited: &messages.RuntimeExited{Launch: l.spawn.Launch, Requested: l.killRequested(), Exit: messages.ExitReport{
				At: time.Now(), Code: -1, Reason: reasonOf(err), LastLines: []string{err.Error()},
			}},
			lost: lost(l.spawn, err),
		})
		return
	}
	defer kill(started.Handle) // effective only after a panic; otherwise the child has ended
	watching, stop := context.WithCancel(ctx)
	defer stop()
	expected := a.expected(l.spawn.Model, spec)
	tell(event{started: &started, expected: expected})

	ready := make(chan error, 1)
	var most atomic.Int64 // memory while it starts
	group.Go(func() { ready <- a.awaitReady(watching, started, began, &most) })
	ending := make(chan struct{})
	asked := l.kill
	done := ctx.Done()
	var cause error
	up := false // it has answered
	end := func(grace time.Duration) { group.Go(func() { started.Handle.Kill(ctx, grace) }) }
	for {
		select {
		case cause = <-ready:
			if cause != nil {
				end(a.KillGrace)
				continue
			}
			most.Store(0)
			up = true
			tell(event{up: backEndUp(l, started, served)})
			group.Go(func() {
				if spawn.Ending(watching, started.Handle.PID()) == nil {
					close(ending)
				}
			})
		case <-ending:
			ending = nil
			tell(event{ending: true})
		case <-asked:
			asked = nil
			end(l.grace)
		case <-done:
			done = nil
			end(0)
		case p := <-started.Panics:
			panic(p)
		case exit := <-started.Exit:
			if started.Handle.Unended() {
				a.Log.Warn("runtime does not end: SIGKILL is pending, it waits for a file server or a device",
					zap.Int("pid", started.Handle.PID()))
			}
			var unfit []messages.ToLifecycle
			if !up && !l.killRequested() {
				a.remember(l.spawn.Runtime, nil) // it may have refused an option
			}
			switch {
			case libraryMissing(exit):
				exit.Reason = messages.ReasonLibraryMissing
			case !up && exit.Code != 0 && len(l.spawn.Model.Parts) > 0 && says(exit, projectorMessages):
				exit.Reason = messages.ReasonMalformedSpec
				unfit = []messages.ToLifecycle{messages.IntegrityLost{
					Artifact: l.spawn.Model.Name, SHA256: l.spawn.Model.SHA256, Reason: exit.Reason,
				}}
			case memoryRefused(exit, a.MemoryLimit, most.Load()), !up && exit.Code != 0 && a.MemoryLimit > 0 && expected > a.MemoryLimit:
				exit.Reason = messages.ReasonRAMOverLimit
			case cause != nil:
				exit.Reason = reasonOf(cause)
			}
			tell(event{exited: &messages.RuntimeExited{Launch: l.spawn.Launch, Requested: l.endedByRequest(), Exit: exit}, lost: unfit})
			return
		}
	}
}

// kill ends the process group with SIGKILL.
func kill(h *spawn.Handle) {
	at, cancel := context.WithCancel(context.Background())
	cancel()
	h.Kill(at, 0)
}

func backEndUp(l *launch, s spawn.Started, served messages.Model) *messages.BackEndUp {
	backEnd := s.BackEnd
	backEnd.PID = s.Handle.PID()
	return &messages.BackEndUp{
		Launch: l.spawn.Launch, BackEnd: backEnd, Model: served, Speculates: s.Speculates, Sleeps: s.Sleeps,
	}
}

// awaitReady polls the back end until it answers, a process that is not our child answers, or the start
// deadline passes. Under a memory limit it keeps the largest use in most.
func (a *Actor) awaitReady(ctx context.Context, s spawn.Started, began time.Time, most *atomic.Int64) error {
	ctx, cancel := context.WithDeadlineCause(ctx, began.Add(a.StartDeadline), errStartTimeout)
	defer cancel()
	for {
		if a.MemoryLimit > 0 {
			most.Store(max(most.Load(), spawn.DataBytes(s.Handle.PID())))
		}
		once, cancelOnce := context.WithTimeout(ctx, readinessPatience)
		err := a.health(once, s.BackEnd, s.Handle.PID())
		cancelOnce()
		if err == nil || errors.Is(err, spawn.ErrNotOurChild) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(readinessBeat):
		}
	}
}

var errStartTimeout = &spawn.Error{Reason: messages.ReasonStartTimeout, Doing: "waiting for the first healthy answer"}

// reasonOf returns the reason of an error of spawn.
func reasonOf(err error) messages.Reason {
	var e *spawn.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return messages.ReasonProcessExited
}
