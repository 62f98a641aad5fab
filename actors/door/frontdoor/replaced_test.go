package frontdoor

import (
	"net"
	"testing"

	"companion/messages"
)

// moved changes the snapshot.
func (r *rig) moved(change func(s *messages.Snapshot)) {
	s := r.snapshot.Get()
	change(&s)
	r.snapshot.Set(s)
}

func replacing(s *messages.Snapshot) { s.State, s.Replacing = messages.StateDraining, true }

func replaced(s *messages.Snapshot) { s.State, s.Replacing = messages.StateReady, false }

// M12, L6: a request that comes while the runtime is replaced waits for the next one, up to the bound of the queue, and is
// refused if none follows.
func TestRequestsWaitForTheNextRuntime(t *testing.T) {
	up := newSlow()
	r := start(t, up, func(d *Deps) { d.Bounds.QueueBound = 1 })
	r.moved(replacing)
	answers := make(chan int, 2)
	for range 2 {
		c := r.send(r.say("hello"))
		go func(c net.Conn) { answers <- status(c, patience) }(c)
	}
	if got := <-answers; got != 503 {
		t.Errorf("one more than the queue holds: got %d, want 503", got)
	}
	r.moved(func(s *messages.Snapshot) { s.State = messages.StateStarting })
	select {
	case got := <-answers:
		t.Fatalf("while the next runtime starts: got %d, want the request to wait", got)
	case <-up.began:
		t.Fatal("while the next runtime starts: got the request in the runtime, want it to wait")
	default:
	}
	r.moved(replaced)
	<-up.began
	up.release <- struct{}{}
	if got := <-answers; got != 200 {
		t.Errorf("when the next runtime is ready: got %d, want 200", got)
	}

	r.moved(replacing)
	c := r.send(r.say("hello"))
	r.wait(0, 1)
	r.moved(func(s *messages.Snapshot) { s.State, s.Replacing = messages.StateStopped, false })
	if got := status(c, patience); got != 503 {
		t.Errorf("no runtime follows: got %d, want 503", got)
	}
}

// L6a: a request that waited is checked against the model that serves then.
func TestWaitingRequestMeetsTheNextModel(t *testing.T) {
	up := newSlow()
	r := start(t, up, nil)
	r.moved(replacing)
	post := func(model string) net.Conn {
		return r.send(r.request("POST", "/v1/chat/completions", `{"model":"`+model+`","messages":[{"role":"user","content":"hi"}]}`))
	}
	old, next := post("gemma"), post("qwen")
	r.wait(0, 2)
	r.moved(func(s *messages.Snapshot) {
		replaced(s)
		s.Model.Name = "qwen"
	})
	<-up.began
	up.release <- struct{}{}
	if got := status(next, patience); got != 200 {
		t.Errorf("for the next model: got %d, want 200", got)
	}
	if got := status(old, patience); got != 404 {
		t.Errorf("for the model before: got %d, want 404", got)
	}
}

// M12, A7: a request in the queue of a runtime that is replaced goes to the next one, if that serves the same model. It was
// checked against that model.
func TestQueueSurvivesReplacement(t *testing.T) {
	for model, want := range map[string]int{"gemma": 200, "qwen": 503} {
		up := newSlow()
		r := start(t, up, func(d *Deps) { d.Bounds.MaxInFlight = 1 })
		first := r.send(r.say("first"))
		<-up.began
		second := r.send(r.say("second"))
		r.wait(1, 1)
		r.moved(replacing)
		up.release <- struct{}{}
		if got := status(first, patience); got != 200 {
			t.Errorf("%s: the running request: got %d, want 200", model, got)
		}
		r.wait(0, 1)
		r.moved(func(s *messages.Snapshot) {
			replaced(s)
			s.Model.Name = model
		})
		up.release <- struct{}{}
		if got := status(second, patience); got != want {
			t.Errorf("%s: the queued request: got %d, want %d", model, got, want)
		}
		r.stop()
	}
}
