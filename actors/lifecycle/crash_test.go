package lifecycle

import (
	"testing"
	"testing/synctest"
	"time"

	"companion/fsm"
	"companion/messages"
)

// A8, A9: an actor that dies under a ready runtime is no crash of the runtime, however often; one
// that dies at every start is a crash loop.
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

// A9: a new front door is available only once it has been seen to work, and that is asked for.
func TestNewFrontDoorIsProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close()
		w.ready(t)
		taken[messages.ConfirmHealth](w.health)
		got := w.send(messages.ActorStarted{Actor: messages.ActorFrontDoor}, messages.DoorBound{BaseURL: "http://127.0.0.1:2/v1"})
		if got.Available || len(taken[messages.ConfirmHealth](w.health)) != 1 {
			t.Fatalf("available %v on the strength of the old front door, or nobody was asked", got.Available)
		}
		if got = w.send(messages.HealthSucceeded{Launch: 1, At: time.Now()}); !got.Available {
			t.Fatalf("not available again: %+v", got)
		}
	})
}
