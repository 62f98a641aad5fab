package frontdoor

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"companion/adapters/door/loopback"
	"companion/fsm"
	"companion/messages"
)

// L5, L7, L8, L11: the whole way of a good request, there and back.
func TestGoodRequests(t *testing.T) {
	r := start(t, llama(t), nil)
	chat := r.chat()
	if chat.status != 200 || chat.body != chatAnswer || chat.closed {
		t.Errorf("chat: got %+v, want 200, an open connection and %s", chat, chatAnswer)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
		"Cross-Origin-Resource-Policy": "same-origin", "Access-Control-Allow-Origin": "", "Server": "", "Set-Cookie": "",
	} {
		if got := chat.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	models := r.one(r.request("GET", "/v1/models", ""))
	if want := `{"object":"list","data":[{"id":"gemma","object":"model","created":-62135596800,"owned_by":"companion","meta":{"n_ctx":4096}}]}`; models.body != want {
		t.Errorf("models: got %+v, want %s", models, want)
	}
	stream := r.one(r.request("POST", "/v1/completions", `{"prompt":"a","stream":true}`))
	if want := "data: {\"i\":0}\n\ndata: {\"i\":1}\n\ndata: {\"i\":2}\n\ndata: {\"timings\":{\"prompt_n\":2,\"predicted_n\":3}}\n\ndata: [DONE]\n\n"; stream.body != want || stream.header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("stream: got %+v, want %s as text/event-stream", stream, want)
	}
	lines := r.logs.FilterMessage("request").All()
	if len(lines) != 3 {
		t.Fatalf("got %d lines in the access log, want 3", len(lines))
	}
	for i, tokens := range []int64{7, 0, 3} {
		f := lines[i].ContextMap()
		if f["completionTokens"] != tokens || f["reason"] != "ok" || f["status"] != int64(200) {
			t.Errorf("line %d: got %v, want %d completion tokens, reason ok, status 200", i, f, tokens)
		}
	}
	view := r.actor.View()
	if view.BaseURL != r.baseURL || view.Verdicts[messages.ReasonOK] != 3 || view.Latency[len(view.Latency)-1].Count != 3 || view.LastActivity.IsZero() {
		t.Errorf("got view %+v, want %s, three requests, all ok, and the time of the last", view, r.baseURL)
	}
}

// L7: the client's headers are not forwarded.
func TestClientHeadersStay(t *testing.T) {
	r := start(t, llama(t), nil)
	a := r.one(r.request("POST", "/v1/chat/completions", chatBody,
		"Cookie: a=b", "Referer: http://x", "Origin: http://"+r.address, "Sec-Fetch-Site: none", "X-Forwarded-For: 1.2.3.4",
		"Forwarded: for=1", "Te: trailers", "Proxy-Authorization: Basic x", "X-Anything: y", "Accept-Encoding: gzip"))
	if a.status != 200 {
		t.Errorf("got %+v, want 200", a) // llama fails the test for each header that passed
	}
}

// L2: the endpoint file says where the door is, and goes with it. K6, T4: an old token is worthless.
func TestLife(t *testing.T) {
	r := start(t, llama(t), nil)
	e, err := loopback.ReadEndpoint(r.endpoint)
	if err != nil || e.BaseURL != r.baseURL {
		t.Errorf("got endpoint %+v, %v, want %s", e, err, r.baseURL)
	}
	r.box <- messages.UseLoopbackToken{Token: messages.NewSecret("a-new-token")}
	r.drain()
	if a := r.chat(); a.status != 401 || a.code() != messages.ReasonInvalidToken || !a.closed {
		t.Errorf("the old token: got %+v, want 401 invalid_token and a closed connection", a)
	}
	r.box <- messages.DropLoopbackToken{}
	r.drain()
	if a := r.chat(); a.status != 401 || a.code() != messages.ReasonInvalidToken {
		t.Errorf("no token configured: got %+v, want 401 invalid_token", a)
	}
	r.box <- messages.ConfirmFrontDoor{}
	if m := <-r.told; m != (messages.DoorBound{BaseURL: r.baseURL}) {
		t.Errorf("got %+v as confirmation, want DoorBound with %s", m, r.baseURL)
	}
	r.stop()
	if m := <-r.told; m != (messages.DoorLost{Reason: messages.ReasonNotReady}) {
		t.Errorf("got %+v at the end, want DoorLost with not_ready", m)
	}
	if _, err := loopback.ReadEndpoint(r.endpoint); err == nil {
		t.Error("the endpoint file exists after the shutdown, want it removed")
	}
}

