package health

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"companion/messages"
)

// sleeping is a ready runtime whose model sleeps when it is idle.
func (h *harness) sleeping(t *testing.T) {
	t.Helper()
	h.become(messages.StateStarting, 1)
	s := h.snapshot.Get()
	s.Sleeps = true
	h.snapshot.Set(s)
	h.wantSuccess(t, 1, 0)
	s.State = messages.StateReady
	h.snapshot.Set(s)
}

// pass takes every verdict for d, each of which must be a success, and returns the last one.
func (h *harness) pass(t *testing.T, d time.Duration) (last messages.HealthSucceeded) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		m := h.next(time.Until(end))
		if m == nil {
			break
		}
		success, ok := m.(messages.HealthSucceeded)
		if !ok {
			t.Fatalf("got %#v, want a success", m)
		}
		last = success
	}
	return last
}

// R14, A4: no probe asks an idle model for a token once ProbeIdle has passed, so that it can fall asleep and is not
// woken; the listings go on. A client's request makes probes ask again.
func TestNoProbeWakesTheModel(t *testing.T) {
	withHarnessDeps(t, Deps{ProbeIdle: 3 * time.Minute, IdleAfter: time.Minute}, func(t *testing.T, h *harness) {
		h.sleeping(t)
		h.pass(t, 3*time.Minute)
		_, early := h.prober.counts()
		if early < 3 {
			t.Errorf("in the first three minutes: got %d tokens, want one of the start and one a minute", early)
		}
		h.prober.sleeps(true)
		doors, _ := h.prober.counts()
		last := h.pass(t, time.Hour)
		after, tokens := h.prober.counts()
		if tokens != early || !last.Asleep {
			t.Errorf("in the hour after that: got %d more tokens and asleep %v, want none and asleep", tokens-early, last.Asleep)
		}
		if got := after - doors; got < 700 {
			t.Errorf("in the hour after that: got %d listings, want one every 5 s", got)
		}
		h.prober.sleeps(false)
		h.door.Set(messages.DoorView{LastActivity: time.Now()})
		if last := h.pass(t, 2*time.Minute); last.Asleep {
			t.Error("after a request: got asleep, want awake")
		}
		if _, now := h.prober.counts(); now == tokens {
			t.Error("after a request: got no token, want probes to ask again")
		}
	})
}

// R14: a runtime that does not sleep is asked for tokens as before, and never whether it sleeps.
func TestRuntimeThatDoesNotSleep(t *testing.T) {
	withHarnessDeps(t, Deps{ProbeIdle: time.Minute, IdleAfter: time.Minute}, func(t *testing.T, h *harness) {
		h.ready(t, 1)
		h.pass(t, time.Hour)
		if _, tokens := h.prober.counts(); tokens < 59 || h.prober.asked != 0 {
			t.Errorf("got %d tokens and %d questions about sleep, want one token a minute and no question", tokens, h.prober.asked)
		}
	})
}

// R14, A9: a new lifecycle actor that adopts a runtime with a sleeping model does not wake it either.
func TestAdoptedAsleep(t *testing.T) {
	withHarnessDeps(t, Deps{ProbeIdle: time.Minute}, func(t *testing.T, h *harness) {
		h.sleeping(t)
		h.prober.sleeps(true)
		h.pass(t, 5*time.Minute)
		_, before := h.prober.counts()
		h.adopt(1)
		if m, ok := h.next(time.Minute).(messages.HealthSucceeded); !ok || !m.Asleep {
			t.Fatalf("got %#v, want a success that says asleep", m)
		}
		if _, after := h.prober.counts(); after != before {
			t.Errorf("got %d tokens, want none", after-before)
		}
	})
}

// R14, A5: a question about sleep that is not answered, as while the model wakes, delays a verdict by a second at
// most and is not a failure.
func TestWakingModelDoesNotAnswerAboutSleep(t *testing.T) {
	withHarnessDeps(t, Deps{ProbeIdle: time.Minute}, func(t *testing.T, h *harness) {
		h.sleeping(t)
		h.prober.mu.Lock()
		h.prober.asleep = func(ctx context.Context) (bool, error) { <-ctx.Done(); return false, ctx.Err() }
		h.prober.mu.Unlock()
		for range 20 {
			m, ok := h.next(DefaultBeat + 2*sleepPatience).(messages.HealthSucceeded)
			if !ok || m.Asleep {
				t.Fatalf("got %#v, want a success that does not say asleep", m)
			}
			synctest.Wait()
		}
	})
}

