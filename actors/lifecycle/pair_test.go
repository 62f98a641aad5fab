package lifecycle

import (
	"testing"
	"testing/synctest"
	"time"

	"companion/fsm"
	"companion/messages"
)

// inWorld runs f in a synctest bubble with a new world.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer func() { w.close() }()
		f(t, w)
	})
}

func lastGood(version byte) messages.ArtifactsVerified {
	v := verified(version)
	v.LastGood = true
	return v
}

func lostModel(version byte, reason messages.Reason) messages.IntegrityLost {
	return messages.IntegrityLost{Artifact: "m", SHA256: [32]byte{version}, Reason: reason}
}

// everyLoss lists each reason that provision or process may report for one artifact.
var everyLoss = []messages.Reason{
	messages.ReasonDigestMismatch, messages.ReasonSizeMismatch, messages.ReasonBinaryUntrusted, messages.ReasonTransferFailed,
	messages.ReasonBadStatus, messages.ReasonNoSpace, messages.ReasonSourceNotAllowed, messages.ReasonSchemeNotAllowed,
	messages.ReasonMalformedSpec, messages.ReasonInvalidModelPath, messages.ReasonSignInNeeded, messages.ReasonNotReady,
	messages.ReasonManifestExpired, messages.ReasonNoSuchTarget, messages.ReasonManifestUnreachable,
}

// M13: a failure of a newer model, whatever its reason, changes nothing for the verified one that serves, and
// the verified one still comes back after a crash.
func TestFailureOfNewerModel(t *testing.T) {
	for _, reason := range everyLoss {
		t.Run(string(reason), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.ready(t)
				got := w.send(lostModel(2, reason))
				if !got.Available || len(taken[messages.Kill](w.process)) != 0 {
					t.Fatalf("after the failure of another model: got %+v, want available and no Kill", got)
				}
				w.send(exited(1, messages.ReasonProcessExited))
				w.pass(time.Second)
				w.up(t)
			})
		})
	}
}

// M13: the same while the last known good pair is still starting.
func TestFailureOfNewerModelDuringStart(t *testing.T) {
	for _, reason := range everyLoss {
		t.Run(string(reason), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.send(messages.RuntimeAbsent{}, messages.DoorBound{BaseURL: "u"}, messages.TokenStored{}, lastGood(1))
				if got := w.send(lostModel(2, reason)); !got.Facts.Verified {
					t.Fatalf("got %+v, want the last known good pair still verified", got)
				}
				w.up(t)
			})
		})
	}
}

// M6, M13: wrong bytes of a running artifact end the launch, and the pair that was ready before is started.
func TestWrongBytesOfRunningModel(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.ready(t)
		w.send(verified(2)) // an upgrade
		w.drain(t)
		w.send(messages.RuntimeExited{Launch: 1, Requested: true})
		if got := w.send(lostModel(2, messages.ReasonDigestMismatch)); got.Available {
			t.Fatalf("got %+v, want not available", got)
		}
		if kills := taken[messages.Kill](w.process); len(kills) == 0 || kills[len(kills)-1].Launch != 2 {
			t.Fatalf("got %+v, want a Kill of launch 2", kills)
		}
		w.send(messages.RuntimeExited{Launch: 2, Requested: true})
		spawns := taken[messages.Spawn](w.process)
		if len(spawns) == 0 || spawns[len(spawns)-1].Model.SHA256 != [32]byte{1} {
			t.Fatalf("got %+v, want a Spawn of model 1", spawns)
		}
	})
}

// drain answers a Drain for the front door.
func (w *world) drain(t *testing.T) {
	t.Helper()
	drains := taken[messages.Drain](w.frontDoor)
	if len(drains) == 0 {
		t.Fatal("got no Drain, want one")
	}
	drains[len(drains)-1].Reply <- 0
	synctest.Wait()
}

