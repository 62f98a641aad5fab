package process

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"

	"companion/adapters/runtime/spawn"
	"companion/adapters/runtime/spawn/spawntest"
	"companion/messages"
)

// R1, R3, R6, A7: a launch starts, answers, is reported again on ConfirmProcess, and ends on Kill.
func TestLaunchFromSpawnToKill(t *testing.T) {
	b := newBench(t)
	b.serve()
	b.mailbox <- messages.ConfirmProcess{}
	expect[messages.RuntimeAbsent](b)
	b.mailbox <- messages.Kill{Launch: 7}
	expect[messages.RuntimeAbsent](b)

	b.spawn(7, map[string]any{"serve": true})
	started := expect[messages.RuntimeStarted](b)
	up := expect[messages.BackEndUp](b)
	if started.Launch != 7 || started.PID < 2 || up.Launch != 7 || up.BackEnd.Network != "unix" ||
		up.Model != (messages.Model{Name: spawntest.Name, Version: "1", Context: 512, Share: 512, Asked: 512, ContextBy: messages.ContextConfigured}) {
		t.Fatalf("got %+v, %+v, want RuntimeStarted and BackEndUp of launch 7", started, up)
	}
	view := b.deps.View.Get()
	if view.PID != started.PID || view.Name != "hostile" || !view.Pinned || view.BackEnd != "unix" ||
		view.Sandbox.Landlock == 0 || !view.Sandbox.Seccomp || view.StartedAt.IsZero() {
		t.Errorf("got the view %+v, want a sandboxed process with its times", view)
	}
	b.mailbox <- messages.ConfirmProcess{}
	if again := expect[messages.RuntimeStarted](b); again != started {
		t.Errorf("confirmed: got %+v, want %+v", again, started)
	}
	if again := expect[messages.BackEndUp](b); again != up {
		t.Errorf("confirmed: got %+v, want %+v", again, up)
	}

	// A late Kill for another launch ends nothing, and is answered with the launch that runs.
	b.mailbox <- messages.Kill{Launch: 6}
	expect[messages.RuntimeStarted](b)
	expect[messages.BackEndUp](b)
	// A late Spawn starts nothing.
	b.spawn(6, nil)
	if exit := expect[messages.RuntimeExited](b); exit.Launch != 6 || exit.Requested || exit.Exit.Reason != messages.ReasonSpawnFailed {
		t.Errorf("a late spawn: got %+v, want spawn_failed of launch 6", exit)
	}

	b.mailbox <- messages.Kill{Launch: 7}
	exit := expect[messages.RuntimeExited](b)
	if exit.Launch != 7 || !exit.Requested || exit.Exit.Signal != "terminated" || exit.Exit.Reason != messages.ReasonProcessExited {
		t.Errorf("got %+v, want a requested exit of launch 7 by SIGTERM", exit)
	}
	if gone(started.PID) != nil {
		t.Error("got a process after its exit, want none")
	}
	if view := b.deps.View.Get(); view != (messages.ProcessView{}) {
		t.Errorf("got the view %+v after the exit, want an empty one", view)
	}
	b.quiet()
}

// A9: a newer Spawn replaces a launch that the lifecycle actor no longer knows. Of several waiting Spawns the newest
// starts. One child runs at a time, and each Spawn is answered once.
func TestNewerSpawnTakesOver(t *testing.T) {
	b := newBench(t)
	b.deps.KillGrace = time.Hour // not waited for: no client uses the old launch
	b.serve()
	b.spawn(1, map[string]any{"serve": true, "ignoreTerm": true})
	old := expect[messages.RuntimeStarted](b)
	expect[messages.BackEndUp](b)
	for launch := range messages.Launch(4) {
		b.mailbox <- messages.Spawn{Launch: 2 + launch, Model: spawntest.Model(t, map[string]any{"serve": true}), Runtime: spawntest.Runtime(t)}
	}
	b.mailbox <- messages.Kill{Launch: 5}
	b.mailbox <- messages.Spawn{Launch: 6, Model: spawntest.Model(t, map[string]any{"serve": true}), Runtime: spawntest.Runtime(t)}
	exits := map[messages.Launch]int{}
	for {
		m := <-b.lifecycle
		if exit, ok := m.(messages.RuntimeExited); ok {
			exits[exit.Launch]++
			continue
		}
		if started, ok := m.(messages.RuntimeStarted); ok && started.Launch == 6 {
			if gone(old.PID) != nil {
				t.Error("got the old runtime while the new one runs, want it ended")
			}
			break
		}
	}
	if up := expect[messages.BackEndUp](b); up.Launch != 6 || len(exits) != 5 {
		t.Errorf("got %+v after the exits %v, want launch 6 after 5 exits", up, exits)
	}
	for launch, times := range exits {
		if times != 1 {
			t.Errorf("launch %d: got %d answers, want 1", launch, times)
		}
	}
}

