package signin

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"companion/adapters/authority/keychain"
	"companion/e2e/harness"
	"companion/messages"
)

// A4, A5: when the loopback token disappears from the keychain or another program overwrites it, inference is
// not available, and becomes available when the token is stored and read back.
func TestLostToken(t *testing.T) {
	t.Parallel() // most of it is waiting
	c := harness.Ready(t, "")
	token, _ := c.Secret(keychain.LoopbackToken)
	for _, row := range []struct {
		reason string
		lose   func() error
	}{
		{"missing_token", func() error { return c.Keychain().Delete(t.Context(), keychain.LoopbackToken) }},
		{"invalid_token", func() error {
			return c.Keychain().Set(t.Context(), keychain.LoopbackToken, messages.NewSecret("another"))
		}},
	} {
		if err := row.lose(); err != nil {
			t.Fatal(err)
		}
		lost := `"event":"availability changed","available":false,"reason":"` + row.reason + `"`
		for deadline := time.Now().Add(time.Minute); !strings.Contains(c.Log(), lost); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the log does not say %s, want it before the deadline", lost)
			}
		}
		c.Available()
		if again, found := c.Secret(keychain.LoopbackToken); !found || again != token {
			t.Error("the token was not stored again, want it in the keychain")
		}
	}
}

// K7: a Secret Service that is stopped holds neither status nor shutdown, and loses no session: the real GNOME Keyring on a bus
// of its own, the built daemon without a display.
func TestStoppedSecretService(t *testing.T) {
	bus, service := secretService(t)
	hub := harness.NewHub(t)
	c := hub.Companion("")
	c.Edit(`backend = "kernel-keyring"`, `backend = "secret-service"`)
	c.Extra = []string{bus}
	c.Start()
	c.SignIn()
	c.Daemon.Stop()
	c.Start()
	c.Await("the session of the keyring", harness.AvailableWithin, func(s messages.Status) bool { return s.Session.State == messages.SessionSignedIn })

	if err := service.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = service.Signal(syscall.SIGCONT) }()
	c.Await("the token to count as lost", 2*time.Minute, func(s messages.Status) bool { return !s.Facts.Token })
	began := time.Now()
	c.Must("status", "--json")
	status := time.Since(began)
	began = time.Now()
	c.Daemon.Stop()
	shutdown := time.Since(began)
	t.Logf("Secret Service stopped: status took %v, its process included, shutdown %v", status, shutdown)
	if keychainDeadline := 30 * time.Second; status > keychainDeadline/3 || shutdown > keychainDeadline/3 {
		t.Errorf("status took %v and shutdown %v, want both without waiting for the keychain", status, shutdown)
	}
	if err := service.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c.Start()
	c.Await("the session again", harness.AvailableWithin, func(s messages.Status) bool { return s.Session.State == messages.SessionSignedIn })
}

// secretService starts a session bus and an unlocked GNOME Keyring on it, and returns the bus's environment variable.
func secretService(t testing.TB) (variable string, service *os.Process) {
	t.Helper()
	home := harness.TempDir(t)
	variable = sessionBus(t, home)
	return variable, onBus(t, variable, home, nil, "a password", "gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets")
}

// sessionBus starts a session bus and returns its environment variable.
func sessionBus(t testing.TB, home string) (variable string) {
	t.Helper()
	config := filepath.Join(home, "bus.conf")
	if err := os.WriteFile(config, []byte(`<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:tmpdir=/tmp</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`), 0o600); err != nil {
		t.Fatal(err)
	}
	bus := exec.Command(program(t, "dbus-daemon"), "--config-file="+config, "--nofork", "--print-address")
	out, err := bus.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	runUntilEnd(t, bus)
	address := make([]byte, 500)
	n, err := out.Read(address)
	if err != nil {
		t.Fatal(err)
	}
	return "DBUS_SESSION_BUS_ADDRESS=" + strings.TrimSpace(string(address[:n]))
}

// onBus starts a Secret Service on the bus, and waits until it has its name.
func onBus(t testing.TB, variable, home string, env []string, input, name string, args ...string) *os.Process {
	t.Helper()
	cmd := exec.Command(program(t, name), args...)
	cmd.Env = append(append(os.Environ(), variable, "HOME="+home, "XDG_DATA_HOME="+home, "XDG_RUNTIME_DIR="+home), env...)
	cmd.Stdin = strings.NewReader(input)
	runUntilEnd(t, cmd)
	conn, err := dbus.Connect(strings.TrimPrefix(variable, "DBUS_SESSION_BUS_ADDRESS="))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var owned bool
		if err := conn.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, "org.freedesktop.secrets").Store(&owned); err != nil {
			t.Fatal(err)
		}
		if owned {
			return cmd.Process
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: got no Secret Service within 30 s, want one", name)
		}
	}
}

// program is the path of a program that a test needs.
func program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing: install the package that has it: dbus, gnome-keyring or keepassxc", name)
	}
	return path
}

// runUntilEnd starts cmd and ends it with the test.
func runUntilEnd(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}