// M12, M13: after a restart of the daemon, a newer pair replaces the last known good one only when that is ready. If the
// newer pair fails, the last known good one is started, and the newer one is not tried again.
func TestLastGoodSurvivesRestart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.send(messages.RuntimeAbsent{}, messages.DoorBound{BaseURL: "u"}, messages.TokenStored{}, lastGood(1), verified(2))
		spawns := taken[messages.Spawn](w.process)
		if len(spawns) != 1 || spawns[0].Model.SHA256 != [32]byte{1} {
			t.Fatalf("got %+v, want a Spawn of the last known good pair", spawns)
		}
		w.send(messages.RuntimeStarted{Launch: 1, PID: 7}, messages.BackEndUp{Launch: 1}, messages.HealthSucceeded{Launch: 1, At: time.Now()})
		w.drain(t)
		w.send(messages.RuntimeExited{Launch: 1, Requested: true})
		for launch := messages.Launch(2); ; launch++ {
			spawns := taken[messages.Spawn](w.process)
			if len(spawns) != 1 || spawns[0].Launch != launch {
				t.Fatalf("got %+v, want one Spawn of launch %d", spawns, launch)
			}
			if spawns[0].Model.SHA256 == [32]byte{1} {
				break
			}
			if launch > 2 {
				t.Fatalf("got launch %d, want no launch of the failed pair", launch)
			}
			w.send(exited(launch, messages.ReasonProcessExited))
			w.pass(time.Minute)
		}
		w.send(messages.RuntimeStarted{Launch: 3, PID: 7}, messages.BackEndUp{Launch: 3},
			messages.HealthSucceeded{Launch: 3, At: time.Now()})
		// Provision repeats its offers at every refresh of the manifest.
		got := w.send(lastGood(1), verified(2))
		if !got.Available || len(taken[messages.Kill](w.process)) != 0 {
			t.Fatalf("after a repeated offer of the rejected pair: got %+v, want it still available", got)
		}
	})
}

// M13: the last known good pair is the fallback of a newer one even if it has not become ready in this daemon.
func TestFallbackBeforeReady(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.send(messages.RuntimeAbsent{}, messages.DoorBound{BaseURL: "u"}, messages.TokenStored{}, lastGood(1))
		w.send(verified(2), exited(1, messages.ReasonProcessExited))
		w.pass(time.Minute)
		w.send(exited(2, messages.ReasonProcessExited))
		w.pass(time.Minute)
		var started []byte
		for _, spawn := range taken[messages.Spawn](w.process) {
			started = append(started, spawn.Model.SHA256[0])
		}
		if string(started) != string([]byte{1, 2, 1}) {
			t.Fatalf("got Spawns of models %v, want 1 2 1", started)
		}
	})
}

// M13: the last known good pair never replaces a newer one that runs or is offered.
func TestLastGoodReplacesNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.ready(t)
		if got := w.send(lastGood(9)); !got.Available || len(taken[messages.Drain](w.frontDoor)) != 0 {
			t.Fatalf("got %+v, want no restart", got)
		}
		w.send(exited(1, messages.ReasonProcessExited))
		w.pass(time.Second)
		spawns := taken[messages.Spawn](w.process)
		if len(spawns) == 0 || spawns[len(spawns)-1].Model.SHA256 != [32]byte{1} {
			t.Fatalf("got %+v, want a Spawn of model 1", spawns)
		}
	})
}

// M1, M13: when the manifest allows no pair, the last known good pair ends as well.
func TestWithdrawnManifest(t *testing.T) {
	for _, reason := range []messages.Reason{messages.ReasonManifestExpired, messages.ReasonNoSuchTarget} {
		inWorld(t, func(t *testing.T, w *world) {
			w.send(lastGood(1))
			w.ready(t)
			got := w.send(messages.IntegrityLost{Artifact: "m", Reason: reason})
			if got.Available || got.Facts.Verified {
				t.Fatalf("%s: got %+v, want nothing verified", reason, got)
			}
			w.drain(t)
			w.send(messages.RuntimeExited{Launch: 1, Requested: true})
			taken[messages.Spawn](w.process)
			w.pass(time.Hour)
			if spawns := taken[messages.Spawn](w.process); len(spawns) != 0 {
				t.Fatalf("%s: got %+v, want no Spawn", reason, spawns)
			}
			// A new valid manifest offers another model. If that fails, no withdrawn pair is the fallback.
			w.send(verified(3))
			w.send(exited(2, messages.ReasonProcessExited))
			w.pass(time.Minute)
			for _, spawn := range taken[messages.Spawn](w.process) {
				if spawn.Model.SHA256 != [32]byte{3} {
					t.Fatalf("%s: got a Spawn of %v, want only model 3", reason, spawn.Model.SHA256[0])
				}
			}
		})
	}
}

// M13: the manifest actor gets PairReady once when a pair becomes ready.
func TestPairReady(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.ready(t)
		w.send(messages.HealthSucceeded{Launch: 1, At: time.Now()})
		told := taken[messages.PairReady](w.manifest)
		if len(told) != 1 || told[0].Model != [32]byte{1} {
			t.Fatalf("got %+v, want model 1 once", told)
		}
	})
}

