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
		"more behind its end":    {writes(streamHead, chunk("data: [DONE]\n\n"), chunk("data: /secret\n\n"), "0\r\n\r\n"), true, 200, "data: [DONE]\n\n", ""},
		"more at its end":        {writes(streamHead + chunk("data: [DONE]\n\ndata: /secret\n\n") + "0\r\n\r\n"), true, 200, "data: [DONE]\n\n", ""},
		"dies at its end":        {thenCloses(writes(streamHead, chunk("data: 1\n\ndata: [DONE]\n\n"))), true, 200, "data: 1\n\ndata: [DONE]\n\n", ""},
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
			t.Errorf("%s: got %+v, want %d %s with body %q and nothing of the runtime's text", name, a, c.status, c.code, c.body)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("%s: took %v, want at most a second", name, took)
		}
	}
	r.wait(0, 0)
}

// L6: a client that has read its answer to the end finds its slot free, even with a queue bound of 0.
func TestPlaceIsFreeAtTheEnd(t *testing.T) {
	r := start(t, llama(t), func(d *Deps) { d.Bounds.MaxInFlight, d.Bounds.QueueBound = 1, 0 })
	large := `{"x":"` + strings.Repeat("x", 100000) + `"}`
	for launch, c := range []struct {
		body, last string
		up         func(net.Conn, *http.Request)
	}{
		{streamBody, "[DONE]", writes(streamHead, chunk("data: 1\n\n"), chunk("data: [DONE]\n\n"), "0\r\n\r\n")},
		{streamBody, "[DONE]", writes(streamHead, chunk("data: 1\n\ndata: [DONE]\n\n")+"0\r\n\r\n")},
		{chatBody, `"}`, writes(sized(200, "application/json", large))},
	} {
		backEnd, _ := scripted(t, c.up)
		r.behind(messages.Launch(launch+2), backEnd)
		for n := range 200 {
			conn := r.send(r.request("POST", "/v1/chat/completions", c.body))
			in := bufio.NewReader(conn)
			for got := ""; !strings.HasSuffix(strings.TrimSpace(got), c.last); {
				line, err := in.ReadString(c.last[len(c.last)-1])
				if got = line; err != nil {
					t.Fatalf("%d: round %d: %q, %v", launch, n, got[:min(len(got), 300)], err)
				}
			}
			conn.Close()
		}
	}
}

func endless(c net.Conn) {
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
	for {
		if _, err := io.WriteString(c, "X-A: b\r\n"); err != nil {
			return
		}
	}
}

// L7: connections are reused; a stale one is replaced; a request that must not be sent twice is not; a new launch
// never uses the connections of the old one.
func TestPool(t *testing.T) {
	r := start(t, llama(t), nil)
	good := writes(sized(200, "application/json", "{}"))
	backEnd, count := scripted(t, good)
	r.behind(2, backEnd)
	for range 3 {
		if a := r.chat(); a.status != 200 {
			t.Fatalf("got %+v, want 200", a)
		}
	}
	if count.Load() != 1 {
		t.Errorf("three calls took %d connections, want 1", count.Load())
	}
	// The scripted upstream serves one connection at a time, and closes it after each answer.
	closing, count := scripted(t, thenCloses(good))
	r.behind(3, closing)
	for range 3 {
		if a := r.chat(); a.status != 200 {
			t.Fatalf("after a silent close: got %+v, want 200", a)
		}
	}
	if count.Load() != 3 {
		t.Errorf("three calls took %d connections, want 3", count.Load())
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
		t.Fatalf("got %+v, want 200", a)
	}
	if a := r.chat(); a.status != 502 || count.Load() != 1 {
		t.Errorf("a generation on a connection that closed: got %+v after %d connections, want 502 after 1", a, count.Load())
	}
	r.behind(3, closing)
	if a := r.chat(); a.status != 503 || a.code() != messages.ReasonRuntimeUnavailable {
		t.Errorf("a back end of an earlier launch: got %+v, want 503 runtime_unavailable", a)
	}
	r.behind(5, messages.BackEnd{Network: "unix", Address: "/nonexistent/s"})
	if a := r.chat(); a.status != 503 || a.code() != messages.ReasonRuntimeUnavailable {
		t.Errorf("a socket without listener: got %+v, want 503 runtime_unavailable", a)
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
		t.Errorf("got %+v, want comments before the first event and between both", a)
	}
	failing, _ := scripted(t, func(c net.Conn, q *http.Request) {
		pause()
		writes(sized(500, "application/json", "{}"))(c, q)
	})
	r.behind(3, failing)
	if a := r.one(r.request("POST", "/v1/chat/completions", streamBody)); a.status != 200 || !strings.Contains(a.body, "upstream_failed") {
		t.Errorf("an error after a comment: got %+v, want 200 with an event of upstream_failed", a)
	}
}
