package harness

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"companion/adapters/authority/keychain"
	"companion/messages"
)

// AvailableWithin bounds the time from a start to available, including the download, on a machine that is busy with other
// tests.
const AvailableWithin = 2 * time.Minute

// Companion is the companion of one user, with its own folders, configuration and keychain service.
type Companion struct {
	t       testing.TB
	Hub     *Hub
	Home    string // everything below it
	Service string // of the kernel keyring
	Extra   []string
	Scanned bool                    // link scanners and prefetching open the page of a sign-in before the browser does
	Before  func(page string) error // called with the page of a sign-in before the browser opens it
	Small   bool                    // run the daemon without the race detector, which multiplies its memory
	Daemon  *Process                // the newest
	context bool                    // use a context of 4096 tokens: the tests count on it, and it starts faster than the default
	view    string                  // where the newest daemon's files are visible, if not at their own paths
}

var services atomic.Int64

// Companion makes the folders and a configuration for the hub, with more appended. It starts nothing.
func (h *Hub) Companion(more string) *Companion {
	h.t.Helper()
	return newCompanion(h.t, h, more)
}

func newCompanion(t testing.TB, hub *Hub, more string) *Companion {
	t.Helper()
	c := &Companion{t: t, Hub: hub, Home: TempDir(t),
		Service: fmt.Sprintf("companion-e2e-%d-%d", os.Getpid(), services.Add(1))}
	c.makeFolders()
	r := runCommand(t, "devhub", "", hubEnvironment(hub.Dir), "config", "--dir", hub.Dir,
		"--keychain", "kernel-keyring", "--service", c.Service)
	if r.Code != 0 {
		t.Fatalf("making a configuration: got another exit status, want 0: %s", r.Stderr)
	}
	c.Configure(r.Stdout + more)
	c.context = !strings.Contains(more, "context =")
	c.cleanUp()
	return c
}

// Alone makes a companion without a hub. Its configuration names the kernel keyring only, with more appended.
func Alone(t testing.TB, more string) *Companion {
	t.Helper()
	c := &Companion{t: t, Home: TempDir(t), Service: fmt.Sprintf("companion-e2e-%d-%d", os.Getpid(), services.Add(1))}
	c.makeFolders()
	c.Configure(fmt.Sprintf("[keychain]\nbackend = \"kernel-keyring\"\nservice = %q\n", c.Service) + more)
	c.cleanUp()
	return c
}

func (c *Companion) makeFolders() {
	c.t.Helper()
	for _, name := range []string{"config/companion", "data", "state", "cache", "run"} {
		if err := os.MkdirAll(filepath.Join(c.Home, name), 0o700); err != nil {
			c.t.Fatal(err)
		}
	}
}

// cleanUp empties the keyring at the end of the test, and shows the log file if the test failed.
func (c *Companion) cleanUp() {
	c.t.Cleanup(c.emptyKeyring)
	c.t.Cleanup(func() {
		if c.t.Failed() {
			log := c.Log()
			c.t.Logf("the end of companion's log file:\n%s", log[max(0, len(log)-4*logEnd):])
		}
	})
}

