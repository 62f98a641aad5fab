package health

import (
	"context"
	"encoding/base64"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"companion/adapters/door/healthprobe"
	"companion/messages"
)

// A4: a start needs both the round trip and a real token, and is noticed as soon as both succeed.
func TestStart(t *testing.T) {
	for name, block := range map[string]struct{ door, generate func(context.Context) error }{
		"front door not open": {failing(atDoor), nil},
		"runtime loading":     {failing(atRuntime), failing(atRuntime)},
		"no token":            {nil, failing(atRuntime)},
		"compute hangs":       {nil, silent},
		"another model":       {failing(&healthprobe.Error{Reason: messages.ReasonModelNotFound, Fault: healthprobe.FaultRuntime}), nil},
		"a prober that fails": {failing(errors.New("planted")), nil},
	} {
		t.Run(name, func(t *testing.T) {
			withHarness(t, func(t *testing.T, h *harness) {
				h.prober.set(block.door, nil, block.generate)
				h.become(messages.StateStarting, 1)
				// Failures of a start are not reported: the lifecycle actor's start deadline handles them (A3).
				h.wantSilence(t, 59*time.Second)
				h.prober.set(nil, nil, nil)
				within := startRetryMax
				if name == "compute hangs" {
					within = time.Second + startRetryMax
				}
				h.wantSuccess(t, 1, within)
			})
		})
	}
}

// A4: no probe before a back end is up behind a bound front door, and only in the states starting and ready.
func TestNothingToProbe(t *testing.T) {
	withHarness(t, func(t *testing.T, h *harness) {
		for _, s := range []messages.Snapshot{
			{State: messages.StateStopped}, {State: messages.StateStarting},
			{State: messages.StateStarting, BaseURL: "http://127.0.0.1:1/v1"},
			{State: messages.StateStarting, BackEnd: messages.BackEnd{Network: "unix", Address: "/b"}},
			{State: messages.StateDraining, BaseURL: "http://127.0.0.1:1/v1", BackEnd: messages.BackEnd{Network: "unix", Address: "/b"}},
			{State: "unheard", BaseURL: "http://127.0.0.1:1/v1", BackEnd: messages.BackEnd{Network: "unix", Address: "/b"}},
		} {
			h.snapshot.Set(s)
			h.wantSilence(t, time.Minute)
		}
		if doors, tokens := h.prober.counts(); doors != 0 || tokens != 0 {
			t.Errorf("got %d front door probes and %d tokens, want none", doors, tokens)
		}
	})
}

// A4, A5: one success each beat; the token of an idle runtime delays none of them beyond the recency bound.
func TestBeat(t *testing.T) {
	withHarness(t, func(t *testing.T, h *harness) {
		h.ready(t, 1)
		for range 20 {
			h.wantSuccess(t, 1, DefaultBeat)
		}
		if _, tokens := h.prober.counts(); tokens != 1+3 {
			t.Errorf("got %d tokens in 100 idle seconds, want the first and one each 30 s", tokens)
		}
		h.prober.set(nil, nil, func(context.Context) error {
			time.Sleep(DefaultGenerateDeadline - time.Millisecond)
			return nil
		})
		for range 20 {
			h.wantSuccess(t, 1, DefaultBeat+DefaultGenerateDeadline)
		}
	})
}

// A5: the first failed probe is reported at once, and recovery soon after it happens.
func TestFailureIsToldAtOnce(t *testing.T) {
	withHarness(t, func(t *testing.T, h *harness) {
		h.ready(t, 1)
		h.prober.set(failing(atRuntime), nil, nil)
		h.wantFailure(t, DefaultBeat, messages.ReasonUpstreamFailed, false)
		h.prober.set(nil, nil, nil)
		h.wantSuccess(t, 1, readyRetry)
		h.wantSuccess(t, 1, DefaultBeat)
	})
}

// T10, A5: a paused runtime, idle or in mid-stream, is noticed and reported as hung within the
// recency bound of 15 s.
func TestPausedRuntime(t *testing.T) {
	for name, view := range map[string]messages.DoorView{"idle": {}, "mid-stream": {InFlight: 2, Queued: 1}} {
		t.Run(name, func(t *testing.T) {
			withHarness(t, func(t *testing.T, h *harness) {
				h.ready(t, 1)
				h.wantSuccess(t, 1, DefaultBeat)
				paused := time.Now()
				h.door.Set(view)
				h.prober.set(silent, silent, silent)
				h.wantFailure(t, DefaultBeat+DefaultAnswerDeadline, messages.ReasonRuntimeUnavailable, false)
				h.wantFailure(t, readyRetry+DefaultAnswerDeadline, messages.ReasonRuntimeUnavailable, true)
				if took := time.Since(paused); took >= 15*time.Second {
					t.Errorf("got hung after %v, want less than 15s", took)
				}
			})
		})
	}
}

