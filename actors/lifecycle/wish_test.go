package lifecycle

import (
	"testing"
	"testing/synctest"
	"time"

	"companion/fsm"
	"companion/messages"
)

// crash ends launch after launch until the crash loop is held.
func (w *world) crash(t *testing.T) {
	t.Helper()
	for range fsm.CrashLoopFailures {
		if got := w.send(exited(w.snapshot.Get().Launch, messages.ReasonProcessExited)); !got.Held {
			w.pass(time.Until(got.RetryAt))
			w.up(t)
		}
	}
	if got := w.snapshot.Get(); !got.Held {
		t.Fatalf("got %+v, want held", got)
	}
}

// X3, A3: a start or restart without verified artifacts is answered at once, with the reason if it is known, and
// is kept: the runtime starts when they are verified.
func TestNothingToStartIsSaidAtOnce(t *testing.T) {
	for name, test := range map[string]struct {
		before []messages.ToLifecycle
		want   messages.Reason
		looks  int // how many Reverify messages provision gets
	}{
		"no report yet":    {nil, messages.ReasonNotReady, 0},
		"signed out":       {[]messages.ToLifecycle{messages.IntegrityLost{Reason: messages.ReasonSignInNeeded}}, messages.ReasonSignInNeeded, 1},
		"on its way":       {[]messages.ToLifecycle{messages.IntegrityLost{Reason: messages.ReasonNotReady}}, messages.ReasonNotReady, 0},
		"no process actor": {[]messages.ToLifecycle{messages.ActorEnded{Actor: messages.ActorProcess}}, messages.ReasonNotReady, 0},
	} {
		for command, request := range map[string]func(chan<- messages.Reason) messages.ToLifecycle{
			"start":   func(r chan<- messages.Reason) messages.ToLifecycle { return messages.StartRequested{Reply: r} },
			"restart": func(r chan<- messages.Reason) messages.ToLifecycle { return messages.RestartRequested{Reply: r} },
		} {
			t.Run(name+", "+command, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld()
					defer w.close()
					w.send(messages.StopRequested{Reply: make(chan messages.Reason, 1)}, messages.RuntimeAbsent{})
					w.send(test.before...)
					reply := make(chan messages.Reason, 1)
					got := w.send(request(reply))
					if len(reply) != 1 || <-reply != test.want || !got.Wanted {
						t.Fatalf("got %+v, want the reply %s and the runtime wanted", got, test.want)
					}
					if looks := len(taken[messages.Reverify](w.provision)); looks != test.looks {
						t.Errorf("Reverify messages: got %d, want %d", looks, test.looks)
					}
					w.send(messages.ActorStarted{Actor: messages.ActorProcess}, verified(1))
					if len(taken[messages.Spawn](w.process)) != 1 {
						t.Error("after the artifacts are verified: got no Spawn, want one")
					}
				})
			})
		}
	}
}

// X3, A9: a restart that is requested before a new incarnation knows of the running launch ends that launch, and
// is answered when the next one starts.
func TestRestartOfAnAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.ready(t)
		w.close()
		w.serve()
		defer w.close()
		reply := make(chan messages.Reason, 1)
		w.send(verified(1), messages.RestartRequested{Reply: reply}, messages.RuntimeStarted{Launch: 1})
		if kills := taken[messages.Kill](w.process); len(kills) != 1 || kills[0].Launch != 1 || len(reply) != 0 {
			t.Fatalf("got Kills %v, %d replies; want a Kill of launch 1, no reply", kills, len(reply))
		}
		got := w.send(messages.RuntimeExited{Launch: 1, Requested: true})
		if spawns := taken[messages.Spawn](w.process); len(spawns) != 1 || len(reply) != 1 || <-reply != messages.ReasonOK || got.Restarts != 0 {
			t.Fatalf("got %d Spawns, %+v; want one, the reply ok and no restart counted", len(spawns), got)
		}
	})
}

