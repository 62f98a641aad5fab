package lifecycle

import (
	"testing"
	"testing/synctest"
	"time"

	"companion/fsm"
	"companion/messages"
)

// A3, A5: availability needs every fact, in any order of arrival.
func TestAvailableNeedsEveryFact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.send(messages.RuntimeAbsent{}, messages.TokenStored{})
		if spawns := taken[messages.Spawn](w.process); len(spawns) != 0 {
			t.Fatalf("without a verified model and runtime: got %d Spawns, want none", len(spawns))
		}
		if got := w.send(verified(1)); got.Model.Name != "m" {
			t.Fatalf("got %+v, want the name of the verified model", got)
		}
		launch := taken[messages.Spawn](w.process)[0].Launch
		got := w.send(messages.RuntimeStarted{Launch: launch}, messages.BackEndUp{Launch: launch}, messages.HealthSucceeded{Launch: launch, At: time.Now()})
		if got.Available || got.State != messages.StateReady {
			t.Fatalf("without a bound front door: got %+v, want ready and not available", got)
		}
		if got = w.send(messages.DoorBound{BaseURL: "u"}); !got.Available || got.Reason != messages.ReasonOK {
			t.Fatalf("got %+v, want available", got)
		}
	})
}

// A5: each of these messages ends availability at once.
func TestAvailabilityEnds(t *testing.T) {
	tests := map[string]struct {
		message messages.ToLifecycle
		reason  messages.Reason
	}{
		"failed probe":     {messages.HealthFailed{Launch: 1, Reason: messages.ReasonUpstreamFailed}, messages.ReasonRuntimeUnavailable},
		"hung":             {messages.HealthFailed{Launch: 1, Reason: messages.ReasonRuntimeUnavailable, Hung: true}, messages.ReasonRuntimeUnavailable},
		"exit":             {exited(1, messages.ReasonProcessExited), messages.ReasonProcessExited},
		"integrity":        {messages.IntegrityLost{Artifact: "m", Reason: messages.ReasonDigestMismatch}, messages.ReasonDigestMismatch},
		"grace is over":    {messages.IntegrityLost{Artifact: "m", Reason: messages.ReasonManifestExpired}, messages.ReasonManifestExpired},
		"withdrawn":        {messages.IntegrityLost{Artifact: "m", Reason: messages.ReasonNoSuchTarget}, messages.ReasonNoSuchTarget},
		"token lost":       {messages.TokenLost{Reason: messages.ReasonKeychainLocked}, messages.ReasonKeychainLocked},
		"listener lost":    {messages.DoorLost{Reason: messages.ReasonBindFailed}, messages.ReasonBindFailed},
		"identity changed": {messages.IdentityChanged{Launch: 1}, messages.ReasonNotReady},
		"memory":           {messages.MemoryExceeded{Launch: 1}, messages.ReasonRAMOverLimit},
		"stop":             {messages.StopRequested{Reply: make(chan messages.Reason, 1)}, messages.ReasonNotReady},
		"shutdown":         {messages.ShutdownRequested{Reply: make(chan struct{}, 1)}, messages.ReasonNotReady},
		// A9: the facts of an actor are dropped when it restarts.
		"new provision":  {messages.ActorStarted{Actor: messages.ActorProvision}, messages.ReasonNotReady},
		"new custody":    {messages.ActorStarted{Actor: messages.ActorCustody}, messages.ReasonNotReady},
		"new front door": {messages.ActorStarted{Actor: messages.ActorFrontDoor}, messages.ReasonNotReady},
		"new health":     {messages.ActorStarted{Actor: messages.ActorHealth}, messages.ReasonRuntimeUnavailable},
		"new process":    {messages.ActorStarted{Actor: messages.ActorProcess}, messages.ReasonNotReady},
		// A9: the facts of an actor are dropped when it ends.
		"no provision":  {messages.ActorEnded{Actor: messages.ActorProvision}, messages.ReasonNotReady},
		"no custody":    {messages.ActorEnded{Actor: messages.ActorCustody}, messages.ReasonNotReady},
		"no front door": {messages.ActorEnded{Actor: messages.ActorFrontDoor}, messages.ReasonNotReady},
		"no health":     {messages.ActorEnded{Actor: messages.ActorHealth}, messages.ReasonRuntimeUnavailable},
		"no process":    {messages.ActorEnded{Actor: messages.ActorProcess}, messages.ReasonProcessExited},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				defer w.close()
				w.ready(t)
				if got := w.send(test.message); got.Available || got.Reason != test.reason {
					t.Fatalf("after %T: got available %t, reason %s; want false, %s", test.message, got.Available, got.Reason, test.reason)
				}
			})
		})
	}
}