// T10, A5: the same when the pause begins just before the token probe of an idle runtime: the failing listing does
// not wait for the token, whose deadline is longer.
func TestPausedAtTheIdleProbe(t *testing.T) {
	withHarness(t, func(t *testing.T, h *harness) {
		h.ready(t, 1)
		for range int(DefaultIdleAfter/DefaultBeat) - 1 {
			h.wantSuccess(t, 1, DefaultBeat)
		}
		_, before := h.prober.counts()
		h.prober.set(silent, silent, silent)
		h.wantFailure(t, DefaultBeat+DefaultAnswerDeadline, messages.ReasonRuntimeUnavailable, false)
		if _, tokens := h.prober.counts(); tokens != before+1 {
			t.Fatal("got no token probe, want one")
		}
		h.wantFailure(t, readyRetry+DefaultAnswerDeadline, messages.ReasonRuntimeUnavailable, true)
	})
}

// A5: the time of a success is the time of the front door's answer, however long the token takes. The next success
// comes no later for a slow token, even when every round needs one.
func TestSuccessIsAsOldAsItsEvidence(t *testing.T) {
	withHarnessDeps(t, Deps{IdleAfter: time.Second}, func(t *testing.T, h *harness) {
		last := h.ready(t, 1)
		h.prober.set(nil, nil, func(context.Context) error {
			time.Sleep(DefaultGenerateDeadline - time.Millisecond)
			return nil
		})
		oldest := time.Duration(0)
		for range 50 {
			m, ok := h.next(time.Minute).(messages.HealthSucceeded)
			if !ok || !h.prober.didAnswer(m.At) || time.Since(last) > 2*DefaultGenerateDeadline {
				t.Fatalf("got %#v, %v after the last answer, want a success in time", m, time.Since(last))
			}
			last, oldest = m.At, max(oldest, time.Since(m.At))
		}
		if oldest < DefaultGenerateDeadline-time.Millisecond {
			t.Errorf("got %v as the age of the oldest success, want the duration of a slow token", oldest)
		}
	})
}

// T10, A9: a runtime that a new lifecycle actor adopts has already worked. If it is paused, it is reported as hung
// within the recency bound and not at the start deadline, and no success is reported without a token.
func TestPausedWhileAdopted(t *testing.T) {
	withHarness(t, func(t *testing.T, h *harness) {
		h.ready(t, 1)
		h.prober.set(silent, silent, silent)
		h.adopt(1)
		h.wantFailure(t, DefaultAnswerDeadline, messages.ReasonRuntimeUnavailable, false)
		h.wantFailure(t, readyRetry+DefaultAnswerDeadline, messages.ReasonRuntimeUnavailable, true)
	})
	withHarness(t, func(t *testing.T, h *harness) {
		h.ready(t, 1)
		h.prober.set(nil, nil, silent)
		h.door.Set(messages.DoorView{InFlight: 1})
		h.adopt(1)
		h.wantSilence(t, startGenerateDeadline-time.Second)
		h.prober.set(nil, nil, nil)
		h.wantFailure(t, time.Second, messages.ReasonRuntimeUnavailable, false)
		h.wantSuccess(t, 1, readyRetry)
	})
	withHarness(t, func(t *testing.T, h *harness) {
		h.ready(t, 1)
		h.prober.set(silent, silent, silent)
		h.become(messages.StateStarting, 2)
		h.wantSilence(t, 59*time.Second)
	})
}

// T10: a runtime that closes its socket and keeps running is hung at once.
func TestClosedSocket(t *testing.T) {
	withHarness(t, func(t *testing.T, h *harness) {
		h.ready(t, 1)
		h.prober.set(failing(atRuntime), failing(atRuntime), failing(atRuntime))
		h.wantFailure(t, DefaultBeat, messages.ReasonUpstreamFailed, false)
		h.wantFailure(t, readyRetry, messages.ReasonUpstreamFailed, true)
	})
}

