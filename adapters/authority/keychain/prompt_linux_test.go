package keychain

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/prop"

	"companion/messages"
)

// fakeService is a Secret Service that raises a dialog for every operation, and a user who dismisses every dialog or answers
// none. GNOME Keyring cannot do that without a desktop.
type fakeService struct {
	bus       *dbus.Conn
	mu        sync.Mutex
	prompts   int
	dismissed int
	unlockAsk bool // unlocking raises a dialog
	silent    bool // dialogs stay open
	none      bool // there is no collection
}

const promptPath = dbus.ObjectPath("/org/freedesktop/secrets/prompt/p1")

func (f *fakeService) Unlock(objects []dbus.ObjectPath) ([]dbus.ObjectPath, dbus.ObjectPath, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unlockAsk {
		return nil, promptPath, nil
	}
	return objects, "/", nil
}

// OpenSession offers plain transport only, like old services.
func (f *fakeService) OpenSession(algorithm string, _ dbus.Variant) (dbus.Variant, dbus.ObjectPath, *dbus.Error) {
	if algorithm != algorithmPlain {
		return dbus.MakeVariant(""), "/", dbus.NewError("org.freedesktop.DBus.Error.NotSupported", nil)
	}
	return dbus.MakeVariant(""), "/org/freedesktop/secrets/session/s1", nil
}

func (f *fakeService) Close() *dbus.Error { return nil }

func (f *fakeService) ReadAlias(string) (dbus.ObjectPath, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.none {
		return "/", nil
	}
	return loginCollection, nil
}

// CreateItem answers that a dialog is needed.
func (f *fakeService) CreateItem(map[string]dbus.Variant, secret, bool) (dbus.ObjectPath, dbus.ObjectPath, *dbus.Error) {
	return "/", promptPath, nil
}

func (f *fakeService) SearchItems(map[string]string) ([]dbus.ObjectPath, *dbus.Error) {
	return []dbus.ObjectPath{}, nil
}

// Prompt reports that the user dismissed the dialog, unless the fake is silent.
func (f *fakeService) Prompt(string) *dbus.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prompts++
	if !f.silent {
		go func() { _ = f.bus.Emit(promptPath, secretsPrompt+".Completed", true, dbus.MakeVariant("")) }()
	}
	return nil
}

// Dismiss closes the dialog.
func (f *fakeService) Dismiss() *dbus.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dismissed++
	return nil
}

func (f *fakeService) change(set func(*fakeService)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	set(f)
}

func (f *fakeService) counts() (prompts, dismissed int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.prompts, f.dismissed
}

// onBus runs the rest of the test in a child process with a private session bus. It returns false in the parent.
func onBus(t *testing.T) bool {
	t.Helper()
	if os.Getenv("KEYCHAIN_TEST_BUS") != "" {
		return true
	}
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Fatal("dbus-daemon is missing: install the package dbus")
	}
	config := filepath.Join(t.TempDir(), "bus.conf")
	if err := os.WriteFile(config, []byte(busConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	bus := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--print-address")
	out, err := bus.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := bus.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = bus.Process.Kill()
		_ = bus.Wait()
	}()
	address := make([]byte, 500)
	n, err := out.Read(address)
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	again(t, []string{
		"KEYCHAIN_TEST_BUS=" + strconv.Itoa(bus.Process.Pid), "DBUS_SESSION_BUS_ADDRESS=" + strings.TrimSpace(string(address[:n])),
		"HOME=" + home, "XDG_DATA_HOME=" + home, "XDG_RUNTIME_DIR=" + home,
	})
	return false
}