// L1: an address that is not loopback ends the start.
func TestNotLoopback(t *testing.T) {
	told := make(chan messages.ToLifecycle, 8)
	r := start(t, llama(t), nil)
	deps := r.actor.deps
	deps.Address, deps.Lifecycle, deps.EndpointPath = "0.0.0.0", told, ""
	if err := New(deps).Serve(t.Context()); err == nil {
		t.Fatal("bound a wildcard")
	}
	if m := <-told; m != (messages.ActorStarted{Actor: messages.ActorFrontDoor}) {
		t.Errorf("got %+v first, want ActorStarted", m)
	}
	if m := <-told; m != (messages.DoorLost{Reason: messages.ReasonBindFailed}) {
		t.Errorf("got %+v then, want DoorLost with bind_failed", m)
	}
}

// L1, L3: the front door on IPv6, which refuses 127.0.0.1 as its host.
func TestSix(t *testing.T) {
	r := start(t, llama(t), func(d *Deps) { d.Address = "[::1]" })
	if a := r.chat(); a.status != 200 || !strings.HasPrefix(r.address, "[::1]:") {
		t.Errorf("got address %s, answer %+v, want [::1] and 200", r.address, a)
	}
	_, port, _ := strings.Cut(r.address, "]:")
	local := strings.Replace(r.request("GET", "/v1/models", ""), r.address, "localhost:"+port, 1)
	if a := r.one(local); a.status != 200 {
		t.Errorf("localhost: got %+v, want 200", a)
	}
	four := strings.Replace(r.request("GET", "/v1/models", ""), r.address, "127.0.0.1:"+port, 1)
	if a := r.one(four); a.code() != messages.ReasonHostNotAllowed {
		t.Errorf("127.0.0.1: got %+v, want host_not_allowed", a)
	}
}

// L5: what exists, and for whom.
func TestRoutes(t *testing.T) {
	r := start(t, llama(t), nil)
	for _, c := range []string{"POST /", "GET /slots", "GET /props", "GET /metrics", "GET /health", "POST /lora-adapters", "POST /completion", "POST /v1/models", "GET /v1/chat/completions", "GET /v1/models/", "POST /v1/chat/completions/", "GET /V1/models"} {
		method, path, _ := strings.Cut(c, " ")
		if a := r.one(r.request(method, path, "")); a.status != 404 || a.code() != messages.ReasonUnknownPath {
			t.Errorf("%s: got %+v, want 404 unknown_path", c, a)
		}
		stranger := strings.Replace(r.request(method, path, ""), token, "wrong", 1)
		if a := r.one(stranger); a.status != 401 || a.code() != messages.ReasonInvalidToken || a.header.Get("Www-Authenticate") != "Bearer" {
			t.Errorf("%s without the token: got %+v, want 401 invalid_token with WWW-Authenticate: Bearer", c, a)
		}
	}
	if a := r.one(r.request("GET", "/v1/models?x=%41", "")); a.status != 200 {
		t.Errorf("a query: got %+v, want 200", a)
	}
}

// A4: the probe's token is good for one route, in starting as in ready, and for nothing else.
func TestProbe(t *testing.T) {
	r := start(t, llama(t), nil)
	as := func(method, path, body string) answered {
		return r.one(strings.Replace(r.request(method, path, body), token, probeToken, 1))
	}
	for state, status := range map[messages.State]int{messages.StateReady: 200, messages.StateStarting: 200, messages.StateDraining: 503, messages.StateStopped: 503} {
		s := r.snapshot.Get()
		s.State = state
		r.snapshot.Set(s)
		if a := as("GET", "/v1/models", ""); a.status != status {
			t.Errorf("%s: got %+v, want %d", state, a, status)
		}
		if a := as("POST", "/v1/chat/completions", chatBody); a.status != 401 || a.code() != messages.ReasonInvalidToken || !a.closed {
			t.Errorf("%s: inference with the probe's token: got %+v, want 401 invalid_token and a closed connection", state, a)
		}
		if a := as("GET", "/slots", ""); a.status != 401 {
			t.Errorf("%s: another path with the probe's token: got %+v, want 401", state, a)
		}
	}
	s := r.snapshot.Get()
	s.State, s.Model.Name = messages.StateReady, "another"
	r.snapshot.Set(s)
	if a := as("GET", "/v1/models", ""); a.status != 502 || a.code() != messages.ReasonUpstreamFailed {
		t.Errorf("the runtime names another model: got %+v, want 502 upstream_failed", a)
	}
}

