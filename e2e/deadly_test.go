package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"companion/e2e/harness"
	"companion/fsm"
	"companion/messages"
)

// textBody asks for a short answer to text.
func textBody(text, more string) string {
	return fmt.Sprintf(`{"messages":[{"role":"user","content":%q}],"max_tokens":8%s}`, text, more)
}

// persist sends a request as the OpenAI client libraries do: two retries after answers that a retry may mend
// (openai-python, _base_client.py). 503 does not use up a retry here: how long the runtime takes to start again
// depends on the machine, and is not what this test is about.
func persist(t *testing.T, door *harness.Door, body string) (last harness.Reply) {
	t.Helper()
	for end, retries := time.Now().Add(time.Minute), 2; time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		last = door.Do(t.Context(), http.MethodPost, "/chat/completions", body)
		t.Logf("answered %d %s %v", last.Status, last.Code, last.Err)
		if last.Status == http.StatusServiceUnavailable {
			continue
		}
		if last.Err == nil && last.Status < 500 || retries == 0 {
			return last
		}
		retries--
	}
	return last
}

// R11, A8, L8: a request that ends the runtime cannot do so twice, in any spelling. Other requests in the
// runtime fail once and succeed by the retry of their client library. No number of such requests leads to a
// hold. The runtime is a real process that ends with an illegal instruction.
func TestRequestThatEndsTheRuntime(t *testing.T) {
	const deadly, slow = "xdeadlyx", "xslowx"
	hub := harness.NewHub(t)
	c := hub.Companion("")
	hub.PublishHostile(map[string]any{"serve": true, "dieOn": deadly, "holdOn": slow, "holdTime": int64(2 * time.Second)})
	c.Start()
	c.SignIn()
	c.Available()
	door := c.Door()
	send := func(body string) harness.Reply {
		return door.Do(t.Context(), http.MethodPost, "/chat/completions", body)
	}
	expect := func(what string, got harness.Reply, status int, code messages.Reason) {
		t.Helper()
		if got.Err != nil || got.Status != status || got.Code != string(code) {
			t.Errorf("%s: got %d %q %v, want %d %q", what, got.Status, got.Code, got.Err, status, code)
		}
	}

	expect("alone", send(textBody(deadly+" alone", "")), 502, messages.ReasonUpstreamFailed)
	before := c.Available()
	expect("again", send(textBody(deadly+" alone", "")), 400, messages.ReasonRequestEndsRuntime)
	expect("again, with another seed", send(textBody(deadly+" alone", `, "seed" : 7`)), 400, messages.ReasonRequestEndsRuntime)
	expect("another request", send(textBody("honest", "")), 200, "")
	if now := c.Available(); now.Runtime.PID != before.Runtime.PID || now.FrontDoor.EndedRuntime != 1 {
		t.Errorf("after the refusals: got process %d and %d requests counted, want process %d and 1",
			now.Runtime.PID, now.FrontDoor.EndedRuntime, before.Runtime.PID)
	}
	if screen := c.Must("status"); !strings.Contains(screen, "1 ended the runtime") {
		t.Errorf("got a status screen without the request, want it named:\n%s", screen)
	}

	// Two requests in the runtime, both retried at the same times.
	honest := make(chan harness.Reply, 1)
	go func() { honest <- persist(t, door, textBody(slow+" beside", "")) }()
	c.Await("the honest request", time.Minute, func(s messages.Status) bool { return s.FrontDoor.InFlight == 1 })
	expect("the deadly one, retried", persist(t, door, textBody(deadly+" beside", "")), 400, messages.ReasonRequestEndsRuntime)
	expect("the honest one, retried", <-honest, 200, "")

	// More than the number that makes a crash loop.
	for i := range fsm.CrashLoopFailures + 1 {
		expect("a new deadly request", send(textBody(fmt.Sprint(deadly, i), "")), 502, messages.ReasonUpstreamFailed)
		if s := c.Available(); s.Runtime.Held {
			t.Fatalf("after %d deadly requests: got a held runtime, want none", i+1)
		}
		expect("an honest request after it", send(textBody("honest", "")), 200, "")
	}
	c.Stop()
}

// R11, L8: the real runtime is ended in mid-stream by a signal of a real crash, with one request in it and
// with two. The streams end with the error event; a lone request is refused from then on; of two the
// answered one is free again.
func TestRealRuntimeEndsInMidStream(t *testing.T) {
	c := harness.Ready(t, "")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	crash := func() {
		t.Helper()
		status, _ := c.Status()
		if err := syscall.Kill(status.Runtime.PID, syscall.SIGSEGV); err != nil {
			t.Fatal(err)
		}
	}
	failed := func(s *harness.Stream) {
		t.Helper()
		select {
		case <-s.Ended:
		case <-ctx.Done():
			t.Fatal("got a stream without an end, want an error event")
		}
		if s.Status != 200 || !s.Failed || s.Done {
			t.Errorf("got %v, want an error event at the end", s)
		}
	}
	lone := c.Door().Stream(ctx, 1500)
	crash()
	failed(lone)
	c.Available()
	if again := c.Door().Stream(ctx, 1500); again.Status != 400 {
		t.Errorf("the lone request again: got %v, want status 400", again)
	}
	first, second := c.Door().Stream(ctx, 1400), c.Door().Stream(ctx, 1300)
	crash()
	failed(first)
	failed(second)
	status := c.Available()
	if status.Runtime.Held || status.FrontDoor.EndedRuntime != 1 {
		t.Errorf("got held %v and %d requests counted, want false and 1", status.Runtime.Held, status.FrontDoor.EndedRuntime)
	}
	retried := c.Door().Stream(ctx, 1300)
	<-retried.Ended
	if !retried.Whole() {
		t.Errorf("the retry of one of two: got %v, want a whole answer", retried)
	}
	c.Stop()
}

