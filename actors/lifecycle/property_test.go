package lifecycle

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"companion/messages"
)

// step is one action of an actor, the user or the clock.
type step struct {
	name  string
	stale bool // about another launch than the current one
}

var stepNames = []string{
	"provision started", "custody started", "frontdoor started", "health started", "process started", "process ended",
	"verified", "integrity lost", "fetch failed", "identity changed", "bound", "unbound", "token", "no token",
	"back end up", "exited", "healthy", "unhealthy", "hung", "memory",
	"start", "stop", "restart", "drained", "a second", "twenty seconds", "ten minutes", "lifecycle restarts",
}

// model holds the facts that must hold by the contract, independent of the actor's implementation.
type model struct {
	verified, bound, token bool
	healthy                time.Time
}

// A1, A2, A3, A5, A6, A9: random messages from random actors in random order. After each one, the state has
// moved only along the table, availability implies every reported fact, and ready is reached only from
// starting.
func TestLifecycleProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{rapid.SampledFrom(stepNames).Draw(rt, "step"), rapid.IntRange(0, 3).Draw(rt, "stale") == 0}
		}), 1, 60).Draw(rt, "steps")
		helpful := rapid.Bool().Draw(rt, "begins available")
		var failure error
		synctest.Test(t, func(t *testing.T) { failure = play(t, steps, helpful) })
		if failure != nil {
			rt.Fatalf("got %v, want none", failure)
		}
	})
}

func play(t *testing.T, steps []step, helpful bool) error {
	w := newWorld()
	defer func() { w.close() }()
	var m model
	if helpful {
		w.ready(t)
		m = model{verified: true, bound: true, token: true, healthy: time.Now()}
	}
	for i, s := range steps {
		before := w.snapshot.Get()
		got := w.play(s, &m)
		for _, drain := range taken[messages.Drain](w.frontDoor) {
			select {
			case drain.Reply <- 0:
			default:
			}
		}
		if err := invariants(before, got, m, s); err != nil {
			return fmt.Errorf("step %d of %v: %w; before %+v, after %+v, model %+v", i, steps[:i+1], err, before, got, m)
		}
	}
	return nil
}

func invariants(before, after messages.Snapshot, m model, s step) error {
	if after.Available && (!m.verified || !m.bound || !m.token || after.State != messages.StateReady) {
		return fmt.Errorf("got available without a fact, want not available")
	}
	if after.Available && time.Since(m.healthy) > DefaultRecency {
		return fmt.Errorf("got available on an old health success, want not available")
	}
	if after.Available != (after.Reason == messages.ReasonOK) {
		return fmt.Errorf("available %t with reason %s", after.Available, after.Reason)
	}
	if after.State == messages.StateReady && before.State != messages.StateReady && (s.name != "healthy" || s.stale) {
		return fmt.Errorf("ready by %q", s.name)
	}
	if after.State == messages.StateReady && m.verified && m.bound && m.token && !m.healthy.IsZero() &&
		time.Since(m.healthy) <= DefaultRecency && !after.Available {
		return fmt.Errorf("got not available although every fact holds, want available")
	}
	// One message may cause several transitions, such as from ready through draining and stopped to starting,
	// and the snapshot shows the last one. No single message may lead from stopped to ready.
	if after.State == messages.StateReady && before.State == messages.StateStopped {
		return fmt.Errorf("ready from stopped")
	}
	if after.Launch < before.Launch {
		return fmt.Errorf("launch went back")
	}
	return nil
}

// play does one step and updates the model.
func (w *world) play(s step, m *model) messages.Snapshot {
	launch := w.snapshot.Get().Launch
	running := w.snapshot.Get().State != messages.StateStopped
	if s.stale {
		launch += 7
	}
	lose := func() { m.healthy = time.Time{} }
	switch s.name {
	case "provision started":
		m.verified = false
		return w.send(messages.ActorStarted{Actor: messages.ActorProvision})
	case "custody started":
		m.token = false
		return w.send(messages.ActorStarted{Actor: messages.ActorCustody})
	case "frontdoor started":
		m.bound = false
		lose()
		return w.send(messages.ActorStarted{Actor: messages.ActorFrontDoor})
	case "health started":
		lose()
		return w.send(messages.ActorStarted{Actor: messages.ActorHealth})
	case "process ended":
		lose()
		return w.send(messages.ActorEnded{Actor: messages.ActorProcess})
	case "process started":
		lose()
		return w.send(messages.ActorStarted{Actor: messages.ActorProcess})
	case "verified":
		m.verified = true
		return w.send(verified(1))
	case "integrity lost":
		m.verified = false
		return w.send(messages.IntegrityLost{Reason: messages.ReasonDigestMismatch})
	case "fetch failed":
		if w.snapshot.Get().State != messages.StateReady {
			m.verified = false
		}
		return w.send(messages.IntegrityLost{Reason: messages.ReasonTransferFailed})
	case "identity changed":
		m.verified = m.verified && s.stale
		return w.send(messages.IdentityChanged{Launch: launch})
	case "bound":
		m.bound = true
		return w.send(messages.DoorBound{BaseURL: "u"})
	case "unbound":
		m.bound = false
		return w.send(messages.DoorLost{Reason: messages.ReasonBindFailed})
	case "token":
		m.token = true
		return w.send(messages.TokenStored{})
	case "no token":
		m.token = false
		return w.send(messages.TokenLost{Reason: messages.ReasonKeychainLocked})
	case "back end up":
		return w.send(messages.BackEndUp{Launch: launch})
	case "exited":
		if !s.stale {
			lose()
		}
		return w.send(exited(launch, messages.ReasonProcessExited))
	case "healthy":
		if !s.stale && running {
			m.healthy = time.Now()
		}
		return w.send(messages.HealthSucceeded{Launch: launch, At: time.Now()})
	case "unhealthy", "hung":
		if !s.stale {
			lose()
		}
		return w.send(messages.HealthFailed{Launch: launch, Reason: messages.ReasonUpstreamFailed, Hung: s.name == "hung"})
	case "memory":
		return w.send(messages.MemoryExceeded{Launch: launch})
	case "start":
		return w.send(messages.StartRequested{Reply: make(chan messages.Reason, 1)})
	case "stop":
		return w.send(messages.StopRequested{Reply: make(chan messages.Reason, 1)})
	case "restart":
		return w.send(messages.RestartRequested{Reply: make(chan messages.Reason, 1)})
	case "a second":
		return w.pass(time.Second)
	case "twenty seconds":
		return w.pass(20 * time.Second)
	case "ten minutes":
		return w.pass(10 * time.Minute)
	case "lifecycle restarts":
		w.close()
		*m = model{}
		w.serve()
		if running {
			return w.send(messages.RuntimeStarted{Launch: launch})
		}
		return w.send(messages.RuntimeAbsent{})
	default: // drained: answered after each step
		return w.snapshot.Get()
	}
}