// A4, L3: the probe's window is bounded, but not by the user's setting.
func TestProbeHasAWindowOfItsOwn(t *testing.T) {
	r := start(t, llama(t), func(d *Deps) { d.Bounds.RatePerMinute = 1 })
	c := r.send("")
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	in := bufio.NewReader(c)
	ask := func(secret string) int {
		t.Helper()
		if _, err := io.WriteString(c, strings.Replace(r.request("GET", "/v1/models", ""), token, secret, 1)); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	if got := ask(token); got != 200 {
		t.Fatalf("the user: got %d, want 200", got)
	}
	for i := range probesPerMinute {
		if got := ask(probeToken); got != 200 {
			t.Fatalf("probe %d: got %d, want 200", i, got)
		}
	}
	if got := ask(probeToken); got != 429 {
		t.Errorf("one probe too many: got %d, want 429", got)
	}
	if a := r.chat(); a.code() != messages.ReasonRateLimited {
		t.Errorf("the user's second request: got %+v, want rate_limited", a)
	}
}

// A6: nothing passes in any other state, and load is asked about.
func TestGate(t *testing.T) {
	r := start(t, llama(t), func(d *Deps) { d.Bounds.Resources.ResidentBytes = 100 })
	for _, state := range []messages.State{messages.StateStopped, messages.StateStarting, messages.StateDraining, "odd"} {
		s := r.snapshot.Get()
		s.State = state
		r.snapshot.Set(s)
		a := r.chat()
		want := messages.ReasonNotReady
		if state == "odd" {
			want = messages.ReasonUnknownState
		}
		if a.status != 503 || a.code() != want || a.header.Get("Retry-After") == "" {
			t.Errorf("%s: got %+v, want 503 %s with Retry-After", state, a, want)
		}
	}
	s := r.snapshot.Get()
	s.State = messages.StateReady
	r.snapshot.Set(s)
	for name, c := range map[string]struct {
		seen messages.Observation
		want messages.Reason
	}{
		"failed": {messages.Observation{Failed: true}, messages.ReasonProbeFailed},
		"none":   {messages.Observation{}, messages.ReasonMalformedObservation},
		// P2: the actor that observes is gone, or its probe is slow.
		"old": {messages.Observation{At: time.Now().Add(-fsm.Reuse)}, messages.ReasonProbeFailed},
	} {
		r.seen.Set(c.seen)
		if a := r.chat(); a.status != 503 || a.code() != c.want {
			t.Errorf("%s: got %+v, want 503 %s", name, a, c.want)
		}
	}
	r.observe(101, func() {
		if a := r.chat(); a.status != 503 || a.code() != messages.ReasonRAMOverLimit {
			t.Errorf("memory over its limit: got %+v, want 503 ram_over_limit", a)
		}
	})
	r.observe(100, func() {
		if a := r.chat(); a.status != 200 {
			t.Errorf("memory within its limit: got %+v, want 200", a)
		}
	})
	s.BackEnd = messages.BackEnd{}
	r.snapshot.Set(s)
	r.observe(1, func() {
		if a := r.chat(); a.status != 503 || a.code() != messages.ReasonRuntimeUnavailable {
			t.Errorf("no back end: got %+v, want 503 runtime_unavailable", a)
		}
	})
}

// L6a, L9, L10: bodies that are refused, each with the OpenAI error shape.
func TestBodies(t *testing.T) {
	r := start(t, llama(t), func(d *Deps) { d.Bounds.BodyBytes = 1000 })
	chunked := func(parts ...string) string {
		var b strings.Builder
		b.WriteString(r.request("POST", "/v1/chat/completions", "", "Content-Type: application/json", "Transfer-Encoding: chunked"))
		for _, p := range parts {
			b.WriteString(strings.ToLower(strings.TrimLeft(hex(len(p)), "0")) + "\r\n" + p + "\r\n")
		}
		return b.String() + "0\r\n\r\n"
	}
	post := func(body string, extra ...string) string {
		return r.request("POST", "/v1/chat/completions", body, extra...)
	}
	for name, c := range map[string]struct {
		raw    string
		status int
		code   messages.Reason
		param  string
	}{
		"unknown field":    {post(`{"messages":[{"role":"user","content":"x"}],"odd":1}`), 400, messages.ReasonBadRequest, "odd"},
		"not JSON":         {post(`hello`), 400, messages.ReasonBadRequest, ""},
		"no body":          {post("", "Content-Type: application/json"), 400, messages.ReasonBadRequest, ""},
		"no content type":  {strings.Replace(post(chatBody), "Content-Type: application/json\r\n", "", 1), 400, messages.ReasonBadRequest, ""},
		"a form":           {strings.Replace(post(chatBody), "application/json", "text/plain", 1), 400, messages.ReasonBadRequest, ""},
		"gzip":             {post(chatBody, "Content-Encoding: gzip"), 400, messages.ReasonBadRequest, ""},
		"another charset":  {strings.Replace(post(chatBody), "application/json", "application/json; charset=utf-16", 1), 400, messages.ReasonBadRequest, ""},
		"another model":    {post(`{"model":"gpt","messages":[{"role":"user","content":"x"}]}`), 404, messages.ReasonModelNotFound, "model"},
		"too large":        {post(`{"messages":"` + strings.Repeat("x", 1000) + `"}`), 413, messages.ReasonBodyTooLarge, ""},
		"too large, parts": {chunked(strings.Repeat("x", 600), strings.Repeat("x", 600)), 413, messages.ReasonBodyTooLarge, ""},
		"in parts":         {chunked(chatBody[:9], chatBody[9:]), 200, "", ""},
		"utf-8 by name":    {strings.Replace(post(chatBody), "application/json", "application/json;charset=UTF-8", 1), 200, "", ""},
		"n over the slots": {post(`{"messages":[{"role":"user","content":"x"}],"n":3}`), 400, messages.ReasonBadRequest, "n"},
		"no embeddings":    {r.request("POST", "/v1/embeddings", `{"input":"x"}`), 400, messages.ReasonBadRequest, "model"},
	} {
		a := r.one(c.raw)
		var e struct {
			Error struct {
				Message, Type, Code string
				Param               *string
			}
		}
		_ = json.Unmarshal([]byte(a.body), &e)
		param := ""
		if e.Error.Param != nil {
			param = *e.Error.Param
		}
		if a.status != c.status || messages.Reason(e.Error.Code) != c.code || param != c.param || c.status != 200 && (e.Error.Message == "" || e.Error.Type == "") {
			t.Errorf("%s: got %+v, want %d %s with param %q and, for an error, a message and a type", name, a, c.status, c.code, c.param)
		}
	}
}

func hex(n int) string {
	const d = "0123456789abcdef"
	return string([]byte{d[n>>8&15], d[n>>4&15], d[n&15]})
}

// L5: embeddings, when the manifest says that the model is for them.
func TestEmbeddings(t *testing.T) {
	r := start(t, llama(t), nil)
	s := r.snapshot.Get()
	s.Model.Embedding = true
	r.snapshot.Set(s)
	if a := r.one(r.request("POST", "/v1/embeddings", `{"input":"x"}`)); a.status != 200 {
		t.Errorf("got %+v, want 200", a)
	}
}

var _ http.Handler = (*door)(nil)

// J4, A9: a panic in a handler closes its connection, and its type and stack are in the log, without anything
// of the request.
func TestPanicIsLogged(t *testing.T) {
	r := start(t, llama(t), func(d *Deps) { d.Observation = nil })
	c, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, r.request("POST", "/v1/chat/completions", strings.Replace(chatBody, "hi", "canary", 1)))
	if answer, _ := io.ReadAll(c); len(answer) > 0 {
		t.Errorf("got %q, want a closed connection", answer)
	}
	r.stop()
	found := r.logs.FilterMessage("panic contained").All()
	if len(found) != 1 {
		t.Fatalf("got %d lines about a panic, want 1", len(found))
	}
	fields := found[0].ContextMap()
	stack := fmt.Sprint(fields["stack"])
	if !strings.Contains(fmt.Sprint(fields["panic"]), "nil pointer dereference") || !strings.Contains(stack, "frontdoor.(*visit).gate") {
		t.Errorf("got panic %q with the stack\n%s\nwant a nil pointer dereference in visit.gate", fields["panic"], stack)
	}
	if text := fmt.Sprint(fields); strings.Contains(text, "canary") || strings.Contains(text, token) {
		t.Errorf("the log has a part of the request, want none:\n%s", text)
	}
}
