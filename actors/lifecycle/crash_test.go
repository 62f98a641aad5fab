package lifecycle

import (
	"testing"
	"testing/synctest"
	"time"

	"companion/fsm"
	"companion/messages"
)

// A8, A9: a process actor that ends while the runtime is ready does not count as a crash, however often; one
// that ends at every start leads to a crash loop.
func TestProcessActorCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.ready(t)
		for i := range 4 * fsm.CrashLoopFailures {
			if got := w.send(messages.ActorStarted{Actor: messages.ActorProcess}); got.Available || got.Held {
				t.Fatalf("crash %d: %+v", i, got)
			}
			w.up(t)
		}
		for range fsm.CrashLoopFailures {
			w.send(exited(w.snapshot.Get().Launch, messages.ReasonProcessExited))
			w.pass(time.Minute / 2)
			w.send(messages.ActorStarted{Actor: messages.ActorProcess})
		}
		if got := w.snapshot.Get(); !got.Held {
			t.Fatalf("not held: %+v", got)
		}
	})
}

// A9: between the end of a process actor and the start of the next one nothing is started, and late reports of
// the old one are ignored.
func TestPauseWithoutProcessActor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.ready(t)
		w.send(messages.ActorEnded{Actor: messages.ActorProcess}, messages.HealthSucceeded{Launch: 1, At: time.Now()})
		if got := w.pass(time.Hour); got.Available || got.State != messages.StateStopped || len(taken[messages.Spawn](w.process)) > 0 {
			t.Fatalf("without a process actor: %+v", got)
		}
		w.send(verified(1), messages.ActorStarted{Actor: messages.ActorProcess})
		w.up(t)
		if got := w.snapshot.Get(); got.Restarts != 0 {
			t.Fatalf("the runtime was blamed: %+v", got)
		}
	})
}

// A5, A9: when the lifecycle actor ends, the published snapshot says not available and keeps what the next
// incarnation needs.
func TestEndedOwnerWithdraws(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.ready(t)
		w.close()
		if got := w.snapshot.Get(); got.Available || got.State != messages.StateStopped || got.Facts != (messages.Facts{}) ||
			got.Launch != 1 || !got.Wanted {
			t.Fatalf("after the end of its owner: %+v", got)
		}
	})
}

// A5: a health success that was sent before the runtime died does not restore availability.
func TestSuccessBehindAnExitCountsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.ready(t)
		got := w.send(messages.HealthFailed{Launch: 1, Reason: messages.ReasonProcessExited}, messages.HealthSucceeded{Launch: 1, At: time.Now()})
		if got.Available {
			t.Fatalf("available on a success of a dead runtime: %+v", got)
		}
		got = w.send(exited(1, messages.ReasonProcessExited))
		w.pass(time.Until(got.RetryAt))
		w.up(t)
	})
}

// A2, A8: RuntimeAbsent that answers a ConfirmProcess from before the Spawn is not an exit of the new launch.
func TestStaleAbsenceIsNoExit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.send(messages.ActorStarted{Actor: messages.ActorProcess}, verified(1), messages.RuntimeAbsent{},
			messages.DoorBound{BaseURL: "u"}, messages.TokenStored{})
		if got := w.snapshot.Get(); got.State != messages.StateStarting || got.Restarts != 0 {
			t.Fatalf("a crash was counted: %+v", got)
		}
		w.up(t)
	})
}

// A9: after a restart of the front door, lifecycle requests a probe and stays unavailable until it succeeds.
func TestNewFrontDoorIsProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.ready(t)
		taken[messages.ConfirmHealth](w.health)
		got := w.send(messages.ActorStarted{Actor: messages.ActorFrontDoor}, messages.DoorBound{BaseURL: "http://127.0.0.1:2/v1"})
		if got.Available || len(taken[messages.ConfirmHealth](w.health)) != 1 {
			t.Fatalf("available %v on a success through the old front door, or no probe was requested", got.Available)
		}
		if got = w.send(messages.HealthSucceeded{Launch: 1, At: time.Now()}); !got.Available {
			t.Fatalf("not available again: %+v", got)
		}
	})
}

