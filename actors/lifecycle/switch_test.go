package lifecycle

import (
	"testing"
	"time"

	"companion/messages"
)

// await sends AwaitReady for a model and returns the reply.
func (w *world) await(model byte) chan messages.Reason {
	reply := make(chan messages.Reason, 1)
	w.send(messages.AwaitReady{Model: [32]byte{model}, Reply: reply})
	return reply
}

func answered(t *testing.T, reply chan messages.Reason, want messages.Reason) {
	t.Helper()
	select {
	case got := <-reply:
		if got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	default:
		t.Fatalf("got no reply, want %s", want)
	}
}

// M12: a switch is answered when the new model is ready.
func TestSwitch(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.ready(t)
		reply := w.await(2)
		w.send(verified(2))
		w.drain(t)
		w.send(messages.RuntimeExited{Launch: 1, Requested: true})
		if len(reply) != 0 {
			t.Fatal("before the model is ready: got a reply, want none")
		}
		w.up(t)
		answered(t, reply, messages.ReasonOK)
		answered(t, w.await(2), messages.ReasonOK) // it is ready already
	})
}

// M12: a model that does not become ready is reported with its reason, and the one before it is started again. A later
// switch lets it try again.
func TestSwitchFails(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.ready(t)
		reply := w.await(2)
		w.send(verified(2))
		w.drain(t)
		w.send(messages.RuntimeExited{Launch: 1, Requested: true}, messages.RuntimeStarted{Launch: 2, PID: 8})
		w.send(exited(2, messages.ReasonProcessExited))
		answered(t, reply, messages.ReasonProcessExited)
		w.pass(time.Second)
		spawns := taken[messages.Spawn](w.process)
		if len(spawns) == 0 || spawns[len(spawns)-1].Model.SHA256 != [32]byte{1} {
			t.Fatalf("got %+v, want a Spawn of model 1", spawns)
		}
		launch := spawns[len(spawns)-1].Launch
		w.send(messages.RuntimeStarted{Launch: launch, PID: 7}, messages.BackEndUp{Launch: launch},
			messages.HealthSucceeded{Launch: launch, At: time.Now()}, verified(1))
		reply = w.await(2)
		w.send(verified(2))
		w.drain(t)
		w.send(messages.RuntimeExited{Launch: launch, Requested: true})
		w.up(t)
		answered(t, reply, messages.ReasonOK)
	})
}

// M6, A9: a model with wrong bytes, a stop, and a runtime that is not wanted end the wait.
func TestSwitchEnds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.ready(t)
		reply := w.await(2)
		w.send(lostModel(2, messages.ReasonDigestMismatch))
		answered(t, reply, messages.ReasonDigestMismatch)
		reply = w.await(2)
		w.send(messages.StopRequested{Reply: make(chan messages.Reason, 1)})
		answered(t, reply, messages.ReasonInvalidTransition)
		answered(t, w.await(2), messages.ReasonOK)
	})
}

// M12: while a ready runtime is replaced by another model, and until the one before it is back if that fails, the snapshot says
// so, names the model that starts, and the log has the length of the gap.
func TestReplacing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.ready(t)
		w.await(2)
		next := verified(2)
		next.Model.Name = "n"
		if s := w.send(next); s.State != messages.StateDraining || !s.Replacing || s.Model.Name != "m" {
			t.Errorf("draining: got %+v, want m, replacing", s)
		}
		w.drain(t)
		if s := w.send(messages.RuntimeExited{Launch: 1, Requested: true}); s.State != messages.StateStarting || !s.Replacing || s.Model.Name != "n" {
			t.Errorf("starting: got %+v, want n, replacing", s)
		}
		w.send(messages.RuntimeStarted{Launch: 2, PID: 8})
		if s := w.send(exited(2, messages.ReasonProcessExited)); !s.Replacing {
			t.Errorf("the new model has failed: got %+v, want replacing", s)
		}
		w.pass(time.Second)
		w.up(t)
		if s := w.snapshot.Get(); s.Replacing {
			t.Errorf("the model before is back: got %+v, want that nothing is replaced", s)
		}
		if n := w.logs.FilterMessage("runtime replaced").Len(); n != 1 {
			t.Errorf("got %d lines with the gap, want 1", n)
		}
	})
}

// M1, A7, A8: nothing is being replaced after a stop, a withdrawal, or the crash of the runtime that serves.
func TestNotReplacing(t *testing.T) {
	for name, end := range map[string]messages.ToLifecycle{
		"stop":       messages.StopRequested{Reply: make(chan messages.Reason, 1)},
		"withdrawal": messages.IntegrityLost{Reason: messages.ReasonManifestExpired},
		"crash":      exited(1, messages.ReasonProcessExited),
	} {
		inWorld(t, func(t *testing.T, w *world) {
			w.ready(t)
			if s := w.send(end); s.Replacing || s.State == messages.StateReady {
				t.Errorf("%s: got %+v, want that nothing is being replaced", name, s)
			}
		})
	}
	inWorld(t, func(t *testing.T, w *world) {
		w.ready(t)
		w.send(verified(2))
		if s := w.send(messages.StopRequested{Reply: make(chan messages.Reason, 1)}); s.Replacing {
			t.Errorf("a stop while it is replaced: got %+v, want that nothing is being replaced", s)
		}
	})
}
