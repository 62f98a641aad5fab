package fsm

import (
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	states = []messages.State{messages.StateStopped, messages.StateStarting, messages.StateReady, messages.StateDraining}
	events = []messages.Event{messages.EventStart, messages.EventHealthOK, messages.EventHealthFail, messages.EventDrain, messages.EventStopped}
)

// reach returns a machine in state, which only one path leads to.
func reach(t *testing.T, state messages.State) *Lifecycle {
	t.Helper()
	machine := NewLifecycle()
	for _, event := range map[messages.State][]messages.Event{
		messages.StateStopped:  nil,
		messages.StateStarting: {messages.EventStart},
		messages.StateReady:    {messages.EventStart, messages.EventHealthOK},
		messages.StateDraining: {messages.EventStart, messages.EventHealthOK, messages.EventDrain},
	}[state] {
		if reason := machine.Apply(event); reason != messages.ReasonOK {
			t.Fatalf("Apply(%s): got %s, want ok", event, reason)
		}
	}
	return machine
}

// A1: every pair of state and event; a pair that the contract does not list changes nothing.
func TestLifecycleTable(t *testing.T) {
	allowed := map[messages.State]map[messages.Event]messages.State{
		messages.StateStopped:  {messages.EventStart: messages.StateStarting},
		messages.StateStarting: {messages.EventHealthOK: messages.StateReady, messages.EventHealthFail: messages.StateStopped},
		messages.StateReady:    {messages.EventDrain: messages.StateDraining},
		messages.StateDraining: {messages.EventStopped: messages.StateStopped},
	}
	for _, from := range states {
		for _, event := range events {
			machine := reach(t, from)
			want, reason := from, messages.ReasonInvalidTransition
			if to, ok := allowed[from][event]; ok {
				want, reason = to, messages.ReasonOK
			}
			if got := machine.Apply(event); got != reason || machine.State() != want {
				t.Errorf("%s + %s = %s, %s; want %s, %s", from, event, machine.State(), got, want, reason)
			}
		}
		machine := reach(t, from)
		if got := machine.Apply("jump"); got != messages.ReasonUnknownEvent || machine.State() != from {
			t.Errorf("%s + unknown event = %s, %s; want %s, %s", from, machine.State(), got, from, messages.ReasonUnknownEvent)
		}
	}
}

// A1: only a start followed by a health success leads to ready.
func TestReadyOnlyThroughStart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		machine := NewLifecycle()
		var path []messages.Event
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			before := machine.State()
			event := rapid.SampledFrom(events).Draw(t, "event")
			if machine.Apply(event) == messages.ReasonOK {
				path = append(path, event)
			}
			if machine.State() == messages.StateReady && before != messages.StateReady &&
				(before != messages.StateStarting || len(path) < 2 || path[len(path)-2] != messages.EventStart) {
				t.Fatalf("got ready from %s by %v, want ready only from starting, right after start", before, path)
			}
		}
	})
}

// A5: one row per fact; available only when all facts hold.
func TestAvailable(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const recency = 15 * time.Second
	all := messages.Facts{Verified: true, Ready: true, Bound: true, Token: true, LastHealth: now}
	tests := []struct {
		name   string
		change func(*messages.Facts)
		causes Causes
		want   messages.Reason
	}{
		{"all hold", func(*messages.Facts) {}, Causes{}, messages.ReasonOK},
		{"health at the bound", func(f *messages.Facts) { f.LastHealth = now.Add(-recency) }, Causes{}, messages.ReasonOK},
		{"health aged out", func(f *messages.Facts) { f.LastHealth = now.Add(-recency - 1) }, Causes{}, messages.ReasonRuntimeUnavailable},
		{"health from the future", func(f *messages.Facts) { f.LastHealth = now.Add(1) }, Causes{}, messages.ReasonRuntimeUnavailable},
		{"no health", func(f *messages.Facts) { f.LastHealth = time.Time{} }, Causes{}, messages.ReasonRuntimeUnavailable},
		{"not verified", func(f *messages.Facts) { f.Verified = false }, Causes{Verified: messages.ReasonDigestMismatch}, messages.ReasonDigestMismatch},
		{"nobody vouched", func(f *messages.Facts) { f.Verified = false }, Causes{}, messages.ReasonNotReady},
		{"not bound", func(f *messages.Facts) { f.Bound = false }, Causes{Bound: messages.ReasonBindFailed}, messages.ReasonBindFailed},
		{"no token", func(f *messages.Facts) { f.Token = false }, Causes{Token: messages.ReasonKeychainLocked}, messages.ReasonKeychainLocked},
		{"not ready", func(f *messages.Facts) { f.Ready = false }, Causes{Ready: messages.ReasonCrashLoop}, messages.ReasonCrashLoop},
		{"shutting down", func(f *messages.Facts) { f.ShuttingDown = true }, Causes{}, messages.ReasonNotReady},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			facts := all
			test.change(&facts)
			available, reason := Available(facts, test.causes, now, recency)
			if reason != test.want || available != (test.want == messages.ReasonOK) {
				t.Fatalf("Available = %t, %s; want %s", available, reason, test.want)
			}
		})
	}
}

