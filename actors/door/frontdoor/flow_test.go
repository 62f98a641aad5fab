package frontdoor

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"companion/messages"
)

// slow is an upstream whose answers the test releases one by one.
type slow struct {
	began   chan string   // a body, when a request has arrived
	release chan struct{} // lets one go
	gone    chan struct{} // told when a request was cancelled
}

func newSlow() *slow {
	return &slow{make(chan string, 64), make(chan struct{}, 64), make(chan struct{}, 64)}
}

func (s *slow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == "GET" {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"data":[{"id":"gemma"}]}`)
		return
	}
	body, _ := io.ReadAll(r.Body)
	s.began <- string(body)
	select {
	case <-s.release:
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, chatAnswer)
	case <-r.Context().Done():
		s.gone <- struct{}{}
	}
}

// send begins a chat and leaves its answer to be read.
func (r *rig) send(text string) net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) say(what string) string {
	return r.request("POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"`+what+`"}]}`)
}

// status reads the status of an answer, 0 when there is none within d.
func status(c net.Conn, d time.Duration) int {
	_ = c.SetReadDeadline(time.Now().Add(d))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	return resp.StatusCode
}

// wait polls until the counts are there: the door's own view is what status shows.
func (r *rig) wait(inFlight, queued int) {
	r.t.Helper()
	var v messages.DoorView
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if v = r.actor.View(); v.InFlight == inFlight && v.Queued == queued {
			return
		}
	}
	r.t.Fatalf("%d in flight and %d queued, want %d and %d", v.InFlight, v.Queued, inFlight, queued)
}

const patience = 5 * time.Second

// L6: exact limits, first in first out, queue_full with Retry-After, and a client that gives up
// leaves the queue.
func TestAdmission(t *testing.T) {
	up := newSlow()
	r := start(t, up, func(d *Deps) { d.Bounds.MaxInFlight, d.Bounds.QueueBound = 2, 3 })
	var conns []net.Conn
	for i := range 5 {
		conns = append(conns, r.send(r.say(fmt.Sprint("n", i))))
		r.wait(min(i+1, 2), max(0, i-1))
	}
	if a := r.chat(); a.status != 503 || a.code() != messages.ReasonQueueFull || a.header.Get("Retry-After") == "" {
		t.Errorf("one request too many: got %+v, want 503 queue_full with Retry-After", a)
	}
	if a := r.one(strings.Replace(r.request("GET", "/v1/models", ""), token, probeToken, 1)); a.status != 200 {
		t.Errorf("the probe with a full queue: got %+v, want 200", a)
	}
	conns[3].Close() // gives up
	r.wait(2, 2)
	for range 2 {
		<-up.began
	}
	for _, next := range []string{"n2", "n4"} {
		up.release <- struct{}{}
		if body := <-up.began; !strings.Contains(body, `"`+next+`"`) {
			t.Errorf("got %s, want %s next", body, next)
		}
	}
	up.release <- struct{}{}
	up.release <- struct{}{}
	for _, i := range []int{0, 1, 2, 4} {
		if got := status(conns[i], patience); got != 200 {
			t.Errorf("request %d: got %d, want 200", i, got)
		}
	}
	r.wait(0, 0)
}

