package keychain

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"companion/messages"
)

// again runs one test of this binary in a process of its own, and fails with its output.
func again(t *testing.T, env []string, prefix ...string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := append(prefix, self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatalf("%v\n%s", err, out)
	}
}

func uniqueService(t *testing.T) string {
	return fmt.Sprintf("companion-test-%d-%s", os.Getpid(), t.Name())
}

// K1, K2, K4 on the real kernel keyring.
func TestKernelKeyring(t *testing.T) { testBackEnd(t, kernelKeyring{}, uniqueService(t), MaxValue) }

// K2: the kernel keyring reaches across processes and sessions of one user, also where the session
// keyring does not lead to the user keyring.
func TestKernelKeyringAcrossSessions(t *testing.T) {
	const name, value = "KEYCHAIN_TEST_SERVICE", "across sessions"
	if service := os.Getenv(name); service != "" {
		if _, err := unix.KeyctlJoinSessionKeyring("companion-test"); err != nil {
			t.Fatal(err)
		}
		k := newKeychain(kernelKeyring{}, Options{Service: service})
		wantValue(t, k, LoopbackToken, value)
		return
	}
	k := newKeychain(kernelKeyring{}, Options{Service: uniqueService(t)})
	defer func() { _ = k.Delete(context.Background(), LoopbackToken) }()
	if err := k.Set(t.Context(), LoopbackToken, messages.NewSecret(value)); err != nil {
		t.Fatal(err)
	}
	again(t, []string{name + "=" + uniqueService(t)})
}

// K2: as an ordinary user; where the quota is spent, set says so and stores nothing.
func TestKernelKeyringQuota(t *testing.T) {
	const name = "KEYCHAIN_TEST_QUOTA"
	if os.Getenv(name) == "" {
		again(t, []string{name + "=1"})
		return
	}
	if os.Getuid() == 0 {
		if err := syscall.Setgid(61234); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Setuid(61234); err != nil {
			t.Fatal(err)
		}
	}
	service := uniqueService(t)
	testBackEnd(t, kernelKeyring{}, service, MaxValue)
	var fillers []int
	defer func() {
		for _, id := range fillers {
			_, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0)
		}
	}()
	for i := range 64 {
		id, err := unix.AddKey("user", fmt.Sprintf("%s-filler-%d", service, i), make([]byte, 4000), unix.KEY_SPEC_USER_KEYRING)
		if err != nil {
			break
		}
		fillers = append(fillers, id)
	}
	k := newKeychain(kernelKeyring{}, Options{Service: service + "-quota"})
	err := k.Set(t.Context(), AccessToken, messages.NewSecret(strings.Repeat("a", MaxValue)))
	wantReason(t, err, messages.ReasonSecretTooLarge)
	wantAbsent(t, k, AccessToken)
}

// busConfig is a session bus that starts no service by itself, so that "no service" stays true.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:tmpdir=/tmp</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`

// K1–K4, K7 on a real GNOME Keyring on a private D-Bus: absent service, empty, locked, stopped.
func TestSecretService(t *testing.T) {
	if os.Getenv("KEYCHAIN_TEST_BUS") == "" {
		for _, program := range []string{"dbus-run-session", "gnome-keyring-daemon"} {
			if _, err := exec.LookPath(program); err != nil {
				t.Fatalf("%s is missing: install the packages dbus and gnome-keyring", program)
			}
		}
		config := filepath.Join(t.TempDir(), "bus.conf")
		if err := os.WriteFile(config, []byte(busConfig), 0o600); err != nil {
			t.Fatal(err)
		}
		home := t.TempDir()
		again(t, []string{"KEYCHAIN_TEST_BUS=1", "HOME=" + home, "XDG_DATA_HOME=" + home, "XDG_RUNTIME_DIR=" + home},
			"dbus-run-session", "--config-file="+config, "--")
		return
	}
	service := uniqueService(t)
	k := newKeychain(secretService{}, Options{Service: service, Timeout: 2 * time.Second})

	_, _, err := k.Get(t.Context(), AccessToken)
	wantReason(t, err, messages.ReasonKeychainUnavailable)

	daemon := startKeyring(t)
	defer closeSharedBus(t)
	testBackEnd(t, secretService{}, service, MaxValue)
	if err := k.Set(t.Context(), RefreshToken, messages.NewSecret("kept")); err != nil {
		t.Fatal(err)
	}

	t.Run("locked is not signed out", func(t *testing.T) {
		lockKeyring(t)
		_, found, err := k.Get(t.Context(), RefreshToken)
		wantReason(t, err, messages.ReasonKeychainLocked)
		if found {
			t.Fatal("found while locked")
		}
		wantReason(t, k.Set(t.Context(), AccessToken, messages.NewSecret("v")), messages.ReasonKeychainLocked)
		wantReason(t, k.Delete(t.Context(), RefreshToken), messages.ReasonKeychainLocked)
	})
	t.Run("a stopped service hangs nobody", func(t *testing.T) {
		if err := daemon.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = daemon.Signal(syscall.SIGCONT) }()
		began := time.Now()
		_, _, err := k.Get(t.Context(), RefreshToken)
		wantReason(t, err, messages.ReasonKeychainTimeout)
		if took := time.Since(began); took > 4*time.Second {
			t.Fatalf("took %v", took)
		}
	})
}

// K3, K7: no session bus at all; nothing is started in its place.
func TestNoSessionBus(t *testing.T) {
	const name = "KEYCHAIN_TEST_NO_BUS"
	if os.Getenv(name) == "" {
		again(t, []string{name + "=1", "DBUS_SESSION_BUS_ADDRESS=unix:path=/nonexistent/bus"})
		return
	}
	k := newKeychain(secretService{}, Options{Service: uniqueService(t), Timeout: 2 * time.Second})
	wantReason(t, k.Set(t.Context(), LoopbackToken, messages.NewSecret("v")), messages.ReasonKeychainUnavailable)
	_, _, err := k.Get(t.Context(), LoopbackToken)
	wantReason(t, err, messages.ReasonKeychainUnavailable)
}

// startKeyring starts a GNOME Keyring with an unlocked, empty login collection and waits for it.
func startKeyring(t *testing.T) *os.Process {
	t.Helper()
	bus, err := dbus.ConnectSessionBus()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bus.Close() }()
	owned := make(chan *dbus.Signal, 8)
	bus.Signal(owned)
	if err := bus.AddMatchSignal(dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, secretsName)); err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command("gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets")
	daemon.Stdin = strings.NewReader("a password")
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
	late := time.After(10 * time.Second)
	for {
		select {
		case signal := <-owned:
			if strings.HasSuffix(signal.Name, ".NameOwnerChanged") {
				return daemon.Process
			}
		case <-late:
			t.Fatal("gnome-keyring-daemon did not come up")
		}
	}
}

func lockKeyring(t *testing.T) {
	t.Helper()
	bus, err := dbus.ConnectSessionBus()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bus.Close() }()
	if err := bus.Object(secretsName, secretsPath).Call(secretsService+".Lock", 0, []dbus.ObjectPath{loginCollection}).Err; err != nil {
		t.Fatal(err)
	}
}

// closeSharedBus ends the connection that go-keyring keeps for the life of the process.
func closeSharedBus(t *testing.T) {
	t.Helper()
	bus, err := dbus.SessionBus()
	if err != nil {
		t.Fatal(err)
	}
	if err := bus.Close(); err != nil {
		t.Fatal(err)
	}
}
