package lifecycle

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"companion/fsm"
	"companion/messages"
)

// machine is a model of the lifecycle without time: the state after each step, when all actors have handled its
// consequences. It models that a wait ends, not how long it takes.
type machine struct {
	wish
	state    messages.State
	spawning bool // the launch has not been reported as started
	unheard  bool // the restarted lifecycle actor does not know the launch
	again    bool // the user wants the launch replaced
	dying    bool // the runtime has begun to die: its exit follows, or it is killed
	excused  bool // the launch is drained, which is not a crash
	waits    bool // for a retry or the end of a hold
}

var machineSteps = []string{
	"spawned", "spawn fails", "dies", "healthy", "hung", "dying", "memory", "drained", "its time is up", "its time is up",
	"start", "stop", "restart", "artifacts come", "artifacts lost", "process restarts", "provision restarts", "lifecycle restarts",
}

// A1, A2, A8, A9: for any sequence of steps the published state equals the state of the model, and a runtime runs
// exactly if the model says so.
func TestMachineAgrees(t *testing.T) {
	seen := map[messages.State]int{}
	rapid.Check(t, func(rt *rapid.T) {
		steps := slices.Concat(rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) []string {
			switch rapid.IntRange(0, 19).Draw(rt, "where single steps would seldom lead") {
			case 0:
				return slices.Repeat([]string{"artifacts come", "its time is up", "spawned", "dies"}, fsm.CrashLoopFailures)
			case 1, 2, 3, 4, 5, 6, 7:
				return []string{"artifacts come", "start", "spawned", "healthy"}
			default:
				return []string{rapid.SampledFrom(machineSteps).Draw(rt, "step")}
			}
		}), 10, 100).Draw(rt, "steps")...)
		var failure error
		synctest.Test(t, func(*testing.T) { failure = agree(steps, seen) })
		if failure != nil {
			rt.Fatalf("got %v, want none", failure)
		}
	})
	for _, state := range []messages.State{messages.StateStopped, messages.StateStarting, messages.StateReady, messages.StateDraining} {
		if seen[state] < 50 {
			t.Errorf("%s: got reached %d times, want at least 50: %v", state, seen[state], seen)
		}
	}
}

// M6, A5, A9: a launch that is reported to a new lifecycle actor after its artifacts were found to be wrong is
// killed, not adopted.
func TestWrongBytesAreNotAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		steps := []string{"artifacts come", "lifecycle restarts", "artifacts lost", "spawned", "artifacts come"}
		if err := agree(steps, map[messages.State]int{}); err != nil {
			t.Fatal(err)
		}
	})
}

func agree(steps []string, seen map[messages.State]int) error {
	h := &harness{world: newWorld(), wish: wish{wanted: true}, busy: true}
	defer func() { h.close() }()
	h.work()
	m := machine{wish: h.wish, state: messages.StateStopped}
	for i, step := range steps {
		held := h.snapshot.Get().Held
		if step == "its time is up" {
			h.outlast(m)
		} else {
			h.step(step)
		}
		h.work()
		m.after(step, held)
		got, runs := h.snapshot.Get(), m.state != messages.StateStopped || m.unheard
		if got.State != m.state || (h.running != 0) != runs || m.wish != h.wish {
			return fmt.Errorf("step %d of %v: the program is %s with launch %d running, %+v; the model is %+v",
				i, steps[:i+1], got.State, h.running, got, m)
		}
		seen[got.State]++
	}
	return nil
}

// outlast advances the time to the next deadline, retry or end of a hold.
func (h *harness) outlast(m machine) {
	switch got := h.snapshot.Get(); {
	case m.waits && got.Held:
		h.pass(time.Until(got.Failures.HeldTill))
	case m.waits:
		h.pass(time.Until(got.RetryAt))
	case m.dying:
		h.pass(exitPatience)
	case m.state == messages.StateStarting:
		h.pass(DefaultStartDeadline)
	case m.state == messages.StateDraining:
		h.pass(DefaultDrainDeadline + time.Second)
	}
}

// after does one step of the model. held says whether a crash loop causes the wait.
func (m *machine) after(step string, held bool) {
	switch runs := m.state != messages.StateStopped; step {
	case "spawned":
		m.spawned()
	case "spawn fails":
		if m.spawning {
			m.end(!m.unheard) // an incarnation that did not request the launch counts no crash
			m.unheard = false
		}
	case "healthy":
		if m.state == messages.StateStarting && !m.spawning && !m.dying {
			m.state = messages.StateReady
		}
	case "dying":
		m.dying = m.dying || runs
	case "dies":
		if runs && !m.spawning {
			m.end(!m.excused)
		}
	case "hung":
		m.fail()
	case "memory":
		switch m.state {
		case messages.StateStarting:
			m.fail()
		case messages.StateReady:
			m.state = messages.StateDraining
		}
	case "drained":
		if m.state == messages.StateDraining {
			m.end(!m.excused)
		}
	case "its time is up":
		m.waits = false
		if m.state != messages.StateReady || m.dying {
			m.fail()
		}
	case "artifacts come":
		m.verified = true
	case "artifacts lost":
		m.verified = false
		if runs {
			m.end(false)
		}
	case "process restarts":
		m.unheard, m.spawning = false, false
		if runs {
			m.end(m.state != messages.StateReady && !m.excused)
		}
	case "lifecycle restarts":
		m.restarted(held)
	default:
		m.command(step)
	}
	m.begin()
}

// spawned models the report that the process has started. A lifecycle actor that did not request the launch adopts it if
// the runtime is wanted.
func (m *machine) spawned() {
	if !m.spawning {
		return
	}
	m.spawning = false
	if m.unheard {
		m.unheard = false
		if m.wanted && m.verified && !m.again {
			m.state = messages.StateStarting
		}
	}
}

func (m *machine) command(step string) {
	switch step {
	case "stop":
		m.wanted, m.waits, m.again = false, false, false
	case "start":
		m.wanted, m.waits = true, false
		return
	case "restart":
		m.wanted, m.waits = true, false
		if !m.verified {
			return
		}
		m.again = m.unheard
	default:
		return
	}
	switch m.state {
	case messages.StateStarting:
		m.end(false)
	case messages.StateReady:
		m.state, m.excused = messages.StateDraining, true
	}
}

// restarted models a new incarnation of the lifecycle actor. It adopts a running launch. Of the earlier state it keeps
// only the hold of a crash loop.
func (m *machine) restarted(held bool) {
	m.dying, m.excused, m.again, m.waits = false, false, false, m.waits && held
	switch {
	case m.spawning:
		m.unheard, m.state = true, messages.StateStopped
	case m.state == messages.StateStopped:
	case m.wanted && m.verified:
		m.state = messages.StateStarting
	default:
		m.state = messages.StateStopped
	}
}

// fail ends the running launch as a crash.
func (m *machine) fail() {
	if m.state != messages.StateStopped {
		m.end(!m.excused)
	}
}

func (m *machine) end(crash bool) {
	m.state, m.waits = messages.StateStopped, crash && m.wanted
	m.spawning, m.dying, m.excused = false, false, false
}

func (m *machine) begin() {
	if m.state == messages.StateStopped && m.wanted && m.verified && !m.unheard && !m.waits {
		m.state, m.spawning, m.again = messages.StateStarting, true, false
	}
}
