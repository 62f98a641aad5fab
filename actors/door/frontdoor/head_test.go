package frontdoor

import (
	"io"
	"net/http"
	"net/http/httptrace"
	"testing"

	"companion/messages"
)

// L3, L5: HEAD is answered as GET, without content, and the connection stays open for the next request. Claude Code sends
// HEAD / before its first request.
func TestHead(t *testing.T) {
	r := start(t, llama(t), nil)
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	t.Cleanup(client.CloseIdleConnections)
	ask := func(method, path, bearer string) (status int, kept bool, header http.Header, content string) {
		t.Helper()
		trace := &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { kept = c.Reused }}
		request, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), method, "http://"+r.address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if bearer != "" {
			request.Header.Set("Authorization", "Bearer "+bearer)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		return response.StatusCode, kept, response.Header, string(body)
	}
	for _, path := range []string{"/", "/v1/models", "/v1/models/gemma", "/v1/models/other", "/v1/nothing", "/v1/chat/completions", "/v1"} {
		want, _, fields, _ := ask("GET", path, token)
		got, kept, header, content := ask("HEAD", path, token)
		if got != want || !kept || content != "" || header.Get("Content-Type") != fields.Get("Content-Type") {
			t.Errorf("HEAD %s: got %d %v %q, connection kept %v, want the %d of GET without content on the same connection", path, got, header, content, kept, want)
		}
	}
	if status, kept, _, content := ask("GET", "/", token); status != 200 || !kept || content != `{"openai":"`+r.baseURL+`","anthropic":"http://`+r.address+`"}` {
		t.Errorf("GET /: got %d %s, want 200 and both base URLs", status, content)
	}
	// Without a token, a caller learns nothing, and the connection is closed as for every refusal.
	for bearer, want := range map[string]int{"": 401, "x": 401, probeToken: 401} {
		if status, _, header, content := ask("HEAD", "/", bearer); status != want || content != "" || header.Get("Www-Authenticate") != "Bearer" {
			t.Errorf("HEAD / with the token %q: got %d %v %q, want %d", bearer, status, header, content, want)
		}
		if _, kept, _, _ := ask("GET", "/", token); kept {
			t.Errorf("after HEAD with the token %q: got the same connection, want it closed", bearer)
		}
	}
	if status, _, _, _ := ask("HEAD", "/v1/models", probeToken); status != 401 {
		t.Errorf("HEAD /v1/models of the probe: got %d, want 401: its token is for GET only", status)
	}
	s := r.snapshot.Get()
	s.State, s.Available = messages.StateStarting, false
	r.snapshot.Set(s)
	for path, want := range map[string]int{"/": 200, "/v1/models": 503} {
		if status, _, _, _ := ask("HEAD", path, token); status != want {
			t.Errorf("HEAD %s while the runtime starts: got %d, want %d", path, status, want)
		}
	}
	for _, line := range []string{"Origin: https://evil.example", "Sec-Fetch-Site: cross-site"} {
		if a := r.raw(r.request("HEAD", "/", "", line)); len(a) != 1 || a[0].status != 403 || !a[0].closed {
			t.Errorf("HEAD of a page (%s): got %+v, want one 403 and a closed connection", line, a)
		}
	}
	if a := r.raw(r.request("HEAD", "/", "{}", "Connection: close")); len(a) != 1 || a[0].status != 403 {
		t.Errorf("HEAD with a body: got %+v, want 403", a)
	}
}
