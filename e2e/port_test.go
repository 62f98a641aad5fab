package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"companion/e2e/harness"
)

// L14, T4: a fixed port is the same at each start. While another program listens there, `run` refuses to start and
// names it, and `env` prints nothing. With --check, `env` prints only when the daemon listens.
func TestFixedPort(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	c := harness.Ready(t, fmt.Sprintf("[front_door]\nport = %d\n", port))
	secret := strings.TrimSpace(c.Must("token", "add", "editor"))
	ask := func() int {
		return send(t, address, post(address, "/v1/chat/completions", "Authorization: Bearer "+secret+"\r\n",
			`{"messages":[{"role":"user","content":"Say one word."}],"max_tokens":2}`)).status
	}
	if got := ask(); got != http.StatusOK {
		t.Errorf("at the fixed port: got %d, want 200", got)
	}
	if out := c.Must("env", "--check"); !strings.Contains(out, "http://"+address+"/v1") {
		t.Errorf("env --check: got %s, want the fixed port", out)
	}
	if out := c.Must("exec", "--check", "--", "sh", "-c", "echo $OPENAI_BASE_URL"); strings.TrimSpace(out) != "http://"+address+"/v1" {
		t.Errorf("exec --check: got %s, want the fixed port", out)
	}
	c.Stop()

	impostor, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	second := c.Launch()
	if code := second.Wait(endWithin); code != 1 {
		t.Errorf("run with a taken port: got status %d, want 1", code)
	}
	if want := fmt.Sprintf("%s is taken by e2e", address); !strings.Contains(second.Output(), want) || !strings.Contains(second.Output(), fmt.Sprintf("(process %d)", os.Getpid())) {
		t.Errorf("run with a taken port: got %s, want %q and this process", second.Output(), want)
	}
	if r := c.Run("env", "--check"); r.Code != 3 || r.Stdout != "" {
		t.Errorf("env --check without a daemon: got %d %q, want 3 and no output", r.Code, r.Stdout)
	}
	impostor.Close()
	c.Start()
	c.Available()
	if got := ask(); got != http.StatusOK {
		t.Errorf("after the other program: got %d, want 200 at the same port", got)
	}
}
