package harness

import (
	"context"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"companion/messages"
)

// UnpackRuntime unpacks the real runtime into a folder of the test.
func UnpackRuntime(t testing.TB) messages.VerifiedRuntime {
	t.Helper()
	dir := TempDir(t)
	if out, err := exec.Command("tar", "-xzf", Parts(t).Runtime.File, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("unpacking the runtime: %v\n%s", err, out)
	}
	programs, err := filepath.Glob(filepath.Join(dir, "*", "llama-server"))
	if top, topErr := filepath.Glob(filepath.Join(dir, "llama-server")); topErr == nil {
		programs = append(programs, top...)
	}
	if err != nil || len(programs) == 0 {
		t.Fatalf("got no llama-server in the archive, want one: %v", err)
	}
	return messages.VerifiedRuntime{Name: "llama-server", Dir: filepath.Dir(programs[0]), Executable: "llama-server"}
}

// BareRuntime starts llama-server without the companion, for example as the server of another lane, and waits until
// it has loaded its model. network and address say where its arguments make it listen.
func BareRuntime(t testing.TB, network, address string, args ...string) *Process {
	t.Helper()
	r := UnpackRuntime(t)
	p := launch(t, TempDir(t), "llama-server", filepath.Join(r.Dir, r.Executable), nil, environment(TempDir(t)), args...)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}}}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		response, err := client.Get("http://runtime/health")
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return p
			}
		}
		if !p.Running() || time.Now().After(deadline) {
			t.Fatalf("llama-server: got %v, want it ready:\n%s", err, end(p.LogFile))
		}
	}
}
