package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"companion/e2e/harness"
	"companion/messages"
)

// ofRuntime lists the processes that were started for the companion's runtime: helper stage and
// llama-server, whose home is a folder of this start.
func ofRuntime(t *testing.T, c *harness.Companion) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		environment, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		if err == nil && bytes.Contains(environment, []byte("HOME="+c.RunTime())) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// R2, R7, T8: the daemon is killed at random moments, from its start until it serves. No runtime is
// left 100 ms later, and the next start is clean. E2E_KILLS sets the number of tries.
func TestDaemonIsKilled(t *testing.T) {
	tries := 4
	if n, err := strconv.Atoi(os.Getenv("E2E_KILLS")); err == nil {
		tries = n
	}
	c := harness.Ready(t, "")
	met := 0
	for i := range tries {
		if i > 0 {
			c.Start()
			// From before the launch to well into loading the model.
			for moment := time.Now().Add(rand.N(1500 * time.Millisecond)); time.Now().Before(moment); time.Sleep(time.Millisecond) {
			}
		}
		if len(ofRuntime(t, c)) > 0 {
			met++
		}
		c.Daemon.Signal(os.Kill)
		c.Daemon.Wait(10 * time.Second)
		time.Sleep(100 * time.Millisecond)
		if left := ofRuntime(t, c); len(left) > 0 {
			t.Fatalf("try %d left the processes %v", i, left)
		}
	}
	t.Logf("%d of %d tries met a runtime; none left one", met, tries)
	c.Start()
	status := c.Available()
	if found, err := filepath.Glob(filepath.Join(c.RunTime(), "*", "backend-*")); err != nil || len(found) != 1 {
		t.Errorf("folders of starts: %v, %v", found, err)
	}
	if pids := ofRuntime(t, c); len(pids) != 1 || pids[0] != status.Runtime.PID {
		t.Errorf("processes %v, want only %d", pids, status.Runtime.PID)
	}
}

// C3, R2, R4, T7, T11: the real runtime under the real daemon, whose environment holds secrets, has
// none of them, and is confined to all that this kernel offers.
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
		t.Errorf("the runtime is %+v: this test needs a kernel with Landlock and seccomp", status.Runtime)
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
				t.Errorf("%s holds a secret or a path of the data: %q", file, bytes.ReplaceAll(data, []byte(token), []byte("TOKEN")))
			}
		}
	}
	own, err := os.ReadFile(proc + "status")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"Umask:\t0177", "NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"} {
		if !strings.Contains(string(own), line+"\n") {
			t.Errorf("its status lacks %q", line)
		}
	}
	// P1: and its load is seen.
	c.Await("observed", 10*time.Second, func(s messages.Status) bool { return s.Runtime.ResidentBytes > 100<<20 })
}
