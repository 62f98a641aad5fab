package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"companion/e2e/harness"
	"companion/messages"
)

// A4: an idle runtime is asked for one token at a slow beat, directly at its socket; a busy one is not. The
// runtime's own output about each task proves it.
func TestIdleProbe(t *testing.T) {
	t.Parallel() // most of it is waiting
	c := harness.Ready(t, "[health]\nbeat = \"1s\"\nidle_probe = \"3s\"\n[log]\nlevel = \"debug\"\n")
	tasks := func() int { return strings.Count(c.Log(), "launch_slot_") }
	if tasks() == 0 {
		t.Fatal("the token of the start is not in the log: nothing can be proven by it")
	}
	before := tasks()
	for deadline := time.Now().Add(30 * time.Second); tasks() < before+2; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("got %d tokens in 30 idle seconds, want 1", tasks()-before)
		}
	}
	status := c.Await("still available", time.Second, func(s messages.Status) bool { return s.CompanionAvailable })
	if status.Runtime.Restarts != 0 {
		t.Errorf("the probe ended the runtime: got %+v, want no restart", status.Runtime.LastExit)
	}
	answer := longAnswer(t, c)
	defer answer.Body.Close()
	before = tasks()
	time.Sleep(6 * time.Second)
	if now := tasks(); now != before {
		t.Errorf("got %d tokens while a request waited for its answer, want 0", now-before)
	}
}

// longAnswer begins a streamed answer that takes many seconds.
func longAnswer(t *testing.T, c *harness.Companion) *http.Response {
	t.Helper()
	baseURL, token := c.Endpoint()
	request, err := http.NewRequest(http.MethodPost, baseURL+"/completions",
		strings.NewReader(`{"prompt":"Once upon a time","max_tokens":2000,"ignore_eos":true,"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	request.Close = true
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := answer.Body.Read(make([]byte, 1)); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("the long answer: got %d, %v, want 200", answer.StatusCode, err)
	}
	return answer
}

// A3, A4, T10: a runtime that answers every health request but generates no token never becomes available.
// One that stops generating while a client waits is detected within the time of the idle probe and replaced,
// and the client gets an error.
func TestMuteRuntime(t *testing.T) {
	t.Parallel() // most of it is waiting
	hub := harness.NewHub(t)
	hub.PublishHostile(map[string]any{"serve": true, "mute": true})
	c := hub.Companion("[runtime]\nstart_timeout = \"3s\"\n")
	c.Start()
	c.SignIn()
	c.Await("started in vain", 30*time.Second, func(s messages.Status) bool {
		if s.CompanionAvailable {
			t.Fatal("available without a token")
		}
		return s.Runtime.LastExit != nil && s.Runtime.LastExit.Reason == messages.ReasonStartTimeout
	})
	c.Stop()

	hub = harness.NewHub(t)
	hub.PublishHostile(map[string]any{"serve": true, "mute": true, "answers": 1})
	c = hub.Companion("[health]\nbeat = \"1s\"\nidle_probe = \"2s\"\n")
	c.Start()
	c.SignIn()
	before := c.Available()
	began := time.Now()
	reply := c.Door().Chat(t.Context(), 1)
	if reply.Status != http.StatusBadGateway || reply.Code != string(messages.ReasonUpstreamFailed) {
		t.Errorf("a waiting request: got %d %s %v, want 502 upstream_failed", reply.Status, reply.Code, reply.Err)
	}
	took := time.Since(began)
	t.Logf("replaced after %v", took.Round(time.Millisecond))
	if took > time.Minute { // 15 s when the machine has nothing else to do
		t.Errorf("a request waited %v, want at most a minute", took)
	}
	after := c.Await("replaced", 30*time.Second, func(s messages.Status) bool {
		return s.CompanionAvailable && s.Runtime.PID != before.Runtime.PID
	})
	if exit := after.Runtime.LastExit; exit == nil || exit.Reason != messages.ReasonRuntimeUnavailable {
		t.Errorf("got last exit %+v, want runtime_unavailable", exit)
	}
	c.Stop()
}
