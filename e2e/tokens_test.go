package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"companion/e2e/harness"
	"companion/messages"
)

// L14: an application token of the real program: shown once and kept as a digest, valid across a restart of the daemon,
// limited to its own rate, named in status and log, refused when it has expired or was revoked. The token of the start
// stays as it is.
func TestApplicationTokens(t *testing.T) {
	c := harness.Ready(t, "")
	ask := func(secret string) answer {
		baseURL, _ := c.Endpoint()
		address := host(t, baseURL)
		return send(t, address, post(address, "/v1/chat/completions", "Authorization: Bearer "+secret+"\r\n",
			`{"messages":[{"role":"user","content":"Say one word."}],"max_tokens":2}`))
	}
	expect := func(what, secret string, status int, code string) {
		t.Helper()
		a := ask(secret)
		if got, _ := a.code(); a.status != status || got != code {
			t.Errorf("%s: got %d %q, want %d %q", what, a.status, got, status, code)
		}
	}
	zed := strings.TrimSpace(c.Must("token", "add", "zed"))
	slow := strings.TrimSpace(c.Must("token", "add", "slow", "--rate", "1"))
	var short struct {
		Token   string
		Expires time.Time
	}
	if err := json.Unmarshal([]byte(c.Must("token", "add", "short", "--expires", "2s", "--json")), &short); err != nil {
		t.Fatal(err)
	}
	expect("zed", zed, http.StatusOK, "")
	expect("slow, first", slow, http.StatusOK, "")
	expect("slow, second", slow, http.StatusTooManyRequests, "rate_limited")
	_, user := c.Endpoint()
	expect("the token of the start", user, http.StatusOK, "")
	for time.Now().Before(short.Expires) {
		time.Sleep(20 * time.Millisecond)
	}
	expect("an expired one", short.Token, http.StatusUnauthorized, "invalid_token")
	if list := c.Must("token", "list"); !strings.Contains(list, "expired") || !strings.Contains(list, "zed") {
		t.Errorf("token list: got %s, want zed, and short as expired", list)
	}
	if text, err := os.ReadFile(filepath.Join(c.State(), "tokens.json")); err != nil || strings.Contains(string(text), zed) || !strings.Contains(string(text), `"zed"`) {
		t.Errorf("tokens.json: got %s, %v, want zed without its token", text, err)
	}

	c.Stop()
	c.Start()
	c.Available()
	expect("zed after a restart", zed, http.StatusOK, "")
	expect("the token of the earlier start", user, http.StatusUnauthorized, "invalid_token")
	status, _ := c.Status()
	used := map[string]int64{}
	for _, application := range status.FrontDoor.Applications {
		used[application.Name] = application.Requests
	}
	if used["zed"] != 1 || len(used) != 3 {
		t.Errorf("status: got %v, want three applications, and one request of zed", used)
	}

	// The address stays the same while a command revokes the token under load.
	stop, refused := make(chan struct{}), make(chan int, 1)
	go func() {
		count := 0
		for {
			select {
			case <-stop:
				refused <- count
				return
			default:
				if ask(zed).status == http.StatusUnauthorized {
					count++
				}
			}
		}
	}()
	c.Must("token", "revoke", "zed")
	expect("zed after its revocation", zed, http.StatusUnauthorized, "invalid_token")
	close(stop)
	<-refused
	if r := c.Run("token", "revoke", "zed"); r.Code != 1 || !strings.Contains(r.Stderr, "no application token with this name") {
		t.Errorf("revoking it twice: got %d %s, want 1", r.Code, r.Stderr)
	}
	if log := c.Log(); !strings.Contains(log, `"application":"zed"`) || strings.Contains(log, zed) {
		t.Error("log: got no line that names zed, or its token, want the name only")
	}
	if _, answered := c.Status(); !answered {
		t.Error("the daemon no longer answers, want it running")
	}
	c.Await("available", time.Minute, func(s messages.Status) bool { return s.CompanionAvailable })
}