// M13, A9: a new incarnation adopts a newer runtime although the last known good pair is offered first, and
// does not restart it. Wrong bytes that were reported before the adoption end it.
func TestAdoptionAmongTwoOffers(t *testing.T) {
	for _, wrong := range []bool{false, true} {
		inWorld(t, func(t *testing.T, w *world) {
			w.ready(t)
			w.close()
			w.serve()
			w.send(messages.DoorBound{BaseURL: "u"}, messages.TokenStored{}, lastGood(7))
			if wrong {
				w.send(lostModel(1, messages.ReasonDigestMismatch))
			}
			w.send(messages.RuntimeStarted{Launch: 1, PID: 7, Model: [32]byte{1}})
			if kills := taken[messages.Kill](w.process); (len(kills) == 1) != wrong {
				t.Fatalf("wrong bytes %t: got Kills %+v, want one only with wrong bytes", wrong, kills)
			}
			if wrong {
				return
			}
			got := w.send(messages.BackEndUp{Launch: 1}, messages.HealthSucceeded{Launch: 1, At: time.Now()}, verified(1))
			if !got.Available || len(taken[messages.Drain](w.frontDoor)) != 0 {
				t.Fatalf("got %+v, want the adopted runtime available", got)
			}
		})
	}
}

// A8: a runtime that this system cannot load is held at once, with the reason, unless there is another pair to fall back
// to.
func TestLibraryMissing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.send(messages.RuntimeAbsent{}, messages.DoorBound{BaseURL: "u"}, messages.TokenStored{}, verified(1))
		got := w.send(exited(1, messages.ReasonLibraryMissing))
		if !got.Held || got.Reason != messages.ReasonLibraryMissing || got.LastExit.Reason != messages.ReasonLibraryMissing {
			t.Fatalf("got %+v, want held with library_missing", got)
		}
		if w.pass(time.Minute); len(taken[messages.Spawn](w.process)) != 1 {
			t.Fatal("while held: got another Spawn, want none")
		}
	})
	inWorld(t, func(t *testing.T, w *world) {
		w.ready(t)
		w.send(verified(2))
		w.drain(t)
		w.send(messages.RuntimeExited{Launch: 1, Requested: true})
		if got := w.send(exited(2, messages.ReasonLibraryMissing)); got.Held {
			t.Fatalf("got %+v, want the proven pair started", got)
		}
		w.pass(time.Minute)
		spawns := taken[messages.Spawn](w.process)
		if len(spawns) == 0 || spawns[len(spawns)-1].Model.SHA256 != [32]byte{1} {
			t.Fatalf("got %+v, want a Spawn of model 1", spawns)
		}
	})
}

// M9, M10, A8: an artifact that the process actor refuses is hashed again, and the next start is immediate. If the process
// actor goes on refusing what provision finds right, the starts wait like after crashes, up to the hold. One start that becomes
// ready ends that.
func TestTwoChecksThatDisagree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.ready(t)
		w.send(exited(1, messages.ReasonProcessExited))
		w.pass(time.Minute)
		refuse := func() messages.Snapshot {
			t.Helper()
			spawns := taken[messages.Spawn](w.process)
			if len(spawns) != 1 {
				t.Fatalf("got %d Spawn messages, want 1", len(spawns))
			}
			launch := spawns[0].Launch
			w.send(messages.IdentityChanged{Launch: launch, Artifact: "r"})
			if looks := len(taken[messages.Reverify](w.provision)); looks != 1 {
				t.Fatalf("got %d Reverify messages, want 1", looks)
			}
			w.send(exited(launch, messages.ReasonDigestMismatch))
			if got := len(taken[messages.Spawn](w.process)); got != 0 {
				t.Fatalf("before the verdict: got %d Spawn messages, want none", got)
			}
			return w.send(verified(1))
		}
		if got := refuse(); got.State != messages.StateStarting || got.Restarts != 1 {
			t.Fatalf("first refusal: got %+v, want an immediate start and no crash counted", got)
		}
		got := refuse()
		for range 10 {
			if got.Held {
				break
			}
			if got.State != messages.StateStopped || got.RetryAt.IsZero() {
				t.Fatalf("further refusal: got %+v, want a pause", got)
			}
			w.pass(time.Until(got.RetryAt))
			got = refuse()
		}
		if !got.Held {
			t.Fatalf("got %+v, want held", got)
		}
		w.pass(fsm.CrashLoopWindow)
		w.up(t)
		w.send(exited(w.snapshot.Get().Launch, messages.ReasonProcessExited))
		w.pass(time.Minute)
		if got := refuse(); got.State != messages.StateStarting {
			t.Fatalf("first refusal after a ready launch: got %+v, want an immediate start", got)
		}
	})
}