// X3: a stop that is cancelled by a start, and a restart that is cancelled by a stop, are answered with
// invalid_transition.
func TestOvertakenCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.ready(t)
		stop, start, restart, again := make(chan messages.Reason, 1), make(chan messages.Reason, 1), make(chan messages.Reason, 1), make(chan messages.Reason, 1)
		w.send(messages.StopRequested{Reply: stop}, messages.StartRequested{Reply: start})
		if len(stop) != 1 || <-stop != messages.ReasonInvalidTransition || len(start) != 1 || <-start != messages.ReasonOK {
			t.Fatal("stop, then start: got other replies, want invalid_transition for the stop and ok for the start")
		}
		taken[messages.Drain](w.frontDoor)[0].Reply <- 0
		synctest.Wait()
		w.send(messages.RuntimeExited{Launch: 1, Requested: true})
		launch := w.up(t)
		w.send(messages.RestartRequested{Reply: restart}, messages.StopRequested{Reply: again})
		if len(restart) != 1 || <-restart != messages.ReasonInvalidTransition {
			t.Fatal("restart, then stop: got another reply, want invalid_transition for the restart")
		}
		taken[messages.Drain](w.frontDoor)[0].Reply <- 0
		synctest.Wait()
		w.send(messages.RuntimeExited{Launch: launch, Requested: true})
		if len(again) != 1 || <-again != messages.ReasonOK || len(taken[messages.Spawn](w.process)) != 0 {
			t.Fatal("the last stop: got another reply or a Spawn, want ok and none")
		}
	})
}

// A8, A9: a hold survives a restart of the lifecycle actor until time or the user ends it, and so do the
// failures before a hold.
func TestHoldOutlivesTheActor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.ready(t)
		w.crash(t)
		again := func() messages.Snapshot {
			w.close()
			w.serve()
			return w.send(messages.RuntimeAbsent{}, verified(1), messages.DoorBound{BaseURL: "u"}, messages.TokenStored{})
		}
		got := again()
		defer func() { w.close() }()
		if spawns := taken[messages.Spawn](w.process); len(spawns) != 0 || !got.Held || got.Reason != messages.ReasonCrashLoop {
			t.Fatalf("got %d Spawns, %+v; want none while held with crash_loop", len(spawns), got)
		}
		w.pass(fsm.CrashLoopWindow)
		launch := w.up(t)
		for range fsm.CrashLoopFailures - 1 {
			got = w.send(exited(launch, messages.ReasonProcessExited))
			w.pass(time.Until(got.RetryAt))
			launch = w.up(t)
		}
		again()
		if got = w.send(exited(w.up(t), messages.ReasonProcessExited)); !got.Held {
			t.Fatalf("got %+v, want held: the failures survive the restart", got)
		}
	})
}

// R12: a launch that must not use speculative decoding is drained and replaced by one without; a late or repeated
// message changes nothing, and other artifacts may use it again.
func TestSpeculationUnfit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.ready(t)
		launch := w.snapshot.Get().Launch
		unfit := messages.SpeculationUnfit{Launch: launch}
		if got := w.send(unfit); got.State != messages.StateReady {
			t.Fatalf("launch without speculation: got %s, want ready", got.State)
		}
		if got := w.send(messages.BackEndUp{Launch: launch, BackEnd: w.snapshot.Get().BackEnd, Speculates: true}); !got.Speculates {
			t.Fatalf("got %+v, want a launch with speculation", got)
		}
		if got := w.send(messages.SpeculationUnfit{Launch: launch - 1}); got.State != messages.StateReady {
			t.Fatalf("of an earlier launch: got %s, want ready", got.State)
		}
		if got := w.send(unfit, unfit); got.State != messages.StateDraining {
			t.Fatalf("got %s, want draining", got.State)
		}
		for _, drain := range taken[messages.Drain](w.frontDoor) {
			drain.Reply <- 0
		}
		synctest.Wait()
		w.send(messages.RuntimeExited{Launch: launch, Requested: true})
		spawns := taken[messages.Spawn](w.process)
		if len(spawns) != 1 || !spawns[0].Plain || w.snapshot.Get().Speculates {
			t.Fatalf("got %+v and %+v, want one Spawn without speculation", spawns, w.snapshot.Get())
		}
		if got := w.snapshot.Get(); got.Restarts != 0 || got.LastExit != nil {
			t.Errorf("got %+v, want no crash", got)
		}
		next := spawns[0].Launch
		w.send(messages.RuntimeStarted{Launch: next, PID: 8}, messages.BackEndUp{Launch: next, BackEnd: messages.BackEnd{Network: "unix", Address: "s"}},
			messages.HealthSucceeded{Launch: next, At: time.Now()}, verified(2))
		for _, drain := range taken[messages.Drain](w.frontDoor) {
			drain.Reply <- 0
		}
		synctest.Wait()
		w.send(messages.RuntimeExited{Launch: next, Requested: true})
		if spawns := taken[messages.Spawn](w.process); len(spawns) != 1 || spawns[0].Plain {
			t.Errorf("other artifacts: got %+v, want one Spawn with speculation", spawns)
		}
	})
}

