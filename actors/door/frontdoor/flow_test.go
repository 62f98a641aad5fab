package frontdoor

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
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
		t.Errorf("one too many: %+v", a)
	}
	if a := r.one(strings.Replace(r.request("GET", "/v1/models", ""), token, probeToken, 1)); a.status != 200 {
		t.Errorf("the probe beside a full queue: %+v", a)
	}
	conns[3].Close() // gives up
	r.wait(2, 2)
	for range 2 {
		<-up.began
	}
	for _, next := range []string{"n2", "n4"} {
		up.release <- struct{}{}
		if body := <-up.began; !strings.Contains(body, `"`+next+`"`) {
			t.Errorf("%s came before %s", body, next)
		}
	}
	up.release <- struct{}{}
	up.release <- struct{}{}
	for _, i := range []int{0, 1, 2, 4} {
		if got := status(conns[i], patience); got != 200 {
			t.Errorf("request %d: %d", i, got)
		}
	}
	r.wait(0, 0)
}

// L6: one that waited too long.
func TestQueueTimeout(t *testing.T) {
	up := newSlow()
	r := start(t, up, func(d *Deps) { d.Bounds.MaxInFlight, d.Bounds.QueueTimeout = 1, 50*time.Millisecond })
	first := r.send(r.say("first"))
	<-up.began
	if a := r.chat(); a.status != 503 || a.code() != messages.ReasonQueueTimeout || a.header.Get("Retry-After") == "" {
		t.Errorf("%+v", a)
	}
	up.release <- struct{}{}
	if got := status(first, patience); got != 200 {
		t.Errorf("the first: %d", got)
	}
	r.wait(0, 0)
}

// A6, A7: a drain refuses who waits and who comes, lets who runs finish, and is told when.
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
		t.Errorf("who waited: %d", got)
	}
	if a := r.chat(); a.code() != messages.ReasonNotReady {
		t.Errorf("who came: %+v", a)
	}
	if left := r.drain(); left != 1 {
		t.Errorf("%d left at the deadline", left)
	}
	reply := make(chan int, 1)
	r.box <- messages.Drain{Deadline: time.Now().Add(time.Minute), Reply: reply}
	up.release <- struct{}{}
	if left := <-reply; left != 0 {
		t.Errorf("%d left after the last", left)
	}
	if got := status(first, patience); got != 200 {
		t.Errorf("who ran: %d", got)
	}
}

// L8: a client that goes away ends the upstream request and frees its place.
func TestClientLeaves(t *testing.T) {
	up := newSlow()
	r := start(t, up, nil)
	for _, stream := range []string{`false`, `true`} {
		c := r.send(r.request("POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}],"stream":`+stream+`}`))
		<-up.began
		begin := time.Now()
		c.Close()
		<-up.gone
		r.wait(0, 0)
		if took := time.Since(begin); took > 500*time.Millisecond {
			t.Errorf("stream %s: the place was free after %v", stream, took)
		}
	}
}

// scripted is an upstream that writes raw bytes, one script per connection.
func scripted(t *testing.T, scripts ...func(net.Conn, *http.Request)) (messages.BackEnd, *atomic.Int32) {
	t.Helper()
	dir, err := os.MkdirTemp("", "door")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	var count atomic.Int32
	var current atomic.Pointer[net.Conn] // one at a time
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			current.Store(&c)
			n := int(count.Add(1)) - 1
			in := bufio.NewReader(c)
			for {
				req, err := http.ReadRequest(in)
				if err != nil {
					break
				}
				_, _ = io.Copy(io.Discard, req.Body)
				scripts[min(n, len(scripts)-1)](c, req)
			}
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		if c := current.Load(); c != nil {
			(*c).Close()
		}
		<-done
		os.RemoveAll(dir)
	})
	return messages.BackEnd{Network: "unix", Address: dir + "/s"}, &count
}

func writes(texts ...string) func(net.Conn, *http.Request) {
	return func(c net.Conn, _ *http.Request) {
		for _, s := range texts {
			_, _ = io.WriteString(c, s)
		}
	}
}

func thenCloses(f func(net.Conn, *http.Request)) func(net.Conn, *http.Request) {
	return func(c net.Conn, r *http.Request) { f(c, r); c.Close() }
}

const (
	streamHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
	streamBody = `{"messages":[{"role":"user","content":"x"}],"stream":true}`
)

func chunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

func sized(status int, kind, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", status, kind, len(body), body)
}

// behind points the door at another back end.
func (r *rig) behind(launch messages.Launch, b messages.BackEnd) {
	s := r.snapshot.Get()
	s.Launch, s.BackEnd = launch, b
	r.snapshot.Set(s)
}

