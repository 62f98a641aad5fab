package frontdoor

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"companion/messages"
)

// T16, L9: while many bad clients attack at once, the good one is served. When they are gone, no goroutine or slot of
// theirs is left.
func TestFlood(t *testing.T) {
	up := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(body), `"stream":true`) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, chatAnswer)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, "data: "+strings.Repeat("x", 4000)+"\n\n"); err != nil {
				return
			}
		}
	})
	r := start(t, up, func(d *Deps) {
		d.Bounds.Connections, d.Bounds.MaxInFlight, d.Bounds.QueueBound = 128, 24, 4
		d.Bounds.WriteStall, d.Bounds.HeadTime, d.Bounds.BodyTime = 2*time.Second, time.Second, time.Second
	})
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for _, text := range []string{
				r.request("POST", "/v1/chat/completions", streamBody), // and never reads
				"GET /v1/mod", "", r.request("POST", "/v1/chat/completions", chatBody)[:150],
				r.request("POST", "/v1/chat/completions", "", "Content-Type: application/json", "Content-Length: 16777217"),
				strings.Replace(r.request("GET", "/v1/models", ""), token, fmt.Sprint("guess", i), 1),
				"GET /" + strings.Repeat("a", 20<<10),
			} {
				_ = r.send(text)
			}
		})
	}
	wg.Wait()
	for range 20 {
		if a := r.chat(); a.status != 200 {
			t.Errorf("the good client got %+v, want 200", a)
		}
	}
	r.wait(0, 0) // the stalled readers are cut off, their places free
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before+10; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("got %d goroutines, want at most %d", runtime.NumGoroutine(), before+10)
		}
	}
}

// L1, A9: the actor's next life listens on the same port when it is free, begins without tokens, and
// asks for them.
func TestNextLife(t *testing.T) {
	r := start(t, llama(t), nil)
	r.stop()
	if m := <-r.told; m != (messages.DoorLost{Reason: messages.ReasonNotReady}) {
		t.Errorf("got %+v at the end, want DoorLost with not_ready", m)
	}
	ctx := t.Context()
	done := make(chan error, 1)
	go func() { done <- r.actor.Serve(ctx) }()
	if m := <-r.told; m != (messages.ActorStarted{Actor: messages.ActorFrontDoor}) {
		t.Errorf("got %+v at the start, want ActorStarted", m)
	}
	if m := <-r.told; m != (messages.DoorBound{BaseURL: r.baseURL}) {
		t.Errorf("then %+v, want the same port", m)
	}
	if a := r.chat(); a.code() != messages.ReasonInvalidToken {
		t.Errorf("before it was given a token: got %+v, want invalid_token", a)
	}
	r.box <- messages.UseLoopbackToken{Token: messages.NewSecret(token)}
	r.drain()
	if a := r.chat(); a.status != 200 {
		t.Errorf("got %+v, want 200", a)
	}
	if r.actor.View().Verdicts[messages.ReasonOK] != 1 {
		t.Errorf("got verdicts %+v, want one ok", r.actor.View().Verdicts)
	}
	t.Cleanup(func() { <-done }) // t.Context has ended by then
}

// L9: a reader that stops reading a stream is cut off, and its place freed.
func TestStalledReader(t *testing.T) {
	r := start(t, llama(t), func(d *Deps) { d.Bounds.WriteStall = 200 * time.Millisecond })
	flood, _ := scripted(t, func(c net.Conn, _ *http.Request) {
		_, _ = io.WriteString(c, streamHead)
		event := chunk("data: " + strings.Repeat("x", 8000) + "\n\n")
		for {
			if _, err := io.WriteString(c, event); err != nil {
				return
			}
		}
	})
	r.behind(2, flood)
	r.send(r.request("POST", "/v1/chat/completions", streamBody))
	r.wait(1, 0)
	r.wait(0, 0)
}

// L9: a connection without a head is cut off, a request without its body is answered, and neither affects other
// clients.
func TestSlowClients(t *testing.T) {
	r := start(t, llama(t), func(d *Deps) {
		d.Bounds.HeadTime, d.Bounds.BodyTime, d.Bounds.IdleTime = 100*time.Millisecond, 100*time.Millisecond, 150*time.Millisecond
	})
	post := r.request("POST", "/v1/chat/completions", chatBody)
	for name, text := range map[string]string{"silent": "", "half a head": post[:30], "second head": post + post[:30]} {
		c := r.send(text)
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("%s: was not cut off: %v", name, err)
		}
	}
	c := r.send(post[:len(post)-5])
	if got := status(c, patience); got != 400 {
		t.Errorf("half a body: got %d, want 400", got)
	}
	c = r.send(post)
	if got := status(c, patience); got != 200 {
		t.Errorf("a good request: got %d, want 200", got)
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Errorf("an idle connection stayed: %v", err)
	}
	r.wait(0, 0)
}

// L9: the longest idle connection makes room; when none is idle, the new one is turned away.
func TestConnections(t *testing.T) {
	up := newSlow()
	r := start(t, up, func(d *Deps) { d.Bounds.Connections, d.Bounds.MaxInFlight = 3, 3 })
	models := r.request("GET", "/v1/models", "")
	// Silent connections: the server adds them to its list as it accepts them, so their order is known. One that has
	// been answered joins the list at some moment after its client has read the answer.
	first := r.send("")
	busy := r.send(r.say("busy"))
	<-up.began
	idle := r.send("")
	last := r.send(models)
	if got := status(last, patience); got != 200 {
		t.Errorf("the newest connection: got %d, want 200", got)
	}
	_ = first.SetReadDeadline(time.Now().Add(patience))
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !strings.Contains(fmt.Sprint(err), "reset") {
		t.Errorf("the connection idle longest: got %v, want it closed", err)
	}
	idle.Close()
	last.Close()
	for range 2 {
		r.send(r.say("busy too"))
		<-up.began
	}
	turned := r.send(models)
	if got := status(turned, patience); got != 0 {
		t.Errorf("one connection too many: got %d, want no answer", got)
	}
	up.release <- struct{}{}
	up.release <- struct{}{}
	up.release <- struct{}{}
	if got := status(busy, patience); got != 200 {
		t.Errorf("the busy connection: got %d, want 200", got)
	}
}