// deadlyTemplate is a chat template with a defect: a message with the word makes it call itself without end, and the
// stack of the real runtime overflows.
const deadlyTemplate = `{%- macro deep(x) %}{{ deep(x) }}{% endmacro %}
{%- for m in messages %}{% if 'xdeadlyx' in m.content %}{{ deep(m) }}{% endif %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}`

// R11, A8, L6a: the real llama-server really ends by a request. A pattern that ends it is refused before it; sent past
// the endpoint to the back end's socket, it does end it. A text that the endpoint accepts ends it through a defect of
// the model's chat template: alone once, with another request twice, in other spellings twice, and then no more. The
// other request gets the error event and its retry is answered.
func TestRealRuntimeEndsByARequest(t *testing.T) {
	t.Parallel()
	parts := harness.Parts(t)
	hub := harness.NewHub(t)
	hub.Publish("model", harness.ModelName, harness.WithTemplate(t, parts.Model.File, deadlyTemplate), "--version", "1", "--default")
	hub.Publish("runtime", harness.RuntimeName, parts.Runtime.File, "--version", parts.Runtime.Version, "--default")
	c := hub.Companion("")
	c.Start()
	c.SignIn()
	restarts := func() int { return c.Available().Runtime.Restarts }
	restarts()
	door := c.Door()
	expect := func(what, body string, status int, code messages.Reason, deaths int) {
		t.Helper()
		before := restarts()
		got := door.Do(t.Context(), http.MethodPost, "/chat/completions", body)
		if got.Err != nil || got.Status != status || got.Code != string(code) {
			t.Errorf("%s: got %d %q %v, want %d %q", what, got.Status, got.Code, got.Err, status, code)
		}
		if deaths > 0 { // the status may show the end of the runtime a moment after the answer
			c.Await("the start after "+what, time.Minute, func(s messages.Status) bool { return s.Runtime.Restarts >= before+deaths })
		}
		if now := restarts(); now != before+deaths {
			t.Errorf("%s: got %d ends of the runtime, want %d", what, now-before, deaths)
		}
	}
	const died, refused = messages.ReasonUpstreamFailed, messages.ReasonRequestEndsRuntime

	pattern := textBody("hello", `,"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"string","pattern":"^*a$"}}}`)
	expect("the pattern", pattern, 400, messages.ReasonBadRequest, 0)
	before := restarts()
	straightToRuntime(t, c, pattern)
	c.Await("the start after the pattern", time.Minute, func(s messages.Status) bool { return s.Runtime.Restarts == before+1 })

	expect("alone", textBody("xdeadlyx alone", ""), 502, died, 1)
	expect("again", textBody("xdeadlyx alone", `,"seed":7`), 400, refused, 0)
	expect("another spelling", textBody(" xdeadlyx  Alone", ""), 502, died, 1)
	for _, spelling := range []string{"xdeadlyx  alone", "xdeadlyx\nalone ", "xdeadlyx ALONE", "xdeadlyx\u00a0alone", "xdeadlyx a\u200blone"} {
		expect(fmt.Sprintf("spelling %q", spelling), textBody(spelling, ""), 400, refused, 0)
	}
	expect("an honest text", textBody("alone", ""), 200, "", 0)

	honest := door.Stream(t.Context(), 600)
	expect("beside", textBody("xdeadlyx beside", ""), 502, died, 1)
	select {
	case <-honest.Ended:
	case <-time.After(time.Minute):
		t.Fatal("got a stream without an end, want an error event")
	}
	if honest.Status != 200 || !honest.Failed {
		t.Errorf("the stream beside it: got %v, want an error event at the end", honest)
	}
	retried := door.Stream(t.Context(), 600)
	if <-retried.Ended; !retried.Whole() {
		t.Errorf("the stream again: got %v, want a whole answer", retried)
	}
	expect("beside, again", textBody("xdeadlyx beside", ""), 502, died, 1)
	expect("beside, once more", textBody("xdeadlyx beside", ""), 400, refused, 0)

	if s := c.Available(); s.FrontDoor.EndedRuntime != 3 || s.Runtime.Held || s.Runtime.LastExit == nil || s.Runtime.LastExit.Signal != "segmentation fault" {
		t.Errorf("got %d requests counted, held %v and the last exit %+v, want 3, false and a segmentation fault",
			s.FrontDoor.EndedRuntime, s.Runtime.Held, s.Runtime.LastExit)
	}
	c.Stop()
}

// straightToRuntime sends a chat request to the back end's socket, past the front door.
func straightToRuntime(t *testing.T, c *harness.Companion, body string) {
	t.Helper()
	sockets, err := filepath.Glob(filepath.Join(c.RunTime(), "backend", "*", "*.sock"))
	if err != nil || len(sockets) != 1 {
		t.Fatalf("got the sockets %v, %v, want one", sockets, err)
	}
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", sockets[0])
		},
	}}
	response, err := client.Post("http://runtime/v1/chat/completions", "application/json", bytes.NewBufferString(body))
	if err == nil {
		_ = response.Body.Close()
		t.Errorf("past the front door: got status %d, want that the runtime ends", response.StatusCode)
	}
}