// A5: a timer ends availability right after the last health success has reached its maximum age, and not before.
func TestHealthAgesOutByTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.ready(t)
		if got := w.pass(DefaultRecency); !got.Available {
			t.Fatalf("at the bound: got %+v, want available", got)
		}
		if got := w.pass(time.Millisecond); got.Available || got.Reason != messages.ReasonRuntimeUnavailable {
			t.Fatalf("after the bound: got %+v, want runtime_unavailable", got)
		}
		if got := w.send(messages.HealthSucceeded{Launch: 1, At: time.Now()}); !got.Available {
			t.Fatalf("after a new success: got %+v, want available", got)
		}
	})
}

// A9: late reports about an earlier launch change nothing.
func TestLateWordsChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.ready(t)
		before := w.snapshot.Get()
		after := w.send(exited(0, messages.ReasonProcessExited), messages.HealthFailed{Launch: 0, Hung: true},
			messages.HealthSucceeded{Launch: 0, At: time.Now().Add(time.Second)},
			messages.BackEndUp{Launch: 0}, messages.MemoryExceeded{Launch: 2}, messages.IdentityChanged{Launch: 2})
		if after != before {
			t.Fatalf("got %+v, want %+v", after, before)
		}
	})
}

// A8: after a crash the runtime is restarted with growing delays; five crashes in five minutes lead to a hold,
// which ends by time or by a start of the user.
func TestRestartAndCrashLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.ready(t)
		for i := 1; i < fsm.CrashLoopFailures; i++ {
			got := w.send(exited(messages.Launch(i), messages.ReasonProcessExited))
			if got.RetryAt.IsZero() || got.Restarts != i || got.LastExit == nil || got.State != messages.StateStopped {
				t.Fatalf("crash %d: got %+v, want stopped, %d restarts and a retry time", i, got, i)
			}
			if wait := time.Until(got.RetryAt); i == 1 && wait > 500*time.Millisecond {
				t.Fatalf("first retry: got a pause of %s, want at most 500ms", wait)
			}
			w.pass(time.Until(got.RetryAt))
			w.up(t)
		}
		got := w.send(exited(fsm.CrashLoopFailures, messages.ReasonProcessExited))
		if !got.Held || got.Reason != messages.ReasonCrashLoop || !got.RetryAt.IsZero() {
			t.Fatalf("got %+v, want held with crash_loop", got)
		}
		if w.pass(fsm.CrashLoopWindow - time.Second); len(taken[messages.Spawn](w.process)) != 0 {
			t.Fatal("while held: got a Spawn, want none")
		}
		w.pass(2 * time.Second)
		w.up(t)
		for i := range fsm.CrashLoopFailures {
			got = w.send(exited(w.snapshot.Get().Launch, messages.ReasonProcessExited))
			if i < fsm.CrashLoopFailures-1 {
				w.pass(time.Until(got.RetryAt))
			}
		}
		reply := make(chan messages.Reason, 1)
		if got = w.send(messages.StartRequested{Reply: reply}); got.Held || <-reply != messages.ReasonOK {
			t.Fatalf("after a start by the user: got %+v, want no hold", got)
		}
		w.up(t)
	})
}

// A8: one healthy minute clears the earlier failures.
func TestHealthyMinuteForgives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.ready(t)
		for range 2 * fsm.CrashLoopFailures {
			got := w.send(exited(w.snapshot.Get().Launch, messages.ReasonProcessExited))
			if got.Held {
				t.Fatal("each launch healthy for a minute: got held, want not held")
			}
			w.pass(time.Until(got.RetryAt))
			w.up(t)
			w.pass(fsm.HealthyAfter)
		}
	})
}

// A3: a start ends at its deadline, and the next launch waits for the exit of the runtime.
func TestStartDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.send(messages.RuntimeAbsent{}, verified(1))
		taken[messages.Spawn](w.process)
		got := w.pass(DefaultStartDeadline)
		if got.State != messages.StateStopped || got.Reason == messages.ReasonOK || len(taken[messages.Kill](w.process)) != 1 {
			t.Fatalf("at the start deadline: got %+v, want stopped and one Kill", got)
		}
		w.pass(time.Minute)
		if len(taken[messages.Spawn](w.process)) != 0 {
			t.Fatal("before the exit of the first runtime: got a Spawn, want none")
		}
		got = w.send(messages.RuntimeExited{Launch: 1, Requested: true, Exit: messages.ExitReport{Reason: messages.ReasonProcessExited}})
		if got.LastExit == nil || got.LastExit.Reason != messages.ReasonStartTimeout {
			t.Fatalf("got last exit %+v, want start_timeout", got.LastExit)
		}
	})
}

