package lifecycle

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"companion/fsm"
	"companion/messages"
)

// wish is the simplest model: whether the user wants the runtime, and whether the artifacts are verified. Only these two
// determine the final state once all actors work again.
type wish struct{ wanted, verified bool }

// harness acts as all other actors. It answers the lifecycle actor when a step allows it.
type harness struct {
	*world
	wish     wish
	running  messages.Launch // zero: none
	spawning bool            // RuntimeStarted has not been sent for running
	asked    bool            // a ConfirmProcess has not been answered yet
	replies  []chan messages.Reason
	busy     bool // a drain ends only at the step "drained"
	drains   []chan<- int
}

var harnessSteps = []string{
	"works", "works", "works", "spawned", "spawned", "spawn fails", "dies", "healthy", "healthy", "hung", "dying", "memory",
	"start", "stop", "restart", "artifacts come", "artifacts come", "artifacts lost",
	"process restarts", "provision restarts", "lifecycle restarts", "a second",
}

// A3, A8, A9, X7: for any sequence of events and actor restarts, once all actors work again: a wanted and verified
// runtime is available within a minute, or after a crash loop at the end of the hold; an unwanted one has ended; and every
// command has been answered.
func TestWishComesTrue(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.SampledFrom(harnessSteps), 1, 40).Draw(rt, "steps")
		var failure error
		synctest.Test(t, func(t *testing.T) { failure = follow(steps) })
		if failure != nil {
			rt.Fatalf("got %v, want none", failure)
		}
	})
}

