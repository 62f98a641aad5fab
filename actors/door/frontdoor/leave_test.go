package frontdoor

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"companion/messages"
)

// hung is an upstream that reads requests and never answers; it reports each cancelled request.
func hung(t *testing.T) (messages.BackEnd, *slow) {
	up := newSlow()
	return serveUnix(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up.began <- r.Method
		<-r.Context().Done()
		up.gone <- struct{}{}
	})), up
}

// L8, A4: a probe that gives up on a hung runtime holds no connection to it.
func TestProbeOfAHungRuntime(t *testing.T) {
	r := start(t, llama(t), nil)
	backEnd, up := hung(t)
	r.behind(2, backEnd)
	c := r.send(strings.Replace(r.request("GET", "/v1/models", ""), token, probeToken, 1))
	<-up.began
	c.Close()
	select {
	case <-up.gone:
	case <-time.After(2 * time.Second):
		t.Error("the runtime still answers a probe whose client left, want it cancelled")
	}
}

// stubborn is a runtime that has begun an answer, notices that the connection was shut down, and goes on until the test
// releases it, or ends. Further connections answer.
func stubborn(t *testing.T, stream bool) (b messages.BackEnd, noticed chan struct{}, release func(), asked func() int32) {
	noticed, released := make(chan struct{}), make(chan struct{})
	release = sync.OnceFunc(func() { close(released) })
	works := func(c net.Conn, _ *http.Request) {
		if stream {
			_, _ = io.WriteString(c, streamHead+chunk("data: 1\n\n"))
		}
		_, _ = c.Read(make([]byte, 1))
		close(noticed)
		_, _ = io.WriteString(c, "what a client would get")
		<-released
	}
	b, count := scripted(t, thenCloses(works), thenCloses(writes(sized(200, "application/json", chatAnswer))))
	t.Cleanup(release) // before scripted waits for the connection
	return b, noticed, release, count.Load
}

// L6, L8: the place of a client that left stays taken until the runtime has ended its work for it. The next request
// waits in the queue, and not inside the runtime. The access log does not wait.
func TestPlaceOfAClientThatLeft(t *testing.T) {
	for _, stream := range []bool{false, true} {
		t.Run(fmt.Sprint("stream ", stream), func(t *testing.T) {
			r := start(t, llama(t), func(d *Deps) { d.Bounds.MaxInFlight = 1 })
			backEnd, noticed, release, asked := stubborn(t, stream)
			r.behind(2, backEnd)
			first := r.send(r.request("POST", "/v1/chat/completions", fmt.Sprintf(`{"messages":[{"role":"user","content":"x"}],"stream":%v}`, stream)))
			r.wait(1, 0)
			if stream {
				if got := status(first, patience); got != 200 {
					t.Fatalf("got status %d, want a stream", got)
				}
			}
			first.Close()
			<-noticed
			second := r.send(r.say("second"))
			r.wait(1, 1)
			if line := r.lines(1)[0]; line["clientLeft"] != true {
				t.Errorf("got the log entry %v, want that the client left", line)
			}
			if n := asked(); n != 1 {
				t.Errorf("got %d requests at the runtime, want only the one that it still works on", n)
			}
			release()
			if got := status(second, patience); got != 200 {
				t.Errorf("the next request: got status %d, want 200", got)
			}
			r.wait(0, 0)
		})
	}
}

// L6, L9: a runtime that does not end its work for a client that left holds the place for a bounded time, and does not
// hold up the end of the actor.
func TestPlaceIsHeldForABoundedTime(t *testing.T) {
	r := start(t, llama(t), func(d *Deps) { d.Bounds.MaxInFlight, d.Bounds.EndTime = 1, 200*time.Millisecond })
	backEnd, noticed, _, _ := stubborn(t, false)
	r.behind(2, backEnd)
	first := r.send(r.say("first"))
	r.wait(1, 0)
	first.Close()
	<-noticed
	r.wait(0, 0)

	r = start(t, llama(t), func(d *Deps) { d.Bounds.MaxInFlight, d.Bounds.EndTime = 1, time.Hour })
	backEnd, noticed, _, _ = stubborn(t, false)
	r.behind(2, backEnd)
	first = r.send(r.say("first"))
	r.wait(1, 0)
	first.Close()
	<-noticed
	r.wait(1, 0)
	ended := make(chan struct{})
	go func() { defer close(ended); r.stop() }()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Errorf("got an actor that has not ended after %v, want it ended", patience)
	}
}

