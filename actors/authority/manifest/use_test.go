package manifest

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"companion/messages"
)

// choice is a Choice in memory.
type choice struct {
	name   string
	stored []string
	fails  error
}

func (c *choice) Load() (string, error) { return c.name, nil }

func (c *choice) Store(name string) error {
	if c.fails != nil {
		return c.fails
	}
	c.name = name
	c.stored = append(c.stored, name)
	return nil
}

func (h *harness) use(name string) chan messages.Reason {
	reply := make(chan messages.Reason, 1)
	h.mailbox <- messages.Use{Name: name, Reply: reply}
	return reply
}

// provide answers the next messages to provision as if everything were on disk, or as if it had to be fetched. It returns the
// names that were fetched and the last Want.
func (h *harness) provide(t *testing.T, here bool, fetch messages.Reason) (fetched []string, want string) {
	t.Helper()
	for {
		synctest.Wait()
		select {
		case m := <-h.provision:
			switch m := m.(type) {
			case messages.Held:
				held := make([]messages.HeldArtifact, len(m.Artifacts))
				for i := range held {
					held[i].Verified = here
				}
				m.Reply <- held
			case messages.Fetch:
				fetched = append(fetched, m.Artifact.Name)
				m.Reply <- fetch
			case messages.Want:
				want = m.Model.Name
			}
		default:
			return fetched, want
		}
	}
}

// awaited returns the AwaitReady that lifecycle has received.
func (h *harness) awaited(t *testing.T) messages.AwaitReady {
	t.Helper()
	synctest.Wait()
	for {
		select {
		case m := <-h.lifecycle:
			if m, ok := m.(messages.AwaitReady); ok {
				return m
			}
		default:
			t.Fatal("got no AwaitReady, want one")
		}
	}
}

func reasonOf(t *testing.T, reply chan messages.Reason, want messages.Reason) {
	t.Helper()
	synctest.Wait()
	select {
	case got := <-reply:
		if got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	default:
		t.Fatalf("got no reply, want %s", want)
	}
}

// M12, X6: a model on disk is used without the hub; the choice is recorded, and the next start wants it.
func TestUse(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		c := &choice{}
		h.actor.deps.Choice = c
		h.start(t)
		h.wants()
		before := h.repo.count()
		reply := h.use("other")
		if fetched, want := h.provide(t, true, ""); len(fetched) != 0 || want != "other" {
			t.Fatalf("got %v fetched and %q wanted, want nothing fetched and other wanted", fetched, want)
		}
		h.awaited(t).Reply <- messages.ReasonOK
		reasonOf(t, reply, messages.ReasonOK)
		if c.name != "other" || h.repo.count() != before {
			t.Errorf("got the choice %q after %d refreshes, want other after none", c.name, h.repo.count()-before)
		}
		reply = h.use("")
		if _, want := h.provide(t, true, ""); want != "main" {
			t.Errorf("--default: got %q wanted, want main", want)
		}
		h.awaited(t).Reply <- messages.ReasonOK
		reasonOf(t, reply, messages.ReasonOK)
		if c.name != "" {
			t.Errorf("--default: got the choice %q, want none", c.name)
		}
	})
	bubble(t, "main", func(t *testing.T, h *harness) {
		h.actor.deps.Choice = &choice{name: "other"}
		h.start(t)
		h.wantWants(t, "other+llama fetch")
	})
}

// M6: a model that is not on disk is fetched first, with its runtime; until then the present one stays wanted. A
// failed fetch changes nothing.
func TestUseFetchesFirst(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		c := &choice{}
		h.actor.deps.Choice = c
		h.start(t)
		h.wants()
		reply := h.use("other")
		fetched, want := h.provide(t, false, messages.ReasonDigestMismatch)
		if len(fetched) != 1 || want == "other" {
			t.Fatalf("got %v fetched and %q wanted, want one artifact and not other", fetched, want)
		}
		reasonOf(t, reply, messages.ReasonDigestMismatch)
		if len(c.stored) != 0 {
			t.Errorf("got the choices %q recorded, want none", c.stored)
		}
		reply = h.use("other")
		if fetched, want := h.provide(t, false, messages.ReasonOK); len(fetched) != 2 || want != "other" {
			t.Fatalf("got %v fetched and %q wanted, want both artifacts and other", fetched, want)
		}
		h.awaited(t).Reply <- messages.ReasonOK
		reasonOf(t, reply, messages.ReasonOK)
		reply = h.use("nowhere")
		h.provide(t, true, "")
		reasonOf(t, reply, messages.ReasonNoSuchTarget)
	})
}

// M12: if the model does not become ready, the one before it is wanted and recorded again, and the next use goes on.
func TestUseFails(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		c := &choice{name: "other"}
		h.actor.deps.Choice = c
		h.start(t)
		h.wants()
		first, second := h.use("main"), h.use("main")
		if _, want := h.provide(t, true, ""); want != "main" {
			t.Fatalf("got %q wanted, want main", want)
		}
		h.awaited(t).Reply <- messages.ReasonProcessExited
		synctest.Wait()
		reasonOf(t, first, messages.ReasonProcessExited)
		if c.name != "other" {
			t.Errorf("got the choice %q, want other", c.name)
		}
		if _, want := h.provide(t, true, ""); want != "main" {
			t.Errorf("the second use: got %q wanted, want main", want)
		}
		h.awaited(t)
		time.Sleep(switchTimeout)
		reasonOf(t, second, messages.ReasonNotReady)
	})
}

// A choice that cannot be recorded changes nothing.
func TestUseIsNotRecorded(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		h.actor.deps.Choice = &choice{fails: errors.New("disk")}
		h.start(t)
		h.wants()
		reply := h.use("other")
		if _, want := h.provide(t, true, ""); want != "" {
			t.Errorf("got %q wanted, want no new Want", want)
		}
		reasonOf(t, reply, messages.ReasonInternalError)
	})
}
