package frontdoor

import (
	"context"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"companion/adapters/door/apptoken"
	"companion/messages"
)

// withTokens runs a front door with an empty list of application tokens.
func withTokens(t *testing.T, upstream http.Handler) (r *rig, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "state", "tokens.json")
	return start(t, upstream, func(d *Deps) { d.TokensPath = path }), path
}

// add makes a token that is valid at once.
func (r *rig) add(path, name string, lifetime time.Duration, rate int) string {
	r.t.Helper()
	made, _, err := apptoken.Add(r.t.Context(), path, name, lifetime, rate)
	if err != nil {
		r.t.Fatal(err)
	}
	if reason := r.reload(); reason != messages.ReasonOK {
		r.t.Fatalf("reload: got %s, want ok", reason)
	}
	return made.Reveal()
}

func (r *rig) revoke(path, name string) {
	r.t.Helper()
	if err := apptoken.Revoke(r.t.Context(), path, name); err != nil {
		r.t.Fatal(err)
	}
	r.reload()
}

func (r *rig) reload() messages.Reason {
	reply := make(chan messages.Reason, 1)
	r.box <- messages.ReloadApplicationTokens{Reply: reply}
	return <-reply
}

// ask sends a chat with a token and returns the answer.
func (r *rig) ask(secret string) answered {
	return r.one(strings.Replace(r.request("POST", "/v1/chat/completions", chatBody), token, secret, 1))
}

// L14: an application token works at once, is named in the log and in status, and opens no route that is not there for
// the user. The token of the start stays valid.
func TestApplicationToken(t *testing.T) {
	r, path := withTokens(t, llama(t))
	zed := r.add(path, "zed", 0, 0)
	if got := r.ask(zed); got.status != 200 {
		t.Fatalf("got %d %s, want 200", got.status, got.body)
	}
	if got := r.ask(token); got.status != 200 {
		t.Errorf("the token of the start: got %d, want 200", got.status)
	}
	for _, path := range []string{"/slots", "/props", "/metrics", "/lora-adapters", "/health"} {
		if got := r.one(strings.Replace(r.request("GET", path, ""), token, zed, 1)); got.status != 404 || got.code() != messages.ReasonUnknownPath {
			t.Errorf("%s: got %d %s, want 404", path, got.status, got.code())
		}
	}
	var named []string
	for _, line := range r.logs.FilterMessage("request").All() {
		if name, ok := line.ContextMap()["application"]; ok {
			named = append(named, name.(string)+" "+line.ContextMap()["route"].(string))
		}
	}
	if len(named) != 6 || named[0] != "zed /v1/chat/completions" {
		t.Errorf("log lines with an application: got %q, want the six requests of zed", named)
	}
	view := r.actor.View().Applications
	if len(view) != 1 || view[0].Name != "zed" || view[0].Requests != 6 || view[0].LastRequest == nil || view[0].RatePerMinute != DefaultBounds().RatePerMinute {
		t.Errorf("status: got %+v, want zed with 6 requests", view)
	}
	for _, line := range r.logs.All() {
		for _, v := range line.ContextMap() {
			if text, ok := v.(string); ok && strings.Contains(text, zed) {
				t.Error("got the token in the log, want it nowhere")
			}
		}
	}
}

// L14: a rate of its own; it survives a reload, and a full one affects no other caller.
func TestApplicationRate(t *testing.T) {
	r, path := withTokens(t, llama(t))
	slow, other := r.add(path, "slow", 0, 2), r.add(path, "other", 0, 0)
	for i, want := range []int{200, 200, 429} {
		if got := r.ask(slow); got.status != want {
			t.Errorf("request %d: got %d, want %d", i, got.status, want)
		}
	}
	r.reload()
	if got := r.ask(slow); got.code() != messages.ReasonRateLimited {
		t.Errorf("after a reload: got %s, want %s", got.code(), messages.ReasonRateLimited)
	}
	for name, secret := range map[string]string{"other": other, "user": token} {
		if got := r.ask(secret); got.status != 200 {
			t.Errorf("%s: got %d, want 200", name, got.status)
		}
	}
}

