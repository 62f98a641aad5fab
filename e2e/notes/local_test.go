package notes

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"companion/e2e/harness"
)

// E4, E7: the real runtime is the local lane of a watch, which waits until the model is here. The daemon goes away in mid-run: nothing goes to the other lane that is
// configured. It comes back with another token and port, and the watch goes on.
func TestWatchOutlivesTheDaemon(t *testing.T) {
	far, url := record(t)
	c := harness.RealHub(t).Companion(fmt.Sprintf("[lanes.self_hosted]\nbase_url = %q\nmodel = \"m\"\n", url))
	c.Start()
	c.SignIn() // the model is not here yet: --wait waits for it
	dir := vault(t, 1)
	file := filepath.Join(c.Home, "out.jsonl")
	cmd := c.Command("enrich", "--wait", "--watch", "--output", file, dir)
	said, err := os.Create(filepath.Join(c.Home, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd.Stderr = said
	errs := func() string {
		data, err := os.ReadFile(said.Name())
		if err != nil {
			t.Error(err)
		}
		return string(data)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := func(want int) {
		t.Helper()
		for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if data, err := os.ReadFile(file); err == nil && bytes.Count(data, []byte("\n")) >= want {
				return
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatalf("got no %d results, want them: %s", want, errs())
	}
	lines(1)
	c.Stop()
	if err := os.WriteFile(filepath.Join(dir, "new.md"), []byte("The compost is ready in June.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); !strings.Contains(errs(), "waiting for local inference") && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	c.Start()
	c.Available()
	lines(2)
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(errs(), "waiting for local inference") {
		t.Errorf("got exit %d and %q, want 130 and that it waited", code, errs())
	}
	if sent := far.sent(); len(sent) != 0 {
		t.Errorf("the other lane got %q, want nothing", sent)
	}
}