// L8, L7, L10: what the runtime may do, and what the client gets.
func TestUpstreamFaults(t *testing.T) {
	r := start(t, llama(t), nil)
	ends := "data: {\"error\":{\"message\":\"The model's runtime failed.\",\"type\":\"server_error\",\"code\":\"upstream_failed\",\"param\":null}}\n\n"
	launch := messages.Launch(1)
	for name, c := range map[string]struct {
		up     func(net.Conn, *http.Request)
		stream bool
		status int
		body   string // "" : an error object
		code   messages.Reason
	}{
		"dies mid-stream":        {thenCloses(writes(streamHead, chunk("data: 1\n\n"))), true, 200, "data: 1\n\n" + ends, ""},
		"dies in mid-event":      {thenCloses(writes(streamHead, chunk("data: 1\n\nda"))), true, 200, "data: 1\n\n" + ends, ""},
		"ends without its end":   {writes(streamHead, chunk("data: 1\n\n"), "0\r\n\r\n"), true, 200, "data: 1\n\n" + ends, ""},
		"tells an error":         {writes(streamHead, chunk("data: 1\n\ndata: {\"error\":{\"message\":\"/secret/path\"}}\n\n"), "0\r\n\r\n"), true, 200, "data: 1\n\n" + ends, ""},
		"whole stream":           {writes(streamHead, chunk("data: 1\n\nda"), chunk("ta: [DONE]\n\n"), "0\r\n\r\n"), true, 200, "data: 1\n\ndata: [DONE]\n\n", ""},
		"a long event":           {writes(streamHead, chunk("data: "+strings.Repeat("x", 100000)+"\n\ndata: [DONE]\n\n"), "0\r\n\r\n"), true, 200, "data: " + strings.Repeat("x", 100000) + "\n\ndata: [DONE]\n\n", ""},
		"closes at once":         {thenCloses(writes()), false, 502, "", messages.ReasonUpstreamFailed},
		"half an answer":         {thenCloses(writes("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")), false, 502, "", messages.ReasonUpstreamFailed},
		"half a head":            {thenCloses(writes("HTTP/1.1 200 OK\r\nContent-")), false, 502, "", messages.ReasonUpstreamFailed},
		"not HTTP":               {thenCloses(writes("hello\r\n\r\n")), false, 502, "", messages.ReasonUpstreamFailed},
		"framed in two ways":     {thenCloses(writes("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}")), false, 502, "", messages.ReasonUpstreamFailed},
		"informational first":    {writes("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n", sized(200, "application/json", "{}")), false, 200, "{}", ""},
		"switches protocols":     {thenCloses(writes("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")), false, 502, "", messages.ReasonUpstreamFailed},
		"until the end":          {thenCloses(writes("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{}")), false, 200, "{}", ""},
		"a web page":             {writes(sized(200, "text/html", "<script>")), false, 502, "", messages.ReasonUpstreamFailed},
		"an error with a path":   {writes(sized(500, "application/json", `{"error":{"message":"/secret/path"}}`)), false, 502, "", messages.ReasonUpstreamFailed},
		"refuses":                {writes(sized(400, "application/json", `{"error":{"message":"/secret/path"}}`)), false, 400, "", messages.ReasonBadRequest},
		"refuses a stream":       {writes(sized(400, "application/json", `{"error":{}}`)), true, 400, "", messages.ReasonBadRequest},
		"still loads":            {writes(sized(503, "application/json", `{"error":{}}`)), false, 503, "", messages.ReasonRuntimeUnavailable},
		"cannot":                 {writes(sized(501, "application/json", `{"error":{}}`)), false, 400, "", messages.ReasonBadRequest},
		"a head without end":     {thenCloses(func(c net.Conn, _ *http.Request) { endless(c) }), false, 502, "", messages.ReasonUpstreamFailed},
		"no stream when asked":   {writes(sized(200, "application/json", "{}")), true, 502, "", messages.ReasonUpstreamFailed},
		"too many informational": {thenCloses(writes(strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 9))), false, 502, "", messages.ReasonUpstreamFailed},
	} {
		backEnd, _ := scripted(t, c.up)
		launch++
		r.behind(launch, backEnd)
		body := chatBody
		if c.stream {
			body = streamBody
		}
		begin := time.Now()
		a := r.one(r.request("POST", "/v1/chat/completions", body))
		if a.status != c.status || c.body != "" && a.body != c.body || c.body == "" && a.code() != c.code || strings.Contains(a.body, "secret") {
			if len(a.body) > 300 {
				a.body = a.body[:300]
			}
			t.Errorf("%s: %+v", name, a)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("%s: took %v", name, took)
		}
	}
	r.wait(0, 0)
}

func endless(c net.Conn) {
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
	for {
		if _, err := io.WriteString(c, "X-A: b\r\n"); err != nil {
			return
		}
	}
}

