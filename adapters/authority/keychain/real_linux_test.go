package keychain

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/zalando/go-keyring"
	"golang.org/x/sys/unix"

	"companion/messages"
)

// again runs the test in a child process, and fails with its output.
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
		t.Fatalf("child process: got %v, want a passed test\n%s", err, out)
	}
}

func uniqueService(t *testing.T) string {
	return fmt.Sprintf("companion-test-%d-%s", os.Getpid(), t.Name())
}

// K1, K2, K4 on the real kernel keyring.
func TestKernelKeyring(t *testing.T) { testBackEnd(t, kernelKeyring{}, uniqueService(t), MaxValue) }

// K2: processes and sessions of one user share the kernel keyring, also if the session keyring does not link to the user
// keyring.
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

// K2: for an ordinary user whose quota is used up, set reports that the keyring is full, and stores nothing.
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
	wantReason(t, err, messages.ReasonKeychainFull)
	wantAbsent(t, k, AccessToken)
}

// busConfig configures a session bus that activates no service.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:tmpdir=/tmp</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`

// K1–K4, K7 with a real GNOME Keyring on a private D-Bus: service absent, empty, locked, stopped.
func TestSecretService(t *testing.T) {
	if _, err := exec.LookPath("gnome-keyring-daemon"); err != nil {
		t.Fatal("gnome-keyring-daemon is missing: install the package gnome-keyring")
	}
	if !onBus(t) {
		return
	}
	service := uniqueService(t)
	k := newKeychain(&secretService{}, Options{Service: service, Timeout: 2 * time.Second})

	_, _, err := k.Get(t.Context(), AccessToken)
	wantReason(t, err, messages.ReasonKeychainUnavailable)

	daemon := startKeyring(t)
	testBackEnd(t, &secretService{}, service, MaxValue)
	if err := k.Set(t.Context(), RefreshToken, messages.NewSecret("kept")); err != nil {
		t.Fatal(err)
	}

	t.Run("locked is not signed out", func(t *testing.T) {
		lockKeyring(t)
		_, found, err := k.Get(t.Context(), RefreshToken)
		wantReason(t, err, messages.ReasonKeychainLocked)
		if found {
			t.Fatal("locked: got found, want an error")
		}
		wantReason(t, k.Set(t.Context(), AccessToken, messages.NewSecret("v")), messages.ReasonKeychainLocked)
		wantReason(t, k.Delete(t.Context(), RefreshToken), messages.ReasonKeychainLocked)
	})
	t.Run("a stopped service does not hold its callers", func(t *testing.T) {
		if err := daemon.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = daemon.Signal(syscall.SIGCONT) }()
		began := time.Now()
		_, _, err := k.Get(t.Context(), RefreshToken)
		wantReason(t, err, messages.ReasonKeychainTimeout)
		if took := time.Since(began); took > 4*time.Second {
			t.Fatalf("stopped service: got an answer after %v, want at most 4s", took)
		}
		began = time.Now()
		patient := newKeychain(&secretService{}, Options{Service: service, Timeout: time.Minute})
		wantReason(t, patient.Delete(Brief(t.Context()), RefreshToken), messages.ReasonKeychainTimeout)
		if took := time.Since(began); took > 10*time.Second {
			t.Fatalf("stopped service, brief: got an answer after %v, want it at once", took)
		}
	})
}

// K3, K7: without a session bus the call fails, and no bus is started.
func TestNoSessionBus(t *testing.T) {
	const name = "KEYCHAIN_TEST_NO_BUS"
	if os.Getenv(name) == "" {
		again(t, []string{name + "=1", "DBUS_SESSION_BUS_ADDRESS=unix:path=/nonexistent/bus"})
		return
	}
	k := newKeychain(&secretService{}, Options{Service: uniqueService(t), Timeout: 2 * time.Second})
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
			t.Fatal("got no gnome-keyring-daemon on the bus, want one")
		}
	}
}