// A9: a running launch that is older than the one that the previous incarnation had asked for is killed, not
// adopted.
func TestSupersededLaunchIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.ready(t)
		w.send(messages.ActorStarted{Actor: messages.ActorProcess}) // launch 2 is asked for
		w.close()
		w.serve()
		defer w.close()
		taken[messages.Kill](w.process)
		got := w.send(verified(1), messages.RuntimeStarted{Launch: 1})
		kills := taken[messages.ToProcess](w.process)
		if got.State != messages.StateStopped || len(kills) != 2 || kills[0] != (messages.Kill{Launch: 1}) || kills[1] != (messages.ConfirmProcess{}) {
			t.Fatalf("asked for %v, %+v", kills, got)
		}
		got = w.send(messages.RuntimeExited{Launch: 1, Requested: true}, messages.RuntimeAbsent{})
		if spawns := taken[messages.Spawn](w.process); len(spawns) != 1 || spawns[0].Launch != 3 {
			t.Fatalf("spawned %v, %+v", spawns, got)
		}
		w.send(messages.RuntimeStarted{Launch: 2})
		if late := taken[messages.Kill](w.process); len(late) != 1 || late[0].Launch != 2 {
			t.Fatalf("killed %v", late)
		}
	})
}

// A5, A8: a runtime whose exit does not follow the report that it begins to die is killed and replaced.
func TestExitThatDoesNotFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.ready(t)
		w.send(messages.HealthFailed{Launch: 1, Reason: messages.ReasonProcessExited})
		w.pass(exitPatience - 1)
		if len(taken[messages.Kill](w.process)) != 0 {
			t.Fatal("killed although its exit may still follow")
		}
		w.pass(1)
		if kills := taken[messages.Kill](w.process); len(kills) != 1 || kills[0].Launch != 1 {
			t.Fatalf("killed %v", kills)
		}
		got := w.send(messages.RuntimeExited{Launch: 1, Requested: true})
		if got.Restarts != 1 || got.RetryAt.IsZero() || got.LastExit.Reason != messages.ReasonProcessExited {
			t.Fatalf("not replaced: %+v", got)
		}
	})
}

// P4: memory over its limit ends a start as well, because every request would be denied afterwards.
func TestMemoryExceededWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.send(messages.RuntimeAbsent{}, verified(1), messages.RuntimeStarted{Launch: 1}, messages.MemoryExceeded{Launch: 1})
		if len(taken[messages.Kill](w.process)) != 1 {
			t.Fatal("not ended")
		}
		got := w.send(messages.RuntimeExited{Launch: 1, Requested: true})
		if got.Restarts != 1 || got.LastExit.Reason != messages.ReasonRAMOverLimit {
			t.Fatalf("last exit %+v", got.LastExit)
		}
	})
}

// R11, A8: crashes with requests in the runtime lead to no hold and to no longer pause, however many there
// are; crashes without requests still do, and each crash is asked about once.
func TestCrashesByRequestsAreNoCrashLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []messages.Launch
		byRequest := true
		w := newWorld()
		w.close()
		w.actor.deps.RequestsEnded = func(l messages.Launch) bool {
			asked = append(asked, l)
			return byRequest
		}
		w.serve()
		defer w.close()
		w.ready(t)
		const crashes = 4 * fsm.CrashLoopFailures
		for i := range crashes {
			launch := w.snapshot.Get().Launch
			got := w.send(exited(launch, messages.ReasonProcessExited))
			if pause := time.Until(got.RetryAt); got.Held || pause != firstRetry {
				t.Fatalf("crash %d by a request: got held %v and a pause of %v, want false and %v", i, got.Held, pause, firstRetry)
			}
			if len(asked) != i+1 || asked[i] != launch {
				t.Fatalf("crash %d: got asked about %v, want once about launch %d", i, asked, launch)
			}
			w.pass(firstRetry)
			w.up(t)
		}
		if got := w.snapshot.Get(); got.Restarts != crashes {
			t.Errorf("got %d restarts in status, want %d", got.Restarts, crashes)
		}
		byRequest = false
		for i := range fsm.CrashLoopFailures {
			got := w.send(exited(w.snapshot.Get().Launch, messages.ReasonProcessExited))
			if want := i == fsm.CrashLoopFailures-1; got.Held != want {
				t.Fatalf("crash %d without requests: got held %v, want %v", i, got.Held, want)
			}
			w.pass(lastRetry)
			if !got.Held {
				w.up(t)
			}
		}
	})
}

// R11: an exit that the daemon asked for is not the fault of a request.
func TestRequestedExitAsksForNoRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.close()
		w.actor.deps.RequestsEnded = func(messages.Launch) bool {
			t.Error("got asked for requests after an exit that was asked for, want no question")
			return true
		}
		w.serve()
		defer w.close()
		w.ready(t)
		w.send(messages.StopRequested{Reply: make(chan messages.Reason, 1)})
		for _, drain := range taken[messages.Drain](w.frontDoor) {
			drain.Reply <- 0
		}
		w.pass(time.Second)
		w.send(messages.RuntimeExited{Launch: w.snapshot.Get().Launch, Requested: true})
	})
}