// gone returns an error while the process exists.
func gone(pid int) error {
	if err := syscall.Kill(pid, 0); err == syscall.ESRCH {
		return nil
	}
	return syscall.EBUSY
}

// R9, A8: every kind of exit of the runtime is reported once, with status, signal and last lines.
func TestExitsAreReportedOnce(t *testing.T) {
	tests := map[string]struct {
		script map[string]any
		check  func(messages.ExitReport) bool
	}{
		"exit status": {
			map[string]any{"exitAfter": time.Millisecond, "exitCode": 3, "say": []string{"last words"}},
			func(e messages.ExitReport) bool {
				return e.Code == 3 && e.Signal == "" && strings.Join(e.LastLines, "\n") == "last words"
			},
		},
		"illegal instruction": {
			map[string]any{"illegal": true},
			func(e messages.ExitReport) bool {
				return e.Code == -1 && e.Signal == "illegal instruction" && len(e.LastLines) == 1 &&
					strings.Contains(e.LastLines[0], "the processor lacks instructions")
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.serve()
			b.spawn(1, test.script)
			expect[messages.RuntimeStarted](b)
			exit := expect[messages.RuntimeExited](b)
			if exit.Launch != 1 || exit.Requested || exit.Exit.Reason != messages.ReasonProcessExited || exit.Exit.At.IsZero() || !test.check(exit.Exit) {
				t.Errorf("got %+v, want one process_exited of launch 1 with its status", exit)
			}
			b.quiet()
		})
	}
}

// R9, A5: when another process kills the runtime, HealthFailed comes before RuntimeExited.
func TestKilledFromOutside(t *testing.T) {
	b := newBench(t)
	b.serve()
	b.spawn(1, map[string]any{"serve": true})
	started := expect[messages.RuntimeStarted](b)
	expect[messages.BackEndUp](b)
	if err := syscall.Kill(started.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	m := <-b.lifecycle
	if failing, ok := m.(messages.HealthFailed); ok {
		if failing.Launch != 1 || failing.Hung || failing.Reason != messages.ReasonProcessExited {
			t.Errorf("got %+v, want process_exited of launch 1", failing)
		}
		m = <-b.lifecycle
	}
	exit, ok := m.(messages.RuntimeExited)
	if !ok || exit.Exit.Signal != "killed" || exit.Requested {
		t.Errorf("got %+v, want an exit by SIGKILL that was not requested", m)
	}
	b.quiet()
}

// R11: a runtime that has begun to die by itself when a Kill comes was not ended by it.
func TestKillOfADyingRuntime(t *testing.T) {
	b := newBench(t)
	b.serve()
	b.spawn(1, map[string]any{"serve": true})
	started := expect[messages.RuntimeStarted](b)
	expect[messages.BackEndUp](b)
	pid := started.PID
	current := newLaunch(messages.Spawn{Launch: 1})
	current.started = &started
	current.requestKill(0)
	if !current.endedByRequest() {
		t.Error("a runtime that lives: got an end by itself, want one by the request")
	}
	if err := syscall.Kill(pid, syscall.SIGSEGV); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); !spawn.IsEnding(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("got a runtime that does not end, want it ending")
		}
	}
	current = newLaunch(messages.Spawn{Launch: 1})
	current.started = &started
	current.requestKill(0)
	if current.endedByRequest() {
		t.Error("a dying runtime: got an end by the request, want one by itself")
	}
}

// A3: a back end that never becomes healthy is ended at the start deadline.
func TestStartDeadline(t *testing.T) {
	for name, script := range map[string]map[string]any{
		"never listens": {},
		"never ready":   {"serve": true, "neverReady": true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.deps.StartDeadline = 500 * time.Millisecond
			b.serve()
			b.spawn(1, script)
			expect[messages.RuntimeStarted](b)
			if exit := expect[messages.RuntimeExited](b); exit.Exit.Reason != messages.ReasonStartTimeout || exit.Requested {
				t.Errorf("got %+v, want start_timeout", exit)
			}
		})
	}
}

// R6: a runtime that ignores SIGTERM, or is stopped, is ended by SIGKILL.
func TestKillInsists(t *testing.T) {
	for name, stopped := range map[string]bool{"ignores SIGTERM": false, "stopped": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.deps.KillGrace = 100 * time.Millisecond
			b.serve()
			b.spawn(1, map[string]any{"serve": true, "ignoreTerm": true})
			started := expect[messages.RuntimeStarted](b)
			expect[messages.BackEndUp](b)
			if stopped {
				if err := syscall.Kill(started.PID, syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			b.mailbox <- messages.Kill{Launch: 1}
			if exit := expect[messages.RuntimeExited](b); exit.Exit.Signal != "killed" || !exit.Requested {
				t.Errorf("got %+v, want a requested exit by SIGKILL", exit)
			}
		})
	}
}