// A7, X7, K6: a stop drains and then kills; a shutdown also clears the token; both reply.
func TestDrainAndShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.ready(t)
		stopped := make(chan messages.Reason, 1)
		if got := w.send(messages.StopRequested{Reply: stopped}); got.State != messages.StateDraining {
			t.Fatalf("got %+v, want draining", got)
		}
		if len(taken[messages.Kill](w.process)) != 0 {
			t.Fatal("while requests run: got a Kill, want none")
		}
		taken[messages.Drain](w.frontDoor)[0].Reply <- 0
		synctest.Wait()
		if len(taken[messages.Kill](w.process)) != 1 {
			t.Fatal("after the drain: got no Kill, want one")
		}
		w.send(messages.RuntimeExited{Launch: 1, Requested: true})
		if <-stopped != messages.ReasonOK || w.snapshot.Get().LastExit != nil {
			t.Fatalf("after a requested stop: got last exit %+v, want none and the reply ok", w.snapshot.Get().LastExit)
		}
		started := make(chan messages.Reason, 1)
		w.send(messages.StartRequested{Reply: started})
		launch := w.up(t)
		if <-started != messages.ReasonOK {
			t.Fatal("start: got another reply, want ok")
		}
		ended := make(chan struct{}, 1)
		w.send(messages.ShutdownRequested{Reply: ended})
		w.pass(DefaultDrainDeadline + time.Second) // the front door never replies
		w.send(messages.RuntimeExited{Launch: launch, Requested: true})
		clears := taken[messages.ClearLoopbackToken](w.custody)
		if len(clears) != 1 || len(ended) != 0 {
			t.Fatalf("got %d ClearLoopbackToken and %d replies, want 1 and 0", len(clears), len(ended))
		}
		clears[0].Reply <- messages.ReasonOK
		<-ended
		if len(taken[messages.DropLoopbackToken](w.frontDoor)) != 1 {
			t.Fatal("front door: got no DropLoopbackToken, want one")
		}
	})
}

// vouch sends the reports of all actors except health to a new incarnation while the first launch runs.
func (w *world) vouch() messages.Snapshot {
	return w.send(messages.RuntimeStarted{Launch: 1, PID: 7}, messages.BackEndUp{Launch: 1}, verified(1),
		messages.DoorBound{BaseURL: "u"}, messages.TokenStored{})
}

// A9: a new incarnation starts without facts, asks all actors, and adopts the runtime that still runs.
func TestNewIncarnationAdopts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.ready(t)
		w.close()
		w.serve()
		defer w.close()
		if got := w.snapshot.Get(); got.Available || got.State != messages.StateStopped {
			t.Fatalf("without reports: got %+v, want stopped and not available", got)
		}
		if len(taken[messages.ConfirmProcess](w.process)) == 0 {
			t.Fatal("process actor: got no ConfirmProcess, want one")
		}
		got := w.vouch()
		if got.State != messages.StateStarting || got.Available {
			t.Fatalf("got %+v, want starting and not available", got)
		}
		if got.Proven != got.Launch {
			t.Fatalf("got %+v, want Proven equal to Launch", got)
		}
		if got = w.send(messages.HealthSucceeded{Launch: 1, At: time.Now()}); !got.Available {
			t.Fatalf("after a health success: got %+v, want available", got)
		}
		if len(taken[messages.Spawn](w.process)) != 0 {
			t.Fatal("got a Spawn, want none: the runtime is adopted")
		}
	})
}

// A9, T10: an adopted runtime that hangs is killed and replaced; the next launch is not proven.
func TestHungAdoptedIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.ready(t)
		w.close()
		w.serve()
		defer w.close()
		w.vouch()
		w.send(messages.HealthFailed{Launch: 1, Reason: messages.ReasonRuntimeUnavailable, Hung: true})
		if kills := taken[messages.Kill](w.process); len(kills) != 1 || kills[0].Launch != 1 {
			t.Fatalf("got %v, want one Kill of launch 1", kills)
		}
		got := w.send(messages.RuntimeExited{Launch: 1, Requested: true})
		w.pass(time.Until(got.RetryAt))
		if got = w.snapshot.Get(); got.State != messages.StateStarting || got.Launch != 2 || got.Proven != 1 {
			t.Fatalf("got %+v, want launch 2 starting, with launch 1 proven", got)
		}
	})
}