// wakes makes a client's request wake the model: the runtime answers nothing until released, or its end.
func (h *harness) wakes(released <-chan struct{}) {
	silent := func(ctx context.Context) error {
		select {
		case <-released:
			return nil
		case <-ctx.Done():
			return silent(ctx)
		}
	}
	h.prober.set(silent, silent, silent)
	h.prober.mu.Lock()
	h.prober.asleep = func(ctx context.Context) (bool, error) { return false, silent(ctx) }
	h.prober.asked = 0
	h.prober.mu.Unlock()
	view := h.door.Get()
	view.InFlight = 1
	h.door.Set(view)
}

// hungWithin returns after how long the runtime is reported as hung, or at most.
func (h *harness) hungWithin(most time.Duration) time.Duration {
	begun := time.Now()
	for time.Since(begun) < most {
		if m, ok := h.next(most - time.Since(begun)).(messages.HealthFailed); ok && m.Hung {
			break
		}
	}
	return time.Since(begun)
}

// R14, A3, A4: a model that takes long to wake has the time of a start, also when no thread of the runtime is left that
// answers. It is asked one question, and for no token. Then it is healthy; one that does not wake is hung.
func TestSlowWake(t *testing.T) {
	const wake = DefaultStartDeadline - 20*time.Second
	for name, seen := range map[string]bool{"seen asleep": true, "long idle": false} {
		t.Run(name, func(t *testing.T) {
			withHarnessDeps(t, Deps{ProbeIdle: time.Minute}, func(t *testing.T, h *harness) {
				h.sleeping(t)
				h.prober.sleeps(seen)
				h.pass(t, 10*time.Minute)
				_, tokens := h.prober.counts()
				released := make(chan struct{})
				h.wakes(released)
				if got := h.hungWithin(wake); got < wake {
					t.Fatalf("got a hung runtime after %v, want none in %v", got, wake)
				}
				h.prober.mu.Lock()
				if asked := h.prober.asked; asked != 1 || len(h.prober.tokens) != tokens {
					t.Errorf("got %d questions about sleep and %d tokens while it wakes, want 1 and 0", asked, len(h.prober.tokens)-tokens)
				}
				h.prober.mu.Unlock()
				close(released)
				for end := time.Now().Add(time.Minute); ; {
					if m, ok := h.next(time.Until(end)).(messages.HealthSucceeded); ok && !m.Asleep {
						break
					}
					if time.Now().After(end) {
						t.Fatal("got no success after the wake, want one")
					}
				}
			})
		})
	}
	t.Run("never wakes", func(t *testing.T) {
		withHarnessDeps(t, Deps{ProbeIdle: time.Minute}, func(t *testing.T, h *harness) {
			h.sleeping(t)
			h.prober.sleeps(true)
			h.pass(t, 10*time.Minute)
			h.wakes(nil)
			most := DefaultStartDeadline + 30*time.Second
			if got := h.hungWithin(most); got < DefaultStartDeadline || got >= most {
				t.Errorf("got a hung runtime after %v, want it after %v and before %v", got, DefaultStartDeadline, most)
			}
		})
	})
}

// R14, A4: a silent runtime whose model nothing wakes is found hung as any other: one that was active, and one without a
// request.
func TestSilenceIsNoWake(t *testing.T) {
	for name, test := range map[string]struct{ busy, active bool }{
		"active": {true, true}, "no request": {false, false},
	} {
		t.Run(name, func(t *testing.T) {
			withHarnessDeps(t, Deps{ProbeIdle: time.Minute}, func(t *testing.T, h *harness) {
				h.sleeping(t)
				h.pass(t, 10*time.Minute)
				view := messages.DoorView{}
				if test.active {
					view.LastActivity = time.Now()
				}
				h.door.Set(view)
				h.pass(t, 10*time.Second)
				h.wakes(nil)
				if !test.busy {
					h.door.Set(view)
				}
				if got := h.hungWithin(time.Minute); got > 25*time.Second {
					t.Errorf("got a hung runtime after %v, want it within 25s", got)
				}
			})
		})
	}
}