// K7: a dismissed unlock dialog gives keychain_locked, a dismissed store dialog keychain_denied. Calls without Ask raise no
// dialog, and all calls under one Ask raise one.
func TestDialogs(t *testing.T) {
	if !onBus(t) {
		return
	}
	fake, locked := serveFake(t)
	k := newKeychain(&secretService{}, Options{Service: uniqueService(t), Timeout: 20 * time.Second})
	wantDialogs := func(want int) {
		t.Helper()
		if got, _ := fake.counts(); got != want {
			t.Fatalf("dialogs: got %d, want %d", got, want)
		}
	}
	value := messages.NewSecret("v")

	wantReason(t, k.Set(t.Context(), AccessToken, value), messages.ReasonKeychainLocked)
	wantDialogs(0)
	wantReason(t, k.Set(Ask(t.Context()), AccessToken, value), messages.ReasonKeychainDenied)
	wantDialogs(1)

	fake.change(func(f *fakeService) { f.unlockAsk = true })
	locked(true)
	for range 3 {
		_, _, err := k.Get(t.Context(), AccessToken)
		wantReason(t, err, messages.ReasonKeychainLocked)
		wantReason(t, k.Set(t.Context(), AccessToken, value), messages.ReasonKeychainLocked)
		wantReason(t, k.Delete(t.Context(), AccessToken), messages.ReasonKeychainLocked)
	}
	wantDialogs(1)
	action := Ask(t.Context())
	for range 3 {
		_, _, err := k.Get(action, AccessToken)
		wantReason(t, err, messages.ReasonKeychainLocked)
		wantReason(t, k.Set(action, AccessToken, value), messages.ReasonKeychainLocked)
	}
	wantDialogs(2)

	// An unanswered dialog is dismissed at the deadline.
	fake.change(func(f *fakeService) { f.silent = true })
	short := newKeychain(&secretService{}, Options{Service: uniqueService(t), Timeout: 200 * time.Millisecond})
	_, _, err := short.Get(Ask(t.Context()), AccessToken)
	wantReason(t, err, messages.ReasonKeychainLocked)
	wantDialogs(3)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		// The store dialog that was not allowed, and this one.
		if _, dismissed := fake.counts(); dismissed == 2 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("dismissed dialogs: got %d, want 2", dismissed)
		}
	}
}

// K3, K7: a service without a default collection has its own reason, and so has a service that ends while a dialog is open.
func TestNoCollection(t *testing.T) {
	if !onBus(t) {
		return
	}
	fake, _ := serveFake(t)
	fake.change(func(f *fakeService) { f.none = true })
	k := newKeychain(&secretService{}, Options{Service: uniqueService(t), Timeout: 20 * time.Second})
	_, _, err := k.Get(t.Context(), AccessToken)
	wantReason(t, err, messages.ReasonKeychainNoCollection)

	fake.change(func(f *fakeService) { f.none, f.silent = false, true })
	go func() {
		for prompts, _ := fake.counts(); prompts == 0; prompts, _ = fake.counts() {
			time.Sleep(time.Millisecond)
		}
		_ = fake.bus.Close()
	}()
	wantReason(t, k.Set(Ask(t.Context()), AccessToken, messages.NewSecret("v")), messages.ReasonKeychainUnavailable)
}

// K7: if the session bus ends while a dialog is open, for example at logout, the call fails and the process goes on.
func TestBusGone(t *testing.T) {
	if !onBus(t) {
		return
	}
	fake, _ := serveFake(t)
	fake.change(func(f *fakeService) { f.silent = true })
	bus, err := strconv.Atoi(os.Getenv("KEYCHAIN_TEST_BUS"))
	if err != nil {
		t.Fatal(err)
	}
	k := newKeychain(&secretService{}, Options{Service: uniqueService(t), Timeout: 20 * time.Second})
	go func() {
		for prompts, _ := fake.counts(); prompts == 0; prompts, _ = fake.counts() {
			time.Sleep(time.Millisecond)
		}
		_ = syscall.Kill(bus, syscall.SIGKILL)
	}()
	wantReason(t, k.Set(Ask(t.Context()), AccessToken, messages.NewSecret("v")), messages.ReasonKeychainUnavailable)
}

// serveFake exports the fake on the session bus. The returned function locks or unlocks its collection.
func serveFake(t *testing.T) (*fakeService, func(bool)) {
	t.Helper()
	bus, err := dbus.ConnectSessionBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bus.Close() })
	f := &fakeService{bus: bus}
	for path, iface := range map[dbus.ObjectPath]string{
		secretsPath: secretsService, loginCollection: secretsCollection, promptPath: secretsPrompt,
		"/org/freedesktop/secrets/session/s1": "org.freedesktop.Secret.Session",
	} {
		if err := bus.Export(f, path, iface); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := prop.Export(bus, secretsPath, prop.Map{secretsService: {
		"Collections": {Value: []dbus.ObjectPath{}},
	}}); err != nil {
		t.Fatal(err)
	}
	properties, err := prop.Export(bus, loginCollection, prop.Map{secretsCollection: {"Locked": {Value: false}}})
	if err != nil {
		t.Fatal(err)
	}
	if reply, err := bus.RequestName(secretsName, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("RequestName: got %v, %v; want the primary owner", reply, err)
	}
	return f, func(locked bool) { properties.SetMust(secretsCollection, "Locked", locked) }
}
