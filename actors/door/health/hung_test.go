package health

import (
	"context"
	"testing"
	"time"

	"companion/messages"
)

// A4: the token probe detects a server whose web thread answers while its compute thread hangs. The listing of the
// beat alone does not clear that verdict.
func TestHungCompute(t *testing.T) {
	withHarness(t, func(t *testing.T, h *harness) {
		began := h.ready(t, 1)
		h.prober.set(nil, nil, silent)
		for time.Since(began) < DefaultIdleAfter-DefaultBeat {
			h.wantSuccess(t, 1, DefaultBeat)
		}
		h.wantFailure(t, DefaultBeat+DefaultGenerateDeadline, messages.ReasonRuntimeUnavailable, false)
		// A request arrives in between and the runtime computes. A token would wait behind the request, so its delay
		// proves nothing.
		h.computes.Store(true)
		h.door.Set(messages.DoorView{InFlight: 1})
		h.wantSilence(t, time.Minute)
		h.door.Set(messages.DoorView{LastActivity: time.Now()})
		h.wantFailure(t, DefaultBeat+2*DefaultGenerateDeadline, messages.ReasonRuntimeUnavailable, true)
	})
	withHarness(t, func(t *testing.T, h *harness) {
		h.ready(t, 1)
		h.prober.set(nil, nil, silent)
		for range 5 {
			h.wantSuccess(t, 1, DefaultBeat)
		}
		h.wantFailure(t, DefaultBeat+DefaultGenerateDeadline, messages.ReasonRuntimeUnavailable, false)
		h.prober.set(nil, nil, nil)
		h.wantSuccess(t, 1, readyRetry)
	})
}

// A4, T10: a runtime whose compute thread hangs while clients wait is detected, whether they keep waiting or send
// more requests: it sends no client anything, and uses no processor time.
func TestHungWhileAsked(t *testing.T) {
	for name, ask := range map[string]func(h *harness){
		"one waits on": func(h *harness) { h.door.Set(messages.DoorView{InFlight: 1}) },
		"one comes and goes": func(h *harness) {
			for i := range 1000 {
				h.door.Set(messages.DoorView{InFlight: i % 2})
				time.Sleep(time.Second)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			withHarness(t, func(t *testing.T, h *harness) {
				began := h.ready(t, 1)
				h.prober.set(nil, nil, silent)
				asked := make(chan struct{})
				go func() { defer close(asked); ask(h) }()
				for time.Since(began) < DefaultIdleAfter-DefaultBeat {
					h.wantSuccess(t, 1, DefaultBeat)
				}
				h.wantFailure(t, DefaultBeat+DefaultGenerateDeadline, messages.ReasonRuntimeUnavailable, false)
				h.wantFailure(t, readyRetry+DefaultGenerateDeadline, messages.ReasonRuntimeUnavailable, true)
				<-asked
			})
		})
	}
}

// A runtime that sends a client an answer is not probed for a token. One that sends nothing is probed, and its delay
// is not a failure while it computes, or while a GPU may compute for it, or when it becomes busy during the token
// probe.
func TestBusyIsNotHung(t *testing.T) {
	for _, gpu := range []bool{false, true} {
		withHarnessDeps(t, Deps{GPU: gpu}, func(t *testing.T, h *harness) {
			h.computes.Store(!gpu)
			h.ready(t, 1)
			h.door.Set(messages.DoorView{InFlight: 2, Queued: 3})
			h.prober.set(nil, nil, silent)
			began := time.Now()
			for time.Since(began) < 10*time.Minute {
				h.wantSuccess(t, 1, DefaultBeat+DefaultGenerateDeadline)
			}
			if _, tokens := h.prober.counts(); tokens < 10 || tokens > 21 {
				t.Errorf("got %d tokens in ten minutes, want 10 to 21", tokens)
			}
			h.door.Set(messages.DoorView{LastActivity: time.Now(), InFlight: 1})
			h.wantSuccess(t, 1, DefaultBeat)
			_, before := h.prober.counts()
			for range 100 {
				h.door.Set(messages.DoorView{LastActivity: time.Now(), InFlight: 1})
				h.wantSuccess(t, 1, DefaultBeat)
			}
			if _, tokens := h.prober.counts(); tokens != before {
				t.Errorf("got %d tokens while answers came, want 0", tokens-before)
			}
		})
	}
	withHarness(t, func(t *testing.T, h *harness) {
		h.ready(t, 1)
		h.door.Set(messages.DoorView{LastActivity: time.Now()})
		for range 5 {
			h.wantSuccess(t, 1, DefaultBeat)
		}
		h.prober.set(nil, nil, func(ctx context.Context) error {
			h.door.Set(messages.DoorView{InFlight: 1, LastActivity: time.Now()})
			return silent(ctx)
		})
		for range 10 {
			h.wantSuccess(t, 1, DefaultBeat+DefaultGenerateDeadline)
		}
	})
}

// A9: the result of a round for an earlier launch is dropped, and the new launch is probed at once.
func TestLateRound(t *testing.T) {
	withHarness(t, func(t *testing.T, h *harness) {
		h.ready(t, 1)
		h.prober.set(silent, silent, silent)
		h.wantSilence(t, DefaultBeat+time.Second)
		h.become(messages.StateStopped, 1)
		h.wantSilence(t, time.Minute)
		h.prober.set(nil, nil, nil)
		h.ready(t, 2)
		h.prober.set(silent, nil, nil)
		h.wantSilence(t, DefaultBeat+time.Second)
		h.prober.set(nil, nil, nil)
		h.become(messages.StateStarting, 3)
		h.wantSuccess(t, 3, 0)
	})
}