// M12: if a newer model does not become ready, the previous one is started again.
func TestFallsBackToProven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.ready(t)
		w.send(verified(2))
		taken[messages.Drain](w.frontDoor)[0].Reply <- 0
		synctest.Wait()
		w.send(messages.RuntimeExited{Launch: 1, Requested: true})
		if spawn := taken[messages.Spawn](w.process)[0]; spawn.Model.SHA256[0] != 2 {
			t.Fatalf("got a Spawn of model %v, want 2", spawn.Model.SHA256[0])
		}
		got := w.send(exited(2, messages.ReasonProcessExited))
		w.pass(time.Until(got.RetryAt))
		if spawn := taken[messages.Spawn](w.process)[0]; spawn.Model.SHA256[0] != 1 {
			t.Fatalf("fallback: got a Spawn of model %v, want 1", spawn.Model.SHA256[0])
		}
	})
}

// M12: a newer model that is offered during a start replaces the older one as soon as the older one is ready.
func TestNewerWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.send(messages.RuntimeAbsent{}, verified(1), messages.RuntimeStarted{Launch: 1}, verified(2))
		if got := w.send(messages.HealthSucceeded{Launch: 1, At: time.Now()}); got.State != messages.StateDraining || got.Available {
			t.Fatalf("got %+v, want draining and not available", got)
		}
		taken[messages.Drain](w.frontDoor)[0].Reply <- 0
		synctest.Wait()
		got := w.send(messages.RuntimeExited{Launch: 1, Requested: true})
		if spawns := taken[messages.Spawn](w.process); len(spawns) != 2 || spawns[1].Model.SHA256[0] != 2 || got.Restarts != 0 {
			t.Fatalf("got Spawns %+v after %d restarts, want model 2 second, after 0", spawns, got.Restarts)
		}
	})
}

// M1: a starting model that the manifest no longer allows is killed and not started again.
func TestWithdrawnWhileStarting(t *testing.T) {
	for _, reason := range []messages.Reason{messages.ReasonNoSuchTarget, messages.ReasonManifestExpired} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			defer w.close()
			w.send(messages.RuntimeAbsent{}, verified(1), messages.RuntimeStarted{Launch: 1}, messages.IntegrityLost{Reason: reason})
			if len(taken[messages.Kill](w.process)) != 1 {
				t.Fatalf("%s: got no Kill, want one", reason)
			}
			got := w.send(messages.RuntimeExited{Launch: 1, Requested: true})
			if got.State != messages.StateStopped || got.Restarts != 0 || len(taken[messages.Spawn](w.process)) != 0 {
				t.Fatalf("%s: got %+v, want stopped without restart or Spawn", reason, got)
			}
		})
	}
}

// A2, C1: a receiver that never reads its mailbox does not block the lifecycle actor.
func TestStuckReceiversDoNotHoldTheLifecycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		for range boxSize {
			w.health <- messages.ConfirmHealth{}
			w.custody <- messages.ConfirmCustody{}
			w.provision <- messages.Reverify{}
			w.manifest <- messages.RepeatWant{}
			if len(w.health) == boxSize-1 {
				break
			}
		}
		w.ready(t)
		for range boxSize {
			w.send(messages.ActorStarted{Actor: messages.ActorProvision})
		}
		if got := w.send(exited(1, messages.ReasonProcessExited)); got.State != messages.StateStopped {
			t.Fatalf("got %+v, want stopped", got)
		}
	})
}

// X11: the time of availability adds up over changes and restarts of the actor, and a period that lasts is in Since.
func TestAvailableFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer func() { w.close() }()
		w.ready(t)
		time.Sleep(4 * time.Second)
		got := w.send(exited(1, messages.ReasonProcessExited))
		if got.Available || got.AvailableFor != 4*time.Second {
			t.Fatalf("got available %t for %v, want false and 4s", got.Available, got.AvailableFor)
		}
		w.pass(time.Until(got.RetryAt))
		w.up(t)
		time.Sleep(3 * time.Second)
		w.close()
		if got := w.snapshot.Get(); got.AvailableFor != 7*time.Second {
			t.Errorf("after the end of the actor: got %v, want 7s", got.AvailableFor)
		}
		w.serve()
		if got := w.send(messages.RuntimeAbsent{}); got.AvailableFor != 7*time.Second {
			t.Errorf("the next actor: got %v, want 7s", got.AvailableFor)
		}
	})
}
