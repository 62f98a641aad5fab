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
				t.Fatalf("crash %d: got %+v, want neither available nor held", i, got)
			}
			w.up(t)
		}
		for range fsm.CrashLoopFailures {
			w.send(exited(w.snapshot.Get().Launch, messages.ReasonProcessExited))
			w.pass(time.Minute / 2)
			w.send(messages.ActorStarted{Actor: messages.ActorProcess})
		}
		if got := w.snapshot.Get(); !got.Held {
			t.Fatalf("got %+v, want held", got)
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
			t.Fatalf("without a process actor: got %+v, want stopped, not available, no Spawn", got)
		}
		w.send(verified(1), messages.ActorStarted{Actor: messages.ActorProcess})
		w.up(t)
		if got := w.snapshot.Get(); got.Restarts != 0 {
			t.Fatalf("got %+v, want no restart counted", got)
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
			t.Fatalf("after the end of the actor: got %+v, want not available, with launch 1 and Wanted kept", got)
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
			t.Fatalf("after a success of a dead runtime: got %+v, want not available", got)
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
			t.Fatalf("got %+v, want starting and no restart counted", got)
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
			t.Fatalf("after a success through the old front door: got available %v, want false and one requested probe", got.Available)
		}
		if got = w.send(messages.HealthSucceeded{Launch: 1, At: time.Now()}); !got.Available {
			t.Fatalf("after a success through the new front door: got %+v, want available", got)
		}
	})
}

// A9: a running launch that is older than the one that the previous incarnation had asked for is killed, not
// adopted.
func TestSupersededLaunchIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.ready(t)
		w.send(messages.ActorStarted{Actor: messages.ActorProcess}) // requests launch 2
		w.close()
		w.serve()
		defer w.close()
		taken[messages.Kill](w.process)
		got := w.send(verified(1), messages.RuntimeStarted{Launch: 1})
		kills := taken[messages.ToProcess](w.process)
		if got.State != messages.StateStopped || len(kills) != 2 || kills[0] != (messages.Kill{Launch: 1}) || kills[1] != (messages.ConfirmProcess{}) {
			t.Fatalf("got %v, %+v; want Kill of launch 1, then ConfirmProcess, in stopped", kills, got)
		}
		got = w.send(messages.RuntimeExited{Launch: 1, Requested: true}, messages.RuntimeAbsent{})
		if spawns := taken[messages.Spawn](w.process); len(spawns) != 1 || spawns[0].Launch != 3 {
			t.Fatalf("got %v, %+v; want one Spawn of launch 3", spawns, got)
		}
		w.send(messages.RuntimeStarted{Launch: 2})
		if late := taken[messages.Kill](w.process); len(late) != 1 || late[0].Launch != 2 {
			t.Fatalf("got %v, want one Kill of launch 2", late)
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
			t.Fatal("before the deadline of the exit: got a Kill, want none")
		}
		w.pass(1)
		if kills := taken[messages.Kill](w.process); len(kills) != 1 || kills[0].Launch != 1 {
			t.Fatalf("got %v, want one Kill of launch 1", kills)
		}
		got := w.send(messages.RuntimeExited{Launch: 1, Requested: true})
		if got.Restarts != 1 || got.RetryAt.IsZero() || got.LastExit.Reason != messages.ReasonProcessExited {
			t.Fatalf("got %+v, want one restart, a retry time and last exit process_exited", got)
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
			t.Fatal("got no Kill, want one")
		}
		got := w.send(messages.RuntimeExited{Launch: 1, Requested: true})
		if got.Restarts != 1 || got.LastExit.Reason != messages.ReasonRAMOverLimit {
			t.Fatalf("got last exit %+v, want ram_over_limit after one restart", got.LastExit)
		}
	})
}

// R11, A8: no number of crashes with requests in the runtime causes a hold. The pause grows only after ten in an hour,
// up to half a minute. Crashes without requests still cause a hold. RequestsEnded is called once for each launch.
func TestCrashesByRequestsAreNoCrashLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []messages.Launch
		byRequest := true
		w := newWorld()
		w.close()
		w.actor.deps.RequestsEnded = func(l messages.Launch, byItself bool) bool {
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
			want := firstRetry
			if later := i - fsm.RequestDeaths; later >= 0 {
				want = min(time.Second<<later, lastRetry)
			}
			if pause := time.Until(got.RetryAt); got.Held || pause != want {
				t.Fatalf("crash %d by a request: got held %v and a pause of %v, want false and %v", i, got.Held, pause, want)
			}
			if len(asked) != i+1 || asked[i] != launch {
				t.Fatalf("crash %d: got asked about %v, want once about launch %d", i, asked, launch)
			}
			w.pass(want)
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

// R11: the crashes with requests are forgotten after an hour, and when the user asks for a start; a healthy minute, which
// forgives other crashes, does not matter.
func TestCrashesByRequestsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.close()
		byRequest := true
		w.actor.deps.RequestsEnded = func(messages.Launch, bool) bool { return byRequest }
		w.serve()
		defer w.close()
		w.ready(t)
		crash := func(when string, want time.Duration) {
			t.Helper()
			got := w.send(exited(w.snapshot.Get().Launch, messages.ReasonProcessExited))
			if pause := time.Until(got.RetryAt); pause != want {
				t.Fatalf("%s: got a pause of %v, want %v", when, pause, want)
			}
			w.pass(want)
			w.up(t)
		}
		for range fsm.RequestDeaths {
			crash("one of the first", firstRetry)
		}
		byRequest = false
		w.send(exited(w.snapshot.Get().Launch, messages.ReasonProcessExited))
		w.pass(lastRetry)
		w.up(t)
		w.pass(fsm.HealthyAfter)
		if got := w.snapshot.Get().Failures; len(got.At) != 0 {
			t.Fatalf("after a healthy minute: got %d other crashes, want 0", len(got.At))
		}
		byRequest = true
		crash("one more", time.Second)
		w.pass(fsm.RequestDeathWindow)
		for range fsm.RequestDeaths {
			crash("an hour later", firstRetry)
		}
		crash("one more", time.Second)
		w.send(messages.RestartRequested{Reply: make(chan messages.Reason, 1)})
		if got := w.snapshot.Get().Failures.WithRequests; len(got) != 0 {
			t.Errorf("after the user's command: got %d crashes, want 0", len(got))
		}
	})
}