// M9, M10: a file that differs from the verified one never runs, and the lifecycle actor gets the message that says so.
func TestChangedArtifacts(t *testing.T) {
	b := newBench(t)
	b.serve()
	m := messages.Spawn{Launch: 1, Model: spawntest.Model(t, nil), Runtime: spawntest.Runtime(t)}
	m.Model.Identity.ChangeNano++
	b.mailbox <- m
	if changed := expect[messages.IdentityChanged](b); changed != (messages.IdentityChanged{Launch: 1, Artifact: spawntest.Name}) {
		t.Errorf("got %+v, want IdentityChanged of launch 1", changed)
	}
	if exit := expect[messages.RuntimeExited](b); exit.Launch != 1 || exit.Exit.Reason != messages.ReasonInvalidModelPath {
		t.Errorf("got %+v, want invalid_model_path of launch 1", exit)
	}
	m = messages.Spawn{Launch: 2, Model: spawntest.Model(t, nil), Runtime: spawntest.Runtime(t)}
	m.Runtime.Files = append([]messages.ArchiveFile(nil), m.Runtime.Files...)
	m.Runtime.Files[0].SHA256[0]++
	b.mailbox <- m
	if changed := expect[messages.IdentityChanged](b); changed != (messages.IdentityChanged{Launch: 2, Artifact: "hostile"}) {
		t.Errorf("got %+v, want IdentityChanged of launch 2 and the runtime", changed)
	}
	if exit := expect[messages.RuntimeExited](b); exit.Launch != 2 || exit.Exit.Reason != messages.ReasonDigestMismatch {
		t.Errorf("got %+v, want digest_mismatch of launch 2", exit)
	}
}

// R6, A9: when the actor is cancelled, or panics in its loop or in another of its goroutines, the child has ended
// before Serve returns.
func TestNoChildOutlivesServe(t *testing.T) {
	hooked := func(message string, hook func()) *zap.Logger {
		return zaptest.NewLogger(t, zaptest.WrapOptions(zap.Hooks(func(e zapcore.Entry) error {
			if e.Message == message {
				hook()
			}
			return nil
		})))
	}
	tests := map[string]struct {
		plant  func(a *Actor)
		inLoop bool
		cancel bool
	}{
		"cancelled":         {func(*Actor) {}, false, true},
		"panic in the loop": {func(*Actor) {}, true, false},
		"panic beside it": {func(a *Actor) {
			a.health = func(context.Context, messages.BackEnd, int) error { panic("planted") }
		}, false, false},
		"panic of the output": {func(a *Actor) { a.Output = hooked("a line", func() { panic("planted") }) }, false, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			child := make(chan int, 1)
			b.deps.Log = hooked("runtime started", func() {
				if child <- b.deps.View.Get().PID; test.inLoop {
					panic("planted")
				}
			})
			actor := New(b.deps)
			test.plant(actor)
			served := make(chan any, 1)
			go func() {
				defer func() { served <- recover() }()
				_ = actor.Serve(ctx)
			}()
			expect[messages.ActorStarted](b)
			b.spawn(1, map[string]any{"serve": true, "ignoreTerm": true, "say": []string{"a line"}})
			pid := <-child
			if test.cancel {
				expect[messages.RuntimeStarted](b)
				cancel()
			}
			if recovered := <-served; (recovered == nil) != test.cancel {
				t.Fatalf("Serve: got the panic %v, want one unless cancelled", recovered)
			}
			if gone(pid) != nil {
				t.Error("got a runtime after Serve, want none")
			}
			for len(b.lifecycle) > 0 {
				<-b.lifecycle
			}
			// The next Serve begins without a child and can start one.
			b.deps.Log = zaptest.NewLogger(t)
			b.serve()
			b.spawn(2, map[string]any{"serve": true})
			expect[messages.RuntimeStarted](b)
			expect[messages.BackEndUp](b)
		})
	}
}

// A busy lifecycle actor does not prevent the process actor from answering others.
func TestLifecycleBusy(t *testing.T) {
	b := newBench(t)
	b.lifecycle = make(chan messages.ToLifecycle)
	b.deps.Lifecycle = b.lifecycle
	b.serve()
	for range 100 {
		b.mailbox <- messages.ConfirmProcess{}
	}
	for range 100 {
		expect[messages.RuntimeAbsent](b)
	}
}

func TestName(t *testing.T) {
	if name := New(Deps{}).String(); name != "runtime/process" {
		t.Errorf("got %q, want runtime/process", name)
	}
}