// K7, K3: with a real GNOME Keyring, Watch reports start, lock, unlock and end of the service, and not our own writes.
func TestWatch(t *testing.T) {
	if !onBus(t) {
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	changes := make(chan struct{}, 100)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Watch(ctx, BackendAuto, func() { changes <- struct{}{} })
	}()
	defer func() { cancel(); <-ended }()
	k := newKeychain(&secretService{}, Options{Service: uniqueService(t), Timeout: 5 * time.Second})
	hears := func(what string) {
		t.Helper()
		select {
		case <-changes:
		case <-time.After(20 * time.Second):
			t.Fatalf("Watch: got no change, want one when %s", what)
		}
		for len(changes) > 0 {
			<-changes
		}
	}
	settleWatch(t)
	daemon := startKeyring(t)
	hears("the service has come")
	for range 20 {
		if err := k.Set(t.Context(), AccessToken, messages.NewSecret("v")); err != nil {
			t.Fatal(err)
		}
	}
	settleWatch(t)
	if n := len(changes); n > 1 { // one may remain from the start of the service
		t.Errorf("after 20 own writes: got %d changes, want at most 1", n)
	}
	for len(changes) > 0 {
		<-changes
	}
	lockKeyring(t)
	hears("the collection was locked")
	if err := daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	hears("the service has gone")
}

// settleWatch waits for some round trips over the bus.
func settleWatch(t *testing.T) {
	t.Helper()
	bus, err := dbus.ConnectSessionBus()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bus.Close() }()
	for range 200 {
		if err := bus.BusObject().Call("org.freedesktop.DBus.GetId", 0).Err; err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

// K1, K2: go-keyring, an independent implementation, reads what this package stores in a real GNOME Keyring, and vice versa.
// A monitor on the bus sees the value with go-keyring's plain transport, and not with this package's.
func TestEncryptedTransport(t *testing.T) {
	if !onBus(t) {
		return
	}
	startKeyring(t)
	defer closeSharedBus(t)
	service := uniqueService(t)
	k := newKeychain(&secretService{}, Options{Service: service, Timeout: 5 * time.Second})
	recorded := eavesdrop(t)
	for _, value := range []string{"a", "fifteen bytes..", "sixteen bytes...", "seventeen bytes..", strings.Repeat("ä", MaxValue/2)} {
		if err := k.Set(t.Context(), RefreshToken, messages.NewSecret(value)); err != nil {
			t.Fatal(err)
		}
		wantValue(t, k, RefreshToken, value)
		if text := recorded(); len(value) > 8 && strings.Contains(text, value) {
			t.Errorf("got the value %.20q in plain text on the bus, want it encrypted", value)
		} else if !strings.Contains(text, "CreateItem") {
			t.Fatal("the monitor: got no CreateItem, want it recorded")
		}
		if got, err := keyring.Get(service, string(RefreshToken)); err != nil || got != value {
			t.Errorf("go-keyring: got %.20q, %v; want %.20q", got, err, value)
		}
		recorded()
	}
	if err := keyring.Set(service, string(AccessToken), "stored by go-keyring"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(recorded(), "stored by go-keyring") {
		t.Error("the monitor: got no value of go-keyring's plain transport, want it recorded")
	}
	wantValue(t, k, AccessToken, "stored by go-keyring")
}

// eavesdrop records all messages of the bus; the returned function returns the record and clears it.
func eavesdrop(t *testing.T) func() string {
	t.Helper()
	monitor, err := dbus.ConnectSessionBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = monitor.Close() })
	if err := monitor.BusObject().Call("org.freedesktop.DBus.Monitoring.BecomeMonitor", 0, []string{}, uint32(0)).Err; err != nil {
		t.Fatal(err)
	}
	seen := make(chan *dbus.Message, 10000)
	monitor.Eavesdrop(seen)
	return func() string {
		settleWatch(t)
		var all strings.Builder
		for len(seen) > 0 {
			m := <-seen
			fmt.Fprintf(&all, "%v ", m.Headers[dbus.FieldMember])
			for _, part := range m.Body {
				fmt.Fprintf(&all, "%s\n", flat(part))
			}
		}
		return all.String()
	}
}

// flat renders a message body with its byte strings as text.
func flat(v any) string {
	switch v := v.(type) {
	case []byte:
		return string(v)
	case []any:
		var all strings.Builder
		for _, part := range v {
			all.WriteString(flat(part) + " ")
		}
		return all.String()
	case dbus.Variant:
		return flat(v.Value())
	}
	return fmt.Sprint(v)
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

// closeSharedBus closes the connection that go-keyring otherwise keeps until the process ends.
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