// L6, L9: a request takes a slot of the runtime for each of its answers, all at once and in its turn.
func TestSlotsOfAnswers(t *testing.T) {
	for name, request := range map[string]string{
		"n":       `{"messages":[{"role":"user","content":"many"}],"n":2}`,
		"prompts": `{"prompt":["many","many","many","many"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := map[string]string{"n": routeChat, "prompts": routeCompletions}[name]
			up := newSlow()
			r := start(t, up, func(d *Deps) { d.Bounds.MaxInFlight, d.Bounds.QueueBound = 2, 4 })
			conns := []net.Conn{r.send(r.say("first"))}
			r.wait(1, 0)
			conns = append(conns, r.send(r.request("POST", path, request)))
			r.wait(1, 1) // one slot is free, and it needs two
			conns = append(conns, r.send(r.say("last")))
			r.wait(1, 2)
			for i, next := range []string{"first", "many", "last"} {
				if body := <-up.began; !strings.Contains(body, next) {
					t.Errorf("got %s, want the request %q", body, next)
				}
				if want := []int{1, 2, 1}[i]; r.actor.View().InFlight != want {
					t.Errorf("%s: got %d slots taken, want %d", next, r.actor.View().InFlight, want)
				}
				up.release <- struct{}{}
			}
			for i, c := range conns {
				if got := status(c, patience); got != 200 {
					t.Errorf("request %d: got status %d, want 200", i, got)
				}
			}
			r.wait(0, 0)
		})
	}
}

// L6: with a small queue the only answers are 200, and 503 queue_full with Retry-After.
func TestSmallQueue(t *testing.T) {
	for _, n := range []int{8, 64} {
		met := make(chan struct{}) // closed when the queue was full: no request is answered before
		see := sync.OnceFunc(func() { close(met) })
		up := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			<-met
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, chatAnswer)
		})
		r := start(t, up, func(d *Deps) { d.Bounds.MaxInFlight, d.Bounds.QueueBound, d.Bounds.RatePerMinute = 2, 4, 10_000 })
		served, full := crush(t, r.address, r.request("POST", "/v1/chat/completions", chatBody), n, 20, see)
		if served == 0 || full == 0 || served+full != int64(20*n) {
			t.Errorf("%d connections: got %d served and %d refused by a full queue, want both, in all %d", n, served, full, 20*n)
		}
	}
}

// crush sends a request times times on each of n connections at once, and counts the answers; any but
// 200 and queue_full is a failure. met is called for each but 200.
func crush(t testing.TB, address, request string, n, times int, met func()) (served, full int64) {
	var ok, refused atomic.Int64
	one := func(c net.Conn, in *bufio.Reader) (again bool, err error) {
		if _, err := io.WriteString(c, request); err != nil {
			return false, err
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return false, err
		}
		text, err := io.ReadAll(resp.Body)
		a := answered{status: resp.StatusCode, header: resp.Header, body: string(text)}
		if a.status != 200 {
			met()
		}
		switch {
		case err != nil:
			return false, err
		case a.status == 200:
			ok.Add(1)
		case a.status == 503 && a.code() == messages.ReasonQueueFull && a.header.Get("Retry-After") != "":
			refused.Add(1)
		default:
			return false, fmt.Errorf("answered %+v", a)
		}
		return !resp.Close, nil
	}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for left := times; left > 0; {
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				in := bufio.NewReader(c)
				for again := true; again && left > 0; left-- {
					if again, err = one(c, in); err != nil {
						t.Error(err)
						left = 0
					}
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	return ok.Load(), refused.Load()
}

// L6: one that waited too long.
func TestQueueTimeout(t *testing.T) {
	up := newSlow()
	r := start(t, up, func(d *Deps) { d.Bounds.MaxInFlight, d.Bounds.QueueTimeout = 1, 50*time.Millisecond })
	first := r.send(r.say("first"))
	<-up.began
	if a := r.chat(); a.status != 503 || a.code() != messages.ReasonQueueTimeout || a.header.Get("Retry-After") == "" {
		t.Errorf("a request that waited too long: got %+v, want 503 queue_timeout with Retry-After", a)
	}
	up.release <- struct{}{}
	if got := status(first, patience); got != 200 {
		t.Errorf("the first request: got %d, want 200", got)
	}
	r.wait(0, 0)
}

// A6, A7: a drain refuses queued and new requests, lets running ones finish, and reports when they have.
func TestDrain(t *testing.T) {
	up := newSlow()
	r := start(t, up, func(d *Deps) { d.Bounds.MaxInFlight = 1 })
	first := r.send(r.say("first"))
	<-up.began
	second := r.send(r.say("second"))
	r.wait(1, 1)
	s := r.snapshot.Get()
	s.State = messages.StateDraining
	r.snapshot.Set(s)
	if got := status(second, patience); got != 503 {
		t.Errorf("the queued request: got %d, want 503", got)
	}
	if a := r.chat(); a.code() != messages.ReasonNotReady {
		t.Errorf("a new request: got %+v, want not_ready", a)
	}
	if left := r.drain(); left != 1 {
		t.Errorf("got %d requests at the deadline, want 1", left)
	}
	reply := make(chan int, 1)
	r.box <- messages.Drain{Deadline: time.Now().Add(time.Minute), Reply: reply}
	up.release <- struct{}{}
	if left := <-reply; left != 0 {
		t.Errorf("got %d requests after the last, want 0", left)
	}
	if got := status(first, patience); got != 200 {
		t.Errorf("the running request: got %d, want 200", got)
	}
}

// A6: a request that passed the gate before the runtime stopped being ready is refused when it gets
// its place; and one that comes later is refused without waiting for its body.
func TestNoWindowBetweenStates(t *testing.T) {
	up := newSlow()
	r := start(t, up, nil)
	post := r.request("POST", "/v1/chat/completions", chatBody)
	c := r.send(post[:len(post)-5])
	for len(r.logs.FilterMessage("request").All()) == 0 {
		if a := r.one(strings.Replace(r.request("GET", "/v1/models", ""), token, probeToken, 1)); a.status != 200 { // the other one is past its gate by now
			t.Fatalf("got %+v, want 200", a)
		}
	}
	s := r.snapshot.Get()
	s.State = messages.StateDraining
	r.snapshot.Set(s)
	if _, err := io.WriteString(c, post[len(post)-5:]); err != nil {
		t.Fatal(err)
	}
	if got := status(c, patience); got != 503 {
		t.Errorf("past the gate: got %d, want 503", got)
	}
	begin := time.Now()
	if got := status(r.send(post[:len(post)-5]), patience); got != 503 || time.Since(begin) > time.Second {
		t.Errorf("before the gate: got %d after %v, want 503 within a second", got, time.Since(begin))
	}
	if len(up.began) != 0 {
		t.Error("a request reached a runtime that is being drained, want none")
	}
}

// L11, J2, T12: the log has no content of a request, whether it was answered or refused.
func TestLogHoldsNoContent(t *testing.T) {
	r := start(t, llama(t), nil)
	const canary = "CANARY"
	for _, text := range []string{
		r.request("POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"`+canary+`"}],"stop":"`+canary+`"}`, "X-A: "+canary, "Cookie: "+canary),
		r.request("POST", "/v1/chat/completions", `{"`+canary+`":1}`), r.request("POST", "/v1/chat/completions", canary),
		r.request("GET", "/"+canary, ""), r.request("GET", "/v1/models?"+canary, ""), r.request(canary, "/v1/models", ""),
		strings.Replace(r.request("GET", "/v1/models", ""), token, canary, 1), strings.Replace(r.request("GET", "/v1/models", ""), "Host: 127", "Host: "+canary, 1),
		r.request("GET", "/v1/models", "", "Origin: "+canary), canary + "\r\n\r\n",
	} {
		r.one(text)
	}
	lines := r.logs.All()
	if len(lines) < 10 {
		t.Fatalf("got %d lines, want at least 10", len(lines))
	}
	for _, l := range lines {
		if said := fmt.Sprint(l.Message, l.ContextMap()); strings.Contains(said, canary) || strings.Contains(said, token) {
			t.Errorf("the log says %s, want no token and no request data", said)
		}
	}
}

// L8: a client that leaves ends the upstream request and frees its slot, also if it had sent the next request.
func TestClientLeaves(t *testing.T) {
	up := newSlow()
	r := start(t, up, nil)
	ahead := strings.Repeat(r.request("GET", "/v1/models", ""), 100)
	for _, c := range []struct{ stream, ahead string }{{"false", ""}, {"true", ""}, {"false", ahead}, {"true", ahead}} {
		client := r.send(r.request("POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}],"stream":`+c.stream+`}`) + c.ahead)
		<-up.began
		begin := time.Now()
		client.Close()
		<-up.gone
		r.wait(0, 0)
		if took := time.Since(begin); took > 500*time.Millisecond {
			t.Errorf("stream %s, %d bytes ahead: the slot was free after %v, want at most 500ms", c.stream, len(c.ahead), took)
		}
	}
}
