package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"
	"go.uber.org/goleak"

	"companion/cmd/devhub/fault"
	"companion/cmd/devhub/place"
)

// TestMain lets the test binary run as devhub, for the tests that need a separate process.
func TestMain(m *testing.M) {
	if os.Getenv("DEVHUB_TEST_AS_PROGRAM") == "1" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := command()
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(io.Discard)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func TestFaultsAreListed(t *testing.T) {
	out, err := run(t, "faults")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fault.All {
		if !strings.Contains(out, string(f.Name)+" ") || f.Help == "" {
			t.Errorf("%s: got no line of help, want one", f.Name)
		}
	}
	for _, named := range []string{"wrong-iss", "no-iss", "reused-code", "expired-manifest", "rolled-back-manifest",
		"wrong-length", "slow", "cut", "redirect-elsewhere", "server-error"} {
		if !strings.Contains(out, named) {
			t.Errorf("got no fault %s, want it as in hub.md", named)
		}
	}
}

func TestUnknownFaultIsAnError(t *testing.T) {
	for _, args := range [][]string{
		{"serve", "--dir", t.TempDir(), "--fault", "nonsense"},
		{"fault", "--dir", t.TempDir(), "nonsense", "on"},
		{"fault", "--dir", t.TempDir(), "slow", "maybe"},
	} {
		if _, err := run(t, args...); err == nil {
			t.Errorf("%v: got nil, want an error", args)
		}
	}
}

// The configuration is TOML with the keys of cli.md, and names files that exist.
func TestConfig(t *testing.T) {
	dir := filepath.Join(t.TempDir(), `a "quoted" name`)
	if _, err := place.Open(dir); err != nil { // publish and serve do this
		t.Fatal(err)
	}
	out, err := run(t, "config", "--dir", dir, "--keychain", "kernel-keyring", "--service", "mine")
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Hub struct {
			URL    string `toml:"url"`
			CAFile string `toml:"ca_file"`
		} `toml:"hub"`
		Manifest struct {
			RootFile     string   `toml:"root_file"`
			PrivateHosts []string `toml:"private_hosts"`
		} `toml:"manifest"`
		Keychain struct {
			Backend string `toml:"backend"`
			Service string `toml:"service"`
		} `toml:"keychain"`
	}
	if err := toml.NewDecoder(strings.NewReader(out)).DisallowUnknownFields().Decode(&c); err != nil {
		t.Fatalf("got %v, want valid TOML:\n%s", err, out)
	}
	if !strings.HasPrefix(c.Hub.URL, "https://localhost:") || c.Manifest.PrivateHosts[0] != "127.0.0.1" ||
		c.Keychain.Backend != "kernel-keyring" || c.Keychain.Service != "mine" {
		t.Errorf("got the configuration %+v, want the hub's addresses and the given values", c)
	}
	for _, file := range []string{c.Hub.CAFile, c.Manifest.RootFile} {
		if _, err := os.Stat(file); err != nil || !filepath.IsAbs(file) {
			t.Errorf("%s: got %v, want an existing file with an absolute path", file, err)
		}
	}
}

func TestPublishRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("no model"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"kind":      {"--kind", "poem", "--name", "x", file},
		"name":      {"--kind", "model", "--name", "../x", file},
		"no GGUF":   {"--kind", "model", "--name", "x", file},
		"no file":   {"--kind", "model", "--name", "x", file + ".missing"},
		"archive":   {"--kind", "runtime", "--name", "x", file},
		"platform":  {"--kind", "runtime", "--name", "x", "--platform", "linux", file},
		"http URL":  {"--kind", "model", "--name", "x", "http://models.example/m.gguf"},
		"URL user":  {"--kind", "model", "--name", "x", "https://me@models.example/m.gguf"},
		"origin":    {"--kind", "model", "--name", "x", "--origin", "https://models.example/", file},
		"two files": {"--kind", "model", "--name", "x", file, file},
	} {
		if out, err := run(t, append([]string{"publish", "--dir", t.TempDir()}, args...)...); err == nil {
			t.Errorf("%s: got %s, want an error", name, out)
		}
	}
}