// L7, issue 4: connections are used again; a stale one is replaced; what may not be sent twice is
// not; a new launch never uses the old one's.
func TestPool(t *testing.T) {
	r := start(t, llama(t), nil)
	good := writes(sized(200, "application/json", "{}"))
	backEnd, count := scripted(t, good)
	r.behind(2, backEnd)
	for range 3 {
		if a := r.chat(); a.status != 200 {
			t.Fatalf("%+v", a)
		}
	}
	if count.Load() != 1 {
		t.Errorf("three calls took %d connections", count.Load())
	}
	// The scripted upstream serves one connection at a time, and closes it after each answer.
	closing, count := scripted(t, thenCloses(good))
	r.behind(3, closing)
	for range 3 {
		if a := r.chat(); a.status != 200 {
			t.Fatalf("after a silent close: %+v", a)
		}
	}
	if count.Load() != 3 {
		t.Errorf("three calls took %d connections", count.Load())
	}
	// A second request on the connection is read, and then the connection ends without an answer.
	answered := false
	reading, count := scripted(t, func(c net.Conn, q *http.Request) {
		if answered {
			c.Close()
			return
		}
		answered = true
		good(c, q)
	}, good)
	r.behind(4, reading)
	if a := r.chat(); a.status != 200 {
		t.Fatalf("%+v", a)
	}
	if a := r.chat(); a.status != 502 || count.Load() != 1 {
		t.Errorf("a generation was sent twice: %+v, %d connections", a, count.Load())
	}
	r.behind(3, closing)
	if a := r.chat(); a.status != 503 || a.code() != messages.ReasonRuntimeUnavailable {
		t.Errorf("an earlier launch was used: %+v", a)
	}
	r.behind(5, messages.BackEnd{Network: "unix", Address: "/nonexistent/s"})
	if a := r.chat(); a.status != 503 || a.code() != messages.ReasonRuntimeUnavailable {
		t.Errorf("nobody listens: %+v", a)
	}
}

// L8: comments keep a client waiting while the runtime reads a long prompt, before the head of its
// answer and between its events; an error after one comes as an event.
func TestKeepAliveComments(t *testing.T) {
	r := start(t, llama(t), func(d *Deps) { d.Bounds.KeepAlive = 20 * time.Millisecond })
	pause := func() { time.Sleep(70 * time.Millisecond) } // a silence of the runtime's, in real time
	slow, _ := scripted(t, func(c net.Conn, q *http.Request) {
		pause()
		writes(streamHead, chunk("data: 1\n\n"))(c, q)
		pause()
		writes(chunk("data: [DONE]\n\n"), "0\r\n\r\n")(c, q)
	})
	r.behind(2, slow)
	a := r.one(r.request("POST", "/v1/chat/completions", streamBody))
	before, after, found := strings.Cut(a.body, "data: 1\n\n")
	if !found || !strings.HasPrefix(before, ": keep-alive\n\n") || !strings.HasPrefix(after, ": keep-alive\n\n") || !strings.HasSuffix(after, "data: [DONE]\n\n") {
		t.Errorf("%+v", a)
	}
	failing, _ := scripted(t, func(c net.Conn, q *http.Request) {
		pause()
		writes(sized(500, "application/json", "{}"))(c, q)
	})
	r.behind(3, failing)
	if a := r.one(r.request("POST", "/v1/chat/completions", streamBody)); a.status != 200 || !strings.Contains(a.body, "upstream_failed") {
		t.Errorf("%+v", a)
	}
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

// L9: a head that does not come is cut off, a body that does not come is answered, and neither
// costs anybody else anything.
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
		t.Errorf("half a body: %d", got)
	}
	c = r.send(post)
	if got := status(c, patience); got != 200 {
		t.Errorf("a good one: %d", got)
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
	first := r.send(models)
	if status(first, patience) != 200 {
		t.Fatal("the first")
	}
	busy := r.send(r.say("busy"))
	<-up.began
	idle := r.send("")
	last := r.send(models)
	if got := status(last, patience); got != 200 {
		t.Errorf("the newest: %d", got)
	}
	_ = first.SetReadDeadline(time.Now().Add(patience))
	if _, err := first.Read(make([]byte, 1)); err != io.EOF && !strings.Contains(fmt.Sprint(err), "reset") {
		t.Errorf("the longest idle one stayed: %v", err)
	}
	idle.Close()
	last.Close()
	for range 2 {
		r.send(r.say("busy too"))
		<-up.began
	}
	turned := r.send(models)
	if got := status(turned, patience); got != 0 {
		t.Errorf("one too many was answered %d", got)
	}
	up.release <- struct{}{}
	up.release <- struct{}{}
	up.release <- struct{}{}
	if got := status(busy, patience); got != 200 {
		t.Errorf("the busy one: %d", got)
	}
}