// A8, A9, X7: the lifecycle actor restarts while a launch is being spawned, and the spawn fails.
func TestSpawnFailsUnderANewIncarnation(t *testing.T) {
	for _, last := range []string{"works", "stop"} {
		synctest.Test(t, func(t *testing.T) {
			if err := follow([]string{"works", "artifacts come", "works", "lifecycle restarts", "works", "spawn fails", last}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func follow(steps []string) error {
	h := &harness{world: newWorld(), wish: wish{wanted: true}}
	defer func() { h.close() }()
	for _, step := range steps {
		h.step(step)
	}
	within := time.Minute
	if h.snapshot.Get().Held {
		within += fsm.CrashLoopWindow
	}
	h.settle(within)
	got := h.snapshot.Get()
	switch {
	case h.wish.wanted && h.wish.verified && (!got.Available || h.running == 0 || got.Launch != h.running):
		return fmt.Errorf("wanted and verified, but %+v with launch %d running", got, h.running)
	case !h.wish.wanted && (got.State != messages.StateStopped || h.running != 0):
		return fmt.Errorf("not wanted, but %+v with launch %d running", got, h.running)
	case !h.wish.verified && got.Available:
		return fmt.Errorf("not verified, but %+v", got)
	}
	for _, reply := range h.replies {
		if len(reply) != 1 {
			return fmt.Errorf("got %d replies to a command, want 1", len(reply))
		}
	}
	return nil
}

func (h *harness) step(name string) {
	switch name {
	case "works":
		h.work()
	case "spawned":
		h.up()
	case "spawn fails":
		if h.spawning {
			h.exit(false)
		}
	case "dies":
		if h.running != 0 && !h.spawning {
			h.exit(false)
		}
	case "healthy":
		h.healthy()
	case "hung":
		h.send(messages.HealthFailed{Launch: h.running, Reason: messages.ReasonRuntimeUnavailable, Hung: true})
	case "dying":
		h.send(messages.HealthFailed{Launch: h.running, Reason: messages.ReasonProcessExited})
	case "drained":
		h.drained()
	case "memory":
		h.send(messages.MemoryExceeded{Launch: h.running})
	case "start":
		h.wish.wanted = true
		h.send(messages.StartRequested{Reply: h.reply()})
	case "stop":
		h.wish.wanted = false
		h.send(messages.StopRequested{Reply: h.reply()})
	case "restart":
		h.wish.wanted = true
		h.send(messages.RestartRequested{Reply: h.reply()})
	case "artifacts come", "artifacts lost":
		h.wish.verified = name == "artifacts come"
		h.verdict()
	case "process restarts":
		h.running, h.spawning, h.asked = 0, false, false
		h.send(messages.ActorEnded{Actor: messages.ActorProcess}, messages.ActorStarted{Actor: messages.ActorProcess})
	case "provision restarts":
		h.send(messages.ActorStarted{Actor: messages.ActorProvision})
	case "lifecycle restarts":
		h.close()
		h.replies = nil // requests to the old incarnation end by their own deadlines
		h.serve()
	case "a second":
		h.pass(time.Second)
	}
}

func (h *harness) reply() chan messages.Reason {
	reply := make(chan messages.Reason, 2)
	h.replies = append(h.replies, reply)
	return reply
}

// settle runs all actors for d, and lets every spawned launch become healthy.
func (h *harness) settle(d time.Duration) {
	for range int(d / time.Second) {
		h.work()
		h.up()
		h.healthy()
		h.pass(time.Second)
	}
	h.work()
}

// work handles all messages in the mailboxes, in a fixed order.
func (h *harness) work() {
	for {
		switch {
		case len(h.process) > 0:
			h.toProcess(<-h.process)
		case len(h.frontDoor) > 0:
			switch m := (<-h.frontDoor).(type) {
			case messages.ConfirmFrontDoor:
				h.send(messages.DoorBound{BaseURL: "u"})
			case messages.Drain:
				h.drains = append(h.drains, m.Reply)
				if !h.busy {
					h.drained()
				}
			}
		case len(h.custody) > 0:
			<-h.custody
			h.send(messages.TokenStored{})
		case len(h.provision) > 0:
			<-h.provision
			h.verdict()
		case len(h.manifest) > 0:
			<-h.manifest
			h.verdict()
		case len(h.health) > 0:
			<-h.health
		default:
			return
		}
	}
}

func (h *harness) drained() {
	for _, reply := range h.drains {
		reply <- 0
	}
	h.drains = nil
	synctest.Wait()
}

// toProcess behaves as documented at messages.ToProcess.
func (h *harness) toProcess(m messages.ToProcess) {
	switch m := m.(type) {
	case messages.Spawn:
		if h.running != 0 {
			h.send(exited(h.running, messages.ReasonProcessExited))
		}
		h.running, h.spawning = m.Launch, true
	case messages.Kill:
		switch {
		case h.running == m.Launch && m.Launch != 0:
			h.exit(true)
		case h.running == 0:
			h.send(messages.RuntimeAbsent(m))
		case !h.spawning:
			h.send(messages.RuntimeStarted{Launch: h.running})
		}
	case messages.ConfirmProcess:
		switch {
		case h.running == 0:
			h.send(messages.RuntimeAbsent{})
		case h.spawning:
			h.asked = true
		default:
			h.send(messages.RuntimeStarted{Launch: h.running}, messages.BackEndUp{Launch: h.running})
		}
	}
}

func (h *harness) up() {
	if h.spawning {
		h.spawning, h.asked = false, false
		h.send(messages.RuntimeStarted{Launch: h.running}, messages.BackEndUp{Launch: h.running})
	}
}

func (h *harness) healthy() {
	if h.running != 0 && !h.spawning {
		h.send(messages.HealthSucceeded{Launch: h.running, At: time.Now()})
	}
}

func (h *harness) exit(requested bool) {
	gone := exited(h.running, messages.ReasonProcessExited)
	gone.Requested = requested
	h.running, h.spawning = 0, false
	h.send(gone)
	if h.asked {
		h.asked = false
		h.send(messages.RuntimeAbsent{})
	}
}

func (h *harness) verdict() {
	if h.wish.verified {
		h.send(verified(1))
	} else {
		h.send(messages.IntegrityLost{Artifact: "m", Reason: messages.ReasonDigestMismatch})
	}
}