// Configure writes the configuration file.
func (c *Companion) Configure(text string) {
	c.t.Helper()
	if err := os.WriteFile(c.ConfigFile(), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// Edit replaces old, which must occur, in the configuration file.
func (c *Companion) Edit(old, replacement string) {
	c.t.Helper()
	config, err := os.ReadFile(c.ConfigFile())
	if err != nil {
		c.t.Fatal(err)
	}
	if !strings.Contains(string(config), old) {
		c.t.Fatalf("the configuration has no %s, want it:\n%s", old, config)
	}
	c.Configure(strings.Replace(string(config), old, replacement, 1))
}

// Places of the companion (cli.md).
func (c *Companion) ConfigFile() string { return filepath.Join(c.Home, "config/companion/config.toml") }
func (c *Companion) Data() string       { return filepath.Join(c.view, c.Home, "data/companion") }
func (c *Companion) State() string      { return filepath.Join(c.view, c.Home, "state/companion") }
func (c *Companion) RunTime() string    { return filepath.Join(c.Home, "run/companion") }

// Keychain opens the kernel keyring as the companion does.
func (c *Companion) Keychain() *keychain.Keychain {
	c.t.Helper()
	opened, err := keychain.Open(keychain.Options{Backend: "kernel-keyring", Service: c.Service})
	if err != nil {
		c.t.Fatalf("opening the kernel keyring: %v", err)
	}
	return opened
}

// Secret returns what is stored under account, and whether anything is.
func (c *Companion) Secret(account keychain.Account) (string, bool) {
	c.t.Helper()
	secret, found, err := c.Keychain().Get(c.t.Context(), account)
	if err != nil {
		c.t.Fatalf("reading the kernel keyring: %v", err)
	}
	return secret.Reveal(), found
}

func (c *Companion) emptyKeyring() {
	opened, err := keychain.Open(keychain.Options{Backend: "kernel-keyring", Service: c.Service})
	if err != nil {
		c.t.Errorf("opening the kernel keyring: %v", err)
		return
	}
	for _, account := range keychain.Accounts() {
		if err := opened.Delete(context.Background(), account); err != nil {
			c.t.Errorf("emptying the kernel keyring: %v", err)
		}
	}
}

func (c *Companion) env() []string {
	xdg := func(name, dir string) string { return "XDG_" + name + "=" + filepath.Join(c.Home, dir) }
	all := environment(c.Home, xdg("CONFIG_HOME", "config"), xdg("DATA_HOME", "data"),
		xdg("STATE_HOME", "state"), xdg("CACHE_HOME", "cache"), xdg("RUNTIME_DIR", "run"))
	if c.context {
		all = append(all, "COMPANION_MODEL_CONTEXT=4096")
	}
	return append(all, c.Extra...)
}

// Environ is the environment of its commands, for a program that a test starts itself.
func (c *Companion) Environ() []string { return c.env() }

// Run runs one command to its end.
func (c *Companion) Run(args ...string) Result {
	c.t.Helper()
	return c.RunWith("", args...)
}

// RunWith is Run with a text on standard input.
func (c *Companion) RunWith(stdin string, args ...string) Result {
	c.t.Helper()
	return runCommand(c.t, "companion", stdin, c.env(), args...)
}

// Must is Run for a command that must succeed; it returns its standard output.
func (c *Companion) Must(args ...string) string {
	c.t.Helper()
	r := c.Run(args...)
	if r.Code != 0 {
		c.t.Fatalf("companion %v: got exit code %d, want 0:\n%s%s", args, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Launch starts the daemon without waiting.
func (c *Companion) Launch(flags ...string) *Process {
	c.t.Helper()
	program := daemonBinary(c.t)
	if c.Small {
		program = Binary(c.t, "companion")
	}
	c.Daemon = launch(c.t, c.Home, "companion", program, nil, c.env(), append([]string{"run"}, flags...)...)
	return c.Daemon
}

// Start starts the daemon and waits until it answers on its control socket.
func (c *Companion) Start(flags ...string) *Process {
	c.t.Helper()
	daemon := c.Launch(flags...)
	c.Await("answering", time.Minute, func(s messages.Status) bool { return s.PID == daemon.PID })
	return daemon
}

// StartOnSmallDisk is Start with a folder, such as Data(), on a separate file system of the given size; Data and State open
// files in it. It needs util-linux's unshare, and no privilege where the system allows user namespaces.
func (c *Companion) StartOnSmallDisk(folder, size string) *Process {
	c.t.Helper()
	const script = `mkdir -p -m 0700 "$1" && mount -t tmpfs -o mode=0700,size="$2" none "$1" && exec "$3" run`
	c.Daemon = launch(c.t, c.Home, "companion", "unshare", nil, c.env(), "--map-root-user", "--mount", "--",
		"sh", "-c", script, "sh", folder, size, daemonBinary(c.t))
	c.view = fmt.Sprintf("/proc/%d/root", c.Daemon.PID)
	c.Await("answering", time.Minute, func(s messages.Status) bool { return s.PID == c.Daemon.PID })
	return c.Daemon
}

// RunInside is Run in the mounts of a daemon that StartOnSmallDisk started.
func (c *Companion) RunInside(args ...string) Result {
	c.t.Helper()
	inside := append([]string{"--preserve-credentials", "--user", "--mount", "--target", fmt.Sprint(c.Daemon.PID), Binary(c.t, "companion")}, args...)
	return runProgram(c.t, "nsenter", "", c.env(), inside...)
}

// Status is the output of status --json. The second value is false when the daemon does not answer.
func (c *Companion) Status() (messages.Status, bool) {
	c.t.Helper()
	var status messages.Status
	r := c.Run("status", "--json")
	return status, json.Unmarshal([]byte(r.Stdout), &status) == nil && status.PID != 0
}

// Await reads the status until wanted returns true.
func (c *Companion) Await(what string, limit time.Duration, wanted func(messages.Status) bool) messages.Status {
	c.t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		status, answered := c.Status()
		switch {
		case answered && wanted(status):
			return status
		case c.Daemon != nil && !c.Daemon.Running():
			c.t.Fatalf("the daemon ended with code %d, want %s first:\n%s", c.Daemon.code, what, end(c.Daemon.LogFile))
		case time.Now().After(deadline):
			seen, _ := json.MarshalIndent(status, "", " ")
			c.t.Fatalf("got status %[3]s after %[2]v, want %[1]s", what, limit, seen)
		}
	}
}

// Available follows the status until inference is available.
func (c *Companion) Available() messages.Status {
	c.t.Helper()
	watch := c.Watch()
	defer watch.Close()
	return watch.Await("available", AvailableWithin, func(s messages.Status) bool { return s.CompanionAvailable })
}

// Ready starts a companion on a hub with the real parts, signs in, and waits until it is available.
func Ready(t testing.TB, more string) *Companion {
	t.Helper()
	c := RealHub(t).Companion(more)
	c.Start()
	c.SignIn()
	c.Available()
	return c
}

// Stop ends the daemon with SIGTERM and checks its exit.
func (c *Companion) Stop() {
	c.t.Helper()
	c.Daemon.Stop()
}

// Endpoint returns the address and token of local inference, as `env` prints them.
func (c *Companion) Endpoint() (baseURL, token string) {
	c.t.Helper()
	var env struct {
		BaseURL string `json:"OPENAI_BASE_URL"`
		APIKey  string `json:"OPENAI_API_KEY"`
	}
	out := c.Must("env", "--shell", "json")
	if err := json.Unmarshal([]byte(out), &env); err != nil || env.BaseURL == "" || env.APIKey == "" {
		c.t.Fatalf("got env %v, %v, want the base URL and the key", env.BaseURL, err)
	}
	return env.BaseURL, env.APIKey
}

// Watch is a running status --watch --json.
type Watch struct {
	t       testing.TB
	process *Process
	pipe    *io.PipeWriter
	lines   chan messages.Status
}

// Watch starts to follow the status.
func (c *Companion) Watch() *Watch {
	c.t.Helper()
	out, in := io.Pipe()
	w := &Watch{t: c.t, pipe: in, lines: make(chan messages.Status, 1024)}
	go func() {
		defer close(w.lines)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var status messages.Status
			if err := json.Unmarshal(lines.Bytes(), &status); err != nil {
				c.t.Errorf("a line of status --watch --json: %v", err)
				break
			}
			w.lines <- status
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	w.process = start(c.t, c.Home, "companion", in, c.env(), "status", "--watch", "--json")
	c.t.Cleanup(w.Close)
	return w
}

// PID is the process id of the command.
func (w *Watch) PID() int { return w.process.PID }

// Await reads lines until wanted returns true for one.
func (w *Watch) Await(what string, limit time.Duration, wanted func(messages.Status) bool) messages.Status {
	w.t.Helper()
	var last messages.Status
	deadline := time.After(limit)
	for {
		select {
		case status, open := <-w.lines:
			if !open {
				w.t.Fatalf("the watch ended, want %s first:\n%s", what, end(w.process.LogFile))
			}
			if last = status; wanted(status) {
				return status
			}
		case <-deadline:
			w.t.Fatalf("got %[3]s, %[4]s in the last line after %[2]v, want %[1]s", what, limit, last.Lifecycle, last.Reason)
		}
	}
}

// Close ends the watch.
func (w *Watch) Close() {
	w.process.Kill()
	_ = w.pipe.Close()
}

// Log returns the whole log file.
func (c *Companion) Log() string {
	c.t.Helper()
	var all strings.Builder
	files, _ := filepath.Glob(filepath.Join(c.State(), "companion*.log*"))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			c.t.Fatal(err)
		}
		all.Write(data)
	}
	return all.String()
}

// Shell runs a script of bash in a folder, with the companion in its PATH. The script ends at its first error.
func (c *Companion) Shell(folder, script string, more ...string) Result {
	c.t.Helper()
	env := append(c.env(), "PATH="+filepath.Dir(Binary(c.t, "companion"))+":"+os.Getenv("PATH"))
	return runProgram(c.t, "bash", "", append(env, more...), "-euo", "pipefail", "-c", "cd \"$1\"\n"+script, "bash", folder)
}

// Command is a command of the companion, not started, for a test that acts while it runs.
func (c *Companion) Command(args ...string) *exec.Cmd {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), Binary(c.t, "companion"), args...)
	cmd.Env = c.env()
	return cmd
}