// A new default replaces the old one, and versions increase.
func TestPublishDefault(t *testing.T) {
	dir, files := t.TempDir(), t.TempDir()
	publish := func(name, content string, args ...string) string {
		file := filepath.Join(files, "m.gguf")
		if err := os.WriteFile(file, []byte("GGUF"+content), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := run(t, append([]string{"publish", "--dir", dir, "--kind", "model", "--name", name, file}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, step := range []struct{ out, want string }{
		{publish("one", "1"), "published model one, version 1 (5 bytes, default)\n"},
		{publish("two", "22"), "published model two, version 1 (6 bytes)\n"},
		{publish("two", "22"), "published model two, version 1 (6 bytes)\n"},
		{publish("two", "333", "--default"), "published model two, version 2 (7 bytes, default)\n"},
	} {
		if step.out != step.want {
			t.Errorf("got %q, want %q", step.out, step.want)
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "catalogue.json"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(data), `"default": true`); n != 1 {
		t.Errorf("got %d defaults, want 1", n)
	}
}

// A directory that another user can enter is refused, unless it is empty and can be made private.
func TestDirectoryIsPrivate(t *testing.T) {
	open := t.TempDir()
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := place.Open(open); err != nil {
		t.Errorf("empty directory: got %v, want nil", err)
	}
	if info, err := os.Stat(open); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got mode %v, %v, want 0700", info.Mode(), err)
	}
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, "config", "--dir", open); err == nil {
		t.Error("got nil for a directory with keys that others can enter, want an error")
	}
}

// config and fault create no hub in a mistyped directory, and config creates the folder of a new file.
func TestConfigOfNoHub(t *testing.T) {
	typo := filepath.Join(t.TempDir(), "typo")
	for _, args := range [][]string{{"config", "--dir", typo}, {"fault", "--dir", typo, "slow", "on"}} {
		if _, err := run(t, args...); !errors.Is(err, place.ErrNoHub) {
			t.Errorf("%v: got %v, want ErrNoHub", args, err)
		}
		if _, err := os.Stat(typo); err == nil {
			t.Fatalf("%v: got the directory %s, want none", args, typo)
		}
	}
	dir, file := filepath.Join(t.TempDir(), "hub"), filepath.Join(t.TempDir(), "new", "config.toml")
	if _, err := place.Open(dir); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, "config", "--dir", dir, "--output", file); err != nil || out != "" {
		t.Errorf("--output: got %q, %v; want nothing printed", out, err)
	}
	if data, err := os.ReadFile(file); err != nil || !strings.Contains(string(data), "root_file") {
		t.Errorf("--output: got %q, %v, want the configuration", data, err)
	}
	if _, err := run(t, "config", "--dir", dir, "--output", file); err == nil {
		t.Error("--output over a file: got nil, want an error")
	}
}

// A second server of one directory is refused, and the ports file stays unchanged.
func TestSecondServeIsRefused(t *testing.T) {
	dir := t.TempDir()
	p, err := place.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := p.LockServing()
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, "ports.json"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, "serve", "--dir", dir); err == nil || !strings.Contains(err.Error(), "another devhub serves") {
		t.Errorf("got %v, want a refusal", err)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, "ports.json")); !bytes.Equal(before, after) {
		t.Errorf("got the ports %s, want %s", after, before)
	}
	unlock()
}

// serve prints its addresses in the first line, warns that it is not for production, and exits with 0 after a signal.
func TestServeProcess(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		cmd := exec.Command(self, "serve", "--dir", t.TempDir(), "--auto-approve", "ada")
		cmd.Env = append(os.Environ(), "DEVHUB_TEST_AS_PROGRAM=1")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var first map[string]string
		if err := json.NewDecoder(stdout).Decode(&first); err != nil {
			t.Error(err)
		}
		if !strings.HasPrefix(first["hub"], "https://localhost:") || !strings.HasPrefix(first["artifacts"], "https://127.0.0.1:") ||
			!filepath.IsAbs(first["caFile"]) || !filepath.IsAbs(first["rootFile"]) || len(first) != 4 {
			t.Errorf("got the first line %v, want four addresses and paths", first)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: got %v, want nil", sig, err)
		}
		kill.Stop()
		if !strings.Contains(stderr.String(), "NOT FOR PRODUCTION") {
			t.Errorf("got %s, want the warning NOT FOR PRODUCTION", &stderr)
		}
	}
}
