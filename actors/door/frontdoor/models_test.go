package frontdoor

import (
	"net/http"
	"testing"

	"companion/messages"
)

// L6, A6: a program that lists the models when it starts does not wait for the answers of others, not even behind a
// full queue, nor for a runtime that hangs; and it does not count as activity of the runtime, or a program that asks
// again and again would hide a hung one from the idle probe (A4).
func TestModelsOfABusyRuntime(t *testing.T) {
	up := newSlow()
	r := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			t.Error("the request reached the runtime, want it answered without")
		}
		up.ServeHTTP(w, r)
	}), func(d *Deps) { d.Bounds.MaxInFlight, d.Bounds.QueueBound = 1, 1 })
	running := r.send(r.say("running"))
	<-up.began
	waiting := r.send(r.say("waiting"))
	r.wait(1, 1)
	if a := r.chat(); a.code() != messages.ReasonQueueFull {
		t.Errorf("a second request: got %+v, want queue_full", a)
	}
	if a := r.one(r.request("GET", "/v1/models", "")); a.status != 200 {
		t.Errorf("got %+v, want 200", a)
	}
	if at := r.actor.View().LastActivity; !at.IsZero() {
		t.Errorf("the runtime was active at %v, want never", at)
	}
	waiting.Close()
	r.wait(1, 0)
	running.Close()
	r.wait(0, 0)
}

// A6, P3: the list passes the gate like every request, in its order.
func TestModelsAtTheGate(t *testing.T) {
	r := start(t, llama(t), func(d *Deps) { d.Bounds.Resources.ResidentBytes = 100 })
	for _, c := range []struct {
		state messages.State
		bytes int64
		want  messages.Reason
	}{
		{messages.StateStarting, 1, messages.ReasonNotReady}, {messages.StateDraining, 101, messages.ReasonNotReady},
		{messages.StateStopped, 1, messages.ReasonNotReady}, {"odd", 1, messages.ReasonUnknownState},
		{messages.StateReady, 101, messages.ReasonRAMOverLimit}, {messages.StateReady, 100, ""},
	} {
		s := r.snapshot.Get()
		s.State = c.state
		r.snapshot.Set(s)
		r.observe(c.bytes, func() {
			if a := r.one(r.request("GET", "/v1/models", "")); a.code() != c.want || (a.status == 200) != (c.want == "") {
				t.Errorf("%s, %d bytes: got %+v, want %q, 200 without a reason", c.state, c.bytes, a, c.want)
			}
		})
	}
	s := r.snapshot.Get()
	s.Model.Name = ""
	r.snapshot.Set(s)
	r.observe(1, func() {
		if a := r.one(r.request("GET", "/v1/models", "")); a.status != 503 || a.code() != messages.ReasonRuntimeUnavailable {
			t.Errorf("no model: got %+v, want 503 runtime_unavailable", a)
		}
	})
}