// R11: only of a runtime that has died by itself the requests are noted, also while it is drained, and when this actor ends it
// because it takes too long to die. The others were ended by the daemon.
func TestDeathIsNoted(t *testing.T) {
	dies := func(w *world) messages.Snapshot { return w.send(exited(1, messages.ReasonProcessExited)) }
	requested := func(w *world) messages.Snapshot { return w.send(messages.RuntimeExited{Launch: 1, Requested: true}) }
	drains := func(w *world) {
		w.send(messages.ForgetPrompts{})
		for _, drain := range taken[messages.Drain](w.frontDoor) {
			drain.Reply <- 0
		}
	}
	begins := func(w *world) { w.send(messages.HealthFailed{Launch: 1, Reason: messages.ReasonProcessExited}) }
	hangs := func(w *world) {
		w.send(messages.HealthFailed{Launch: 1, Reason: messages.ReasonProbeFailed, Hung: true})
	}
	for name, test := range map[string]struct {
		before []func(*world)
		ends   func(*world) messages.Snapshot
		noted  bool
		crash  bool
	}{
		"dies":                        {nil, dies, true, true},
		"begins to die":               {[]func(*world){begins}, dies, true, true},
		"takes too long to die":       {[]func(*world){begins, func(w *world) { w.pass(exitPatience) }}, requested, true, true},
		"hangs while it dies":         {[]func(*world){begins, hangs}, requested, true, true},
		"dies while drained":          {[]func(*world){func(w *world) { w.send(messages.ForgetPrompts{}) }}, dies, true, false},
		"hangs":                       {[]func(*world){hangs}, requested, false, true},
		"begins to die after its end": {[]func(*world){hangs, begins}, requested, false, true},
		"is drained":                  {[]func(*world){drains}, requested, false, false},
		"is stopped": {[]func(*world){func(w *world) {
			w.send(messages.StopRequested{Reply: make(chan messages.Reason, 1)})
			drains(w)
		}}, requested, false, false},
		"its model has changed in its sleep": {nil, requested, false, false},
		"ends with the process actor": {nil, func(w *world) messages.Snapshot {
			return w.send(messages.ActorStarted{Actor: messages.ActorProcess})
		}, false, false},
		"ends with the process actor while drained": {[]func(*world){func(w *world) { w.send(messages.ForgetPrompts{}) }}, func(w *world) messages.Snapshot {
			return w.send(messages.ActorStarted{Actor: messages.ActorProcess})
		}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				type end struct {
					launch   messages.Launch
					byItself bool
				}
				var got []end
				w := newWorld()
				w.close()
				w.actor.deps.RequestsEnded = func(l messages.Launch, byItself bool) bool {
					got = append(got, end{l, byItself})
					return true
				}
				w.serve()
				defer w.close()
				w.ready(t)
				for _, step := range test.before {
					step(w)
				}
				after := test.ends(w)
				if want := (end{1, test.noted}); len(got) != 1 || got[0] != want {
					t.Errorf("got the ends %+v, want %+v", got, want)
				}
				if crash := after.LastExit != nil; crash != test.crash {
					t.Errorf("got a crash %v, want %v", crash, test.crash)
				}
			})
		})
	}
}

// A8: a hold after failures with one cause that the user can remove shows this cause, also after a restart of the actor.
func TestHoldNamesItsCause(t *testing.T) {
	for last, want := range map[messages.Reason]messages.Reason{
		messages.ReasonRAMOverLimit:  messages.ReasonRAMOverLimit,
		messages.ReasonNoSpace:       messages.ReasonNoSpace,
		messages.ReasonSpawnFailed:   messages.ReasonCrashLoop,
		messages.ReasonProcessExited: messages.ReasonCrashLoop,
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.ready(t)
			for i := range fsm.CrashLoopFailures {
				got := w.send(exited(w.snapshot.Get().Launch, last))
				if i < fsm.CrashLoopFailures-1 {
					w.pass(time.Until(got.RetryAt))
					w.up(t)
				}
			}
			if got := w.snapshot.Get(); !got.Held || got.Reason != want {
				t.Errorf("%s: got held %t with %s, want %s", last, got.Held, got.Reason, want)
			}
			w.close()
			w.serve()
			defer w.close()
			got := w.send(messages.RuntimeAbsent{}, verified(1), messages.DoorBound{BaseURL: "u"}, messages.TokenStored{})
			if !got.Held || got.Reason != want {
				t.Errorf("%s, restarted: got held %t with %s, want %s", last, got.Held, got.Reason, want)
			}
		})
	}
}