// R14, A5: a model that is asleep stays available while the listings succeed, and no longer; its file is checked at each
// success. What a crash or a new launch changes, sleep does not outlive.
func TestAsleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.ready(t)
		launch := w.snapshot.Get().Launch
		taken[messages.CheckModel](w.process)
		for range 10 {
			w.pass(5 * time.Second)
			got := w.send(messages.HealthSucceeded{Launch: launch, At: time.Now(), Asleep: true})
			if !got.Available || !got.Asleep || got.State != messages.StateReady {
				t.Fatalf("got %+v, want ready, available and asleep", got)
			}
			if checks := taken[messages.CheckModel](w.process); len(checks) != 1 || checks[0].Launch != launch {
				t.Fatalf("got the checks %+v, want one of launch %d", checks, launch)
			}
		}
		if got := w.send(messages.HealthSucceeded{Launch: launch, At: time.Now()}); got.Asleep || len(taken[messages.CheckModel](w.process)) != 0 {
			t.Errorf("after a request: got %+v, want awake and no check", got)
		}
		w.send(messages.HealthSucceeded{Launch: launch, At: time.Now(), Asleep: true})
		if got := w.pass(DefaultRecency + time.Nanosecond); got.Available {
			t.Errorf("without a success: got %+v, want not available", got)
		}
		w.send(messages.HealthSucceeded{Launch: launch, At: time.Now(), Asleep: true})
		if got := w.send(exited(launch, messages.ReasonProcessExited)); got.Available || got.Asleep {
			t.Errorf("after the exit: got %+v, want neither available nor asleep", got)
		}
	})
}

// R13: after a sign-out the runtime, which holds the prompts, is drained and replaced, which does not count as a
// crash; one that has had no request goes on.
func TestForgetPrompts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.send(messages.ForgetPrompts{})
		w.ready(t)
		launch := w.snapshot.Get().Launch
		if got := w.send(messages.ForgetPrompts{}); got.State != messages.StateDraining {
			t.Fatalf("got %s, want draining", got.State)
		}
		for _, drain := range taken[messages.Drain](w.frontDoor) {
			drain.Reply <- 0
		}
		synctest.Wait()
		w.send(messages.RuntimeExited{Launch: launch, Requested: true})
		next := w.up(t)
		if got := w.snapshot.Get(); next == launch || got.Restarts != 0 || got.LastExit != nil {
			t.Errorf("got %+v, want another launch and no crash", got)
		}
		w.send(messages.StopRequested{Reply: make(chan messages.Reason, 1)})
		if got := w.send(messages.ForgetPrompts{}); got.Wanted {
			t.Errorf("after a stop: got %+v, want it to stay stopped", got)
		}
	})
}

// R13: after a sign-out an adopted runtime is replaced as well, at every step of its adoption: it may hold prompts.
func TestForgetPromptsOfAnAdopted(t *testing.T) {
	for name, forgetAt := range map[string]int{"not reported yet": 0, "not verified yet": 1, "starting": 2} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.ready(t)
			w.close()
			w.serve()
			defer w.close()
			taken[messages.Kill](w.process)
			for i, step := range []func(){
				func() { w.send(messages.RuntimeStarted{Launch: 1, PID: 7}) },
				func() { w.vouch() },
				func() {},
			} {
				if i == forgetAt {
					w.send(messages.ForgetPrompts{})
				}
				step()
			}
			if kills := taken[messages.Kill](w.process); len(kills) != 1 || kills[0].Launch != 1 {
				t.Fatalf("%s: got the Kills %v, want one of launch 1", name, kills)
			}
			got := w.send(messages.RuntimeExited{Launch: 1, Requested: true}, messages.DoorBound{BaseURL: "u"}, messages.TokenStored{}, verified(1))
			if got.Restarts != 0 || got.State != messages.StateStarting || got.Launch != 2 {
				t.Errorf("%s: got %+v, want launch 2 to start and no crash", name, got)
			}
		})
	}
}

// R13: a launch that has had no request since its start goes on after a sign-out.
func TestForgetPromptsLeavesANewLaunch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.send(messages.RuntimeAbsent{}, verified(1), messages.RuntimeStarted{Launch: 1, PID: 7}, messages.ForgetPrompts{})
		if kills, got := taken[messages.Kill](w.process), w.snapshot.Get(); len(kills) != 0 || got.State != messages.StateStarting {
			t.Errorf("got the Kills %v in %s, want none while starting", kills, got.State)
		}
	})
}