// A5: the monotonic clock stops during suspend, the wall clock does not; a health success is old if either
// says so. A wall clock that is set ahead ages the success; one that is set back is ignored.
func TestRecencyInSuspend(t *testing.T) {
	const recency = 15 * time.Second
	last := time.Now()
	for name, test := range map[string]struct {
		awake, date time.Duration // since last, by the monotonic and by the wall clock
		want        bool
	}{
		"awake":            {recency, recency, true},
		"awake for long":   {recency + 1, recency + 1, false},
		"suspended":        {time.Second, 3 * time.Hour, false},
		"just suspended":   {time.Second, recency, true},
		"date set back":    {time.Second, -time.Hour, true},
		"set back, old":    {recency + 1, -time.Hour, false},
		"clock goes wrong": {-1, time.Second, false},
	} {
		now := redated(last.Add(test.awake), test.date-test.awake)
		if now.Sub(last) != test.awake || now.Round(0).Sub(last.Round(0)) != test.date {
			t.Fatalf("%s: the test built %v and %v, want %v and %v", name, now.Sub(last), now.Round(0).Sub(last.Round(0)), test.awake, test.date)
		}
		if got := HealthRecent(last, now, recency); got != test.want {
			t.Errorf("%s: got recent %t, want %t", name, got, test.want)
		}
	}
}

// redated returns t with its wall clock changed by d and its monotonic clock unchanged.
func redated(t time.Time, d time.Duration) time.Time {
	// Layout of the first word of a time.Time with a monotonic clock: a flag, 33 bits of seconds, 30 of
	// nanoseconds.
	wall := (*uint64)(unsafe.Pointer(&t))
	const mask = 1<<30 - 1
	nanos := int64(*wall>>30&(1<<33-1))*int64(time.Second) + int64(*wall&mask) + int64(d)
	*wall = 1<<63 | uint64(nanos/int64(time.Second))<<30 | uint64(nanos%int64(time.Second))
	return t
}

// A8: the fifth failure within five minutes is a crash loop; a failure that is five minutes old no longer
// counts.
func TestCrashLoop(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var failures []time.Time
	for i := range CrashLoopFailures {
		var loop bool
		if failures, loop = CrashLoop(failures, start.Add(time.Duration(i)*time.Second)); loop != (i == CrashLoopFailures-1) {
			t.Fatalf("failure %d: got loop %t, want %t", i+1, loop, !loop)
		}
	}
	if recent, loop := CrashLoop(failures, start.Add(CrashLoopWindow+time.Second)); loop || len(recent) != 4 {
		t.Fatalf("after the window: got %d recent, loop %t; want 4, false", len(recent), loop)
	}
	if CrashLoopFailures != 5 || CrashLoopWindow != 5*time.Minute || HealthyAfter != time.Minute {
		t.Errorf("got %d failures in %v, forgiven after %v; want 5 in 5m, 1m", CrashLoopFailures, CrashLoopWindow, HealthyAfter)
	}
}
