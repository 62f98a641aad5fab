package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"companion/e2e/harness"
	"companion/messages"
)

// C3, R2, R4, T7, T11: the real runtime under the real daemon, whose environment contains secrets, has none
// of them, and has every confinement that this kernel offers.
func TestRuntimeInheritsNothing(t *testing.T) {
	const planted = "planted-secret-91ac"
	c := harness.RealHub(t).Companion("")
	for _, name := range []string{"OPENAI_API_KEY", "HF_TOKEN", "LLAMA_ARG_LOG_FILE", "LLAMA_CACHE", "HTTPS_PROXY_OF_A_USER", "SSH_AUTH_SOCK", "NOTIFY_SOCKET_OF_A_USER"} {
		c.Extra = append(c.Extra, name+"=/tmp/"+planted)
	}
	c.Start()
	c.SignIn()
	status := c.Available()
	if s := status.Runtime.Sandbox; s.Landlock < 1 || !s.Seccomp || status.Runtime.BackEnd != "unix" || !status.Runtime.Pinned {
		t.Errorf("got runtime %+v, want it pinned, on a Unix socket, in a sandbox: this test needs a kernel with Landlock and seccomp", status.Runtime)
	}
	proc := fmt.Sprintf("/proc/%d/", status.Runtime.PID)
	_, token := c.Endpoint()
	for _, file := range []string{"environ", "cmdline"} {
		data, err := os.ReadFile(proc + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{planted, token, c.Data()} {
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s holds a secret or a path of the data, want neither: %q", file, bytes.ReplaceAll(data, []byte(token), []byte("TOKEN")))
			}
		}
	}
	own, err := os.ReadFile(proc + "status")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"Umask:\t0177", "NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"} {
		if !strings.Contains(string(own), line+"\n") {
			t.Errorf("/proc status of the runtime has no %q, want it", line)
		}
	}
	// P1: the daemon observes its load.
	c.Await("observed", 10*time.Second, func(s messages.Status) bool { return s.Runtime.ResidentBytes > 100<<20 })
}

// M10, R4: the real runtime also runs as an unpinned binary. Only the libraries of its folder are open to it,
// and status says that it is not pinned.
func TestUnpinnedRuntime(t *testing.T) {
	runtime := harness.UnpackRuntime(t)
	c := harness.Ready(t, fmt.Sprintf("[runtime]\nallow_unpinned_binary = %q\n", filepath.Join(runtime.Dir, runtime.Executable)))
	status, _ := c.Status()
	if s := status.Runtime; s.Pinned || s.Sandbox.Landlock < 1 || !s.Sandbox.Seccomp {
		t.Errorf("got runtime %+v, want it unpinned and in a sandbox", s)
	}
	if reply := c.Door().Chat(t.Context(), 2); reply.Status != http.StatusOK {
		t.Errorf("got %d %s %v, want 200", reply.Status, reply.Code, reply.Err)
	}
	if human := c.Must("status"); !strings.Contains(human, "NOT PINNED") {
		t.Errorf("got status without NOT PINNED, want it:\n%s", human)
	}
	c.Stop()
}
