package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"companion/e2e/harness"
	"companion/messages"
)

// A4: a runtime that nobody asks is asked for one token at a slow beat, straight at its socket; one
// that somebody asks is not. What the runtime prints of each task is the witness.
func TestIdleProbe(t *testing.T) {
	c := harness.Ready(t, "[health]\nbeat = \"1s\"\nidle_probe = \"3s\"\n[log]\nlevel = \"debug\"\n")
	tasks := func() int { return strings.Count(c.Log(), "launch_slot_") }
	if tasks() == 0 {
		t.Fatal("the token of the start is not in the log: nothing can be proven by it")
	}
	before := tasks()
	for deadline := time.Now().Add(30 * time.Second); tasks() < before+2; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d tokens were asked for in 30 idle seconds", tasks()-before)
		}
	}
	status := c.Await("still available", time.Second, func(s messages.Status) bool { return s.CompanionAvailable })
	if status.Runtime.Restarts != 0 {
		t.Errorf("the probe ended the runtime: %+v", status.Runtime.LastExit)
	}
	answer := longAnswer(t, c)
	defer answer.Body.Close()
	before = tasks()
	time.Sleep(6 * time.Second)
	if now := tasks(); now != before {
		t.Errorf("%d tokens were asked for while somebody waited for an answer", now-before)
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
		t.Fatalf("the long answer does not begin: %d, %v", answer.StatusCode, err)
	}
	return answer
}