// L11: a client that leaves before its answer has no status, and is not a failure of the runtime's or of the queue's;
// one that leaves in the middle of its answer was being served.
func TestLeavingIsNoFailure(t *testing.T) {
	up := newSlow()
	r := start(t, up, func(d *Deps) { d.Bounds.MaxInFlight = 1 })
	said := func(line map[string]any, status int64, reason messages.Reason) {
		t.Helper()
		if line["clientLeft"] != true || line["status"] != status || line["reason"] != string(reason) {
			t.Errorf("the log says %v, want clientLeft, status %d, reason %s", line, status, reason)
		}
	}
	for i, stream := range []string{"false", "true"} {
		text := r.request("POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}],"stream":`+stream+`}`)
		running := r.send(text)
		<-up.began
		waiting := r.send(text)
		r.wait(1, 1)
		waiting.Close()
		r.wait(1, 0)
		running.Close()
		<-up.gone
		seen := r.lines(2*i + 2)
		said(seen[2*i], 0, messages.ReasonBadRequest)
		said(seen[2*i+1], 0, messages.ReasonBadRequest)
	}
	if counted := r.actor.View().Verdicts; len(counted) != 0 {
		t.Errorf("got verdicts %v, want none: no client got an answer", counted)
	}
	backEnd, _ := scripted(t, writes(streamHead, chunk("data: 1\n\n")))
	r.behind(2, backEnd)
	c := r.send(r.request("POST", "/v1/chat/completions", streamBody))
	if got := status(c, patience); got != 200 {
		t.Fatalf("a stream: got %d, want 200", got)
	}
	c.Close()
	said(r.lines(5)[4], 200, messages.ReasonOK)
	if counted := r.actor.View().Verdicts; len(counted) != 1 || counted[messages.ReasonOK] != 1 {
		t.Errorf("got verdicts %v, want one ok", counted)
	}
}

// L11, L5: the log names the route also of a request that the guard refused, and never an unknown path.
func TestLogNamesTheRoute(t *testing.T) {
	r := start(t, llama(t), nil)
	wrong := func(text, old, now string) string { return strings.Replace(text, old, now, 1) }
	models, chat := r.request("GET", "/v1/models", ""), r.request("POST", "/v1/chat/completions", chatBody)
	for i, c := range []struct{ text, route, reason string }{
		{wrong(models, token, "wrong"), "/v1/models", "invalid_token"},
		{wrong(chat, "Host: ", "Host: evil."), "/v1/chat/completions", "host_not_allowed"},
		{wrong(chat, "POST", "PUT"), "other", "method_not_allowed"},
		{wrong(chat, "/v1/chat", "/v2/chat"), "other", "unknown_path"},
		{wrong(models, "GET /", "GET http://x/"), "other", "malformed_request"},
	} {
		r.one(c.text)
		if line := r.lines(i + 1)[i]; line["route"] != c.route || line["reason"] != c.reason {
			t.Errorf("%s, %s: the log says %v, want this route and reason", c.route, c.reason, line)
		}
	}
}

// lines waits for the first n lines of the access log.
func (r *rig) lines(n int) (seen []map[string]any) {
	r.t.Helper()
	for end := time.Now().Add(patience); len(seen) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("the access log has %d lines, want %d", len(seen), n)
		}
		seen = nil
		for _, l := range r.logs.FilterMessage("request").All() {
			seen = append(seen, l.ContextMap())
		}
	}
	return seen
}

// L10, L11: a body whose chunks cannot be read is said to be that, and one that breaks off is a
// client that left.
func TestBrokenChunks(t *testing.T) {
	r := start(t, llama(t), nil)
	head := r.request("POST", "/v1/chat/completions", "", "Content-Type: application/json", "Transfer-Encoding: chunked")
	for i, c := range []struct {
		chunks string
		left   bool
	}{{"2\r\n{}\r\nz\r\n", false}, {"2\r\n{}!!", false}, {strings.Repeat("1;"+strings.Repeat("x", 2000)+"\r\n \r\n", 50), false}, {"2\r\n{}\r\n", true}} {
		if c.left {
			r.send(head + c.chunks).Close()
		} else if got := r.one(head + c.chunks); got.status != 400 || !strings.Contains(got.body, textBadChunks) {
			t.Errorf("%.20q: got %+v, want 400 %s", c.chunks, got, textBadChunks)
		}
		status := int64(400)
		if c.left {
			status = 0
		}
		if line := r.lines(i + 1)[i]; line["clientLeft"] != c.left || line["status"] != status || line["reason"] != string(messages.ReasonBadRequest) {
			t.Errorf("%.20q: the log says %v, want clientLeft %v, status %d, bad_request", c.chunks, line, c.left, status)
		}
	}
}

// L3a, L10: a client that wants the connection closed can send the rest of its body and read why it
// was refused, as others can.
func TestRefusedBeforeTheBodyCame(t *testing.T) {
	r := start(t, llama(t), nil)
	for _, connection := range []string{"keep-alive", "close"} {
		text := r.request("POST", "/v1/chat/completions", "", "Content-Type: application/json", "Content-Length: 100000", "Connection: "+connection)
		c := r.send(strings.Replace(text, token, "wrong", 1))
		head := make([]byte, 12)
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(c, head); err != nil || string(head) != "HTTP/1.1 401" {
			t.Fatalf("%s: got %q, %v, want HTTP/1.1 401", connection, head, err)
		}
		for range 10 {
			if _, err := io.WriteString(c, strings.Repeat("x", 10000)); err != nil {
				t.Errorf("%s: sending the body: %v", connection, err)
				break
			}
		}
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("%s: reading the answer: %v", connection, err)
		}
	}
}

// L8: the error event is an event of its own also when the runtime dies in the middle of a long event.
func TestDiesInALongEvent(t *testing.T) {
	r := start(t, llama(t), nil)
	long := "data: " + strings.Repeat("x", 40000)
	backEnd, _ := scripted(t, thenCloses(writes(streamHead, chunk(long))))
	r.behind(2, backEnd)
	a := r.one(r.request("POST", "/v1/chat/completions", streamBody))
	if !strings.HasSuffix(a.body, "x\n\n"+string(errorEvent(messages.ReasonUpstreamFailed))) {
		t.Errorf("the answer ends with %q, want the event of upstream_failed", a.body[max(0, len(a.body)-200):])
	}
}