// A broken front door makes nothing available, and the runtime is not killed for it.
func TestBrokenDoor(t *testing.T) {
	for name, door := range map[string]func(context.Context) error{"refuses": failing(atDoor), "stuck": silent} {
		t.Run(name, func(t *testing.T) {
			withHarness(t, func(t *testing.T, h *harness) {
				h.ready(t, 1)
				h.prober.set(door, nil, nil)
				for range 50 {
					m, ok := h.next(DefaultBeat + DefaultAnswerDeadline + 1).(messages.HealthFailed)
					if !ok || m.Hung {
						t.Fatalf("got %#v, want a failure that is not hung", m)
					}
				}
				h.prober.set(nil, nil, nil)
				h.wantSuccess(t, 1, DefaultBeat+DefaultAnswerDeadline)
			})
		})
	}
}

// A9: a new lifecycle actor gets a verdict at once, and the round that is cancelled for it counts as no failure.
func TestConfirm(t *testing.T) {
	withHarness(t, func(t *testing.T, h *harness) {
		h.ready(t, 1)
		h.inbox <- messages.ConfirmHealth{}
		h.wantSuccess(t, 1, 0)
		h.prober.set(silent, silent, silent)
		h.wantSilence(t, DefaultBeat+time.Second)
		h.prober.set(nil, nil, nil)
		for range 100 {
			h.inbox <- messages.ConfirmHealth{}
		}
		synctest.Wait()
		h.wantSuccess(t, 1, 0)
		_, before := h.prober.counts()
		h.become(messages.StateStarting, 1) // the new lifecycle adopts the runtime
		h.wantSuccess(t, 1, 0)
		if _, after := h.prober.counts(); after != before+1 {
			t.Error("got no token probe of an adopted runtime, want one")
		}
	})
}

// A4: the front door gets the token, gets it again when it asks or has lost it, and a front door that takes no
// message blocks nothing. The token is the same for all incarnations.
func TestProbeToken(t *testing.T) {
	withHarness(t, func(t *testing.T, h *harness) {
		token := (<-h.frontDoor).(messages.UseProbeToken).Token
		if raw, err := base64.RawURLEncoding.DecodeString(token.Reveal()); err != nil || len(raw) != 32 {
			t.Errorf("got a token of %d bytes, %v; want 32", len(raw), err)
		}
		same := func() {
			t.Helper()
			if got := (<-h.frontDoor).(messages.UseProbeToken).Token; got.Reveal() != token.Reveal() {
				t.Error("got another token, want the same")
			}
		}
		h.inbox <- messages.DeliverProbeToken{}
		same()
		h.ready(t, 1)
		h.prober.set(failing(&healthprobe.Error{Reason: messages.ReasonInvalidToken, Fault: healthprobe.FaultDoor}), nil, nil)
		h.wantFailure(t, DefaultBeat, messages.ReasonInvalidToken, false)
		same()
		h.prober.set(nil, nil, nil)
		h.wantSuccess(t, 1, DefaultBeat)
		for len(h.frontDoor) < cap(h.frontDoor) {
			h.frontDoor <- messages.DropLoopbackToken{}
		}
		h.inbox <- messages.DeliverProbeToken{}
		h.wantSuccess(t, 1, DefaultBeat)
		for range cap(h.frontDoor) {
			<-h.frontDoor
		}
		same()
		stop := h.serve(t) // a second incarnation while the first runs
		same()
		stop()
	})
	a, b := New(Deps{}), New(Deps{})
	if a.token.Reveal() == b.token.Reveal() {
		t.Error("got one token for two daemons, want different ones")
	}
}

// A lifecycle actor that takes no message for a while then gets only the newest verdict.
func TestNewestVerdictWaits(t *testing.T) {
	withHarness(t, func(t *testing.T, h *harness) {
		h.ready(t, 1)
		time.Sleep(time.Minute)
		h.prober.set(failing(atRuntime), nil, nil)
		time.Sleep(DefaultBeat + time.Second)
		m, ok := (<-h.lifecycle).(messages.HealthFailed)
		if !ok {
			t.Fatalf("got %#v, want a failure", m)
		}
		h.prober.set(nil, nil, nil)
		time.Sleep(time.Minute)
		began := time.Now()
		success, ok := (<-h.lifecycle).(messages.HealthSucceeded)
		if !ok || began.Sub(success.At) > DefaultBeat {
			t.Fatalf("got %#v, %v old, want a new success", success, began.Sub(success.At))
		}
		h.wantSuccess(t, 1, DefaultBeat)
	})
}
