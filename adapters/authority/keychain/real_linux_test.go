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

// K2: as an ordinary user; where the quota is spent, set says that the keyring is full, and stores nothing.
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

// busConfig is a session bus that starts no service by itself, so that "no service" stays true.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:tmpdir=/tmp</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`

// K1–K4, K7 on a real GNOME Keyring on a private D-Bus: absent service, empty, locked, stopped.
func TestSecretService(t *testing.T) {
	if _, err := exec.LookPath("gnome-keyring-daemon"); err != nil {
		t.Fatal("gnome-keyring-daemon is missing: install the package gnome-keyring")
	}
	if !onBus(t) {
		return
	}
	service := uniqueService(t)
	k := newKeychain(secretService{}, Options{Service: service, Timeout: 2 * time.Second})

	_, _, err := k.Get(t.Context(), AccessToken)
	wantReason(t, err, messages.ReasonKeychainUnavailable)

	daemon := startKeyring(t)
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
	t.Run("a stopped service does not hold its callers", func(t *testing.T) {
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

// K7, K3: on a real GNOME Keyring, Watch hears of its coming, locking, and going, and not of our own writes.
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
	k := newKeychain(secretService{}, Options{Service: uniqueService(t), Timeout: 5 * time.Second})
	hears := func(what string) {
		t.Helper()
		select {
		case <-changes:
		case <-time.After(20 * time.Second):
			t.Fatalf("Watch did not tell that %s", what)
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
	if n := len(changes); n > 1 { // one may be left of the service's start: absent, then a collection
		t.Errorf("20 writes of our own were told as %d changes", n)
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

// settleWatch gives Watch the time of some round trips over the bus.
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

// K1, K2: go-keyring, an implementation that is not ours, reads what this package stores in a real GNOME Keyring, and the
// other way round. An eavesdropper on the bus sees the value with go-keyring's plain transport, and never with ours.
func TestEncryptedTransport(t *testing.T) {
	if !onBus(t) {
		return
	}
	startKeyring(t)
	defer closeSharedBus(t)
	service := uniqueService(t)
	k := newKeychain(secretService{}, Options{Service: service, Timeout: 5 * time.Second})
	recorded := eavesdrop(t)
	for _, value := range []string{"a", "fifteen bytes..", "sixteen bytes...", "seventeen bytes..", strings.Repeat("ä", MaxValue/2)} {
		if err := k.Set(t.Context(), RefreshToken, messages.NewSecret(value)); err != nil {
			t.Fatal(err)
		}
		wantValue(t, k, RefreshToken, value)
		if text := recorded(); len(value) > 8 && strings.Contains(text, value) {
			t.Errorf("the value %.20q was on the bus in plain", value)
		} else if !strings.Contains(text, "CreateItem") {
			t.Fatal("the eavesdropper saw nothing: this test proves nothing")
		}
		if got, err := keyring.Get(service, string(RefreshToken)); err != nil || got != value {
			t.Errorf("go-keyring reads %.20q, %v, want %.20q", got, err, value)
		}
		recorded()
	}
	if err := keyring.Set(service, string(AccessToken), "stored by go-keyring"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(recorded(), "stored by go-keyring") {
		t.Error("the eavesdropper does not see plain transport: this test proves nothing")
	}
	wantValue(t, k, AccessToken, "stored by go-keyring")
}

// eavesdrop records all messages of the bus; the returned function gives and forgets the record.
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