// L14: a revoked token is refused from the moment of the reply, and its running and waiting requests end. Those of
// other callers go on.
func TestRevokeEndsRequests(t *testing.T) {
	began, release := make(chan struct{}, 8), make(chan struct{})
	upstream := http.NewServeMux()
	upstream.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.ReadAll(req.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: {\"i\":0}\n\n")
		w.(http.Flusher).Flush()
		began <- struct{}{}
		select {
		case <-release:
			_, _ = io.WriteString(w, "data: [DONE]\n\n")
		case <-req.Context().Done():
		}
	})
	r, path := withTokens(t, upstream)
	zed := r.add(path, "zed", 0, 0)
	stream := strings.Replace(r.request("POST", "/v1/chat/completions", `{"stream":true,"messages":[{"role":"user","content":"hi"}]}`), token, zed, 1)
	running, waiting := make(chan answered, 2), make(chan answered, 1)
	for range 2 { // as many as run at once
		go func() { running <- r.one(stream) }()
		<-began
	}
	go func() { waiting <- r.one(stream) }()
	for r.actor.View().Queued != 1 {
		time.Sleep(time.Millisecond)
	}
	r.revoke(path, "zed")
	if got := r.ask(zed); got.status != 401 || got.code() != messages.ReasonInvalidToken {
		t.Errorf("after the revocation: got %d %s, want 401", got.status, got.code())
	}
	for range 2 {
		if got := <-running; strings.Contains(got.body, "[DONE]") || !strings.Contains(got.body, string(messages.ReasonInvalidToken)) {
			t.Errorf("a running stream: got %q, want an error event", got.body)
		}
	}
	if got := <-waiting; got.status != 401 {
		t.Errorf("a waiting request: got %d, want 401", got.status)
	}
	close(release)
	if got := r.one(strings.Replace(stream, zed, token, 1)); !strings.Contains(got.body, "[DONE]") {
		t.Errorf("the user's own stream: got %q, want it whole", got.body)
	}
	if got := r.actor.View().Applications; len(got) != 0 {
		t.Errorf("status: got %+v, want no application", got)
	}
}

// L14: a token expires by the wall clock, without a command.
func TestApplicationTokenExpires(t *testing.T) {
	r, path := withTokens(t, llama(t))
	zed := r.add(path, "zed", time.Second, 0)
	expires := *r.actor.View().Applications[0].Expires
	for time.Now().Before(expires) {
		time.Sleep(10 * time.Millisecond)
	}
	if got := r.ask(zed); got.status != 401 || got.code() != messages.ReasonInvalidToken {
		t.Errorf("got %d %s, want 401", got.status, got.code())
	}
}

// L14: an expiry that nanoseconds since 1970 cannot tell still means what it says.
func TestExpiriesFarAway(t *testing.T) {
	for at, want := range map[string]int64{
		"1970-01-01T00:00:00Z": 1, "1600-01-01T00:00:00Z": 1, "1969-12-31T23:59:59Z": 1, "1970-01-01T00:00:01Z": 1e9,
		"2262-04-11T00:00:00Z": 9223286400000000000, "2263-01-01T00:00:00Z": math.MaxInt64, "9999-12-31T00:00:00Z": math.MaxInt64,
	} {
		expires, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := expiry(expires); got != want {
			t.Errorf("%s: got %d, want %d", at, got, want)
		}
	}
}

// L14: a file that cannot be used leaves no application token valid, and says so. A new run of the actor reads the file.
func TestApplicationTokensFailClosed(t *testing.T) {
	r, path := withTokens(t, llama(t))
	zed := r.add(path, "zed", 0, 0)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := r.reload(); got != messages.ReasonInternalError {
		t.Errorf("reload: got %s, want %s", got, messages.ReasonInternalError)
	}
	if got := r.ask(zed); got.status != 401 {
		t.Errorf("with a broken file: got %d, want 401", got.status)
	}
	if got := r.ask(token); got.status != 200 {
		t.Errorf("the token of the start: got %d, want 200", got.status)
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	r.stop()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.actor.Serve(ctx) }()
	defer func() { cancel(); <-done }()
	for r.actor.View().BaseURL == "" {
		time.Sleep(time.Millisecond)
	}
	r.box <- messages.UseLoopbackToken{Token: messages.NewSecret(token)}
	if got := r.ask(zed); got.status != 200 {
		t.Errorf("after a restart of the actor: got %d %s, want 200", got.status, got.body)
	}
}
