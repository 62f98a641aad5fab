//go:build clients

// Package clients drives real client libraries through `companion exec`. `task test-clients` installs them at pinned
// versions first. They take a minute to install, so the task is not part of `task test`.
package clients

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"companion/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// L12, L13, X13: real libraries work unchanged, with the real runtime.
func TestClients(t *testing.T) {
	installed, err := filepath.Abs("../../.cache/clients")
	if err != nil {
		t.Fatal(err)
	}
	scripts, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	// Node looks for modules in the folder of the script.
	module := filepath.Join(installed, "clients.mjs")
	text, err := os.ReadFile("clients.mjs")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(module, text, 0o600); err != nil {
		t.Fatal(err)
	}
	c := harness.Ready(t, "")
	python := filepath.Join(installed, "venv/bin/python")
	for _, command := range [][]string{
		{python, filepath.Join(scripts, "openai_client.py")},
		{python, filepath.Join(scripts, "anthropic_client.py")},
		{"node", module},
	} {
		t.Run(filepath.Base(command[1]), func(t *testing.T) {
			r := c.Run(append([]string{"exec", "--"}, command...)...)
			if r.Code != 0 || strings.TrimSpace(r.Stdout) != "ok" {
				t.Errorf("got exit status %d, want 0 and ok\n%s\n%s", r.Code, r.Stdout, r.Stderr)
			}
		})
	}
	if status, _ := c.Status(); status.Runtime.Restarts != 0 || len(status.FrontDoor.Dropped) == 0 {
		t.Errorf("afterwards: got %d restarts, dropped fields %v, want no restart and some dropped fields", status.Runtime.Restarts, status.FrontDoor.Dropped)
	}
	c.Stop()
}
