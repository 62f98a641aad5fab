package keychain

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/prop"

	"companion/messages"
)

// fakeService is a Secret Service that asks a person about everything, and a person who dismisses every
// dialog. GNOME Keyring cannot be made to do that without a desktop.
type fakeService struct {
	bus       *dbus.Conn
	mu        sync.Mutex
	prompts   int
	unlockAsk bool // unlocking asks first
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

func (f *fakeService) OpenSession(string, dbus.Variant) (dbus.Variant, dbus.ObjectPath, *dbus.Error) {
	return dbus.MakeVariant(""), "/org/freedesktop/secrets/session/s1", nil
}

func (f *fakeService) Close() *dbus.Error { return nil }

// CreateItem says that the user must be asked; go-keyring takes the end of the dialog for success.
func (f *fakeService) CreateItem(map[string]dbus.Variant, fakeSecret, bool) (dbus.ObjectPath, dbus.ObjectPath, *dbus.Error) {
	return "/", promptPath, nil
}

type fakeSecret struct {
	Session     dbus.ObjectPath
	Parameters  []byte
	Value       []byte
	ContentType string
}

func (f *fakeService) SearchItems(map[string]string) ([]dbus.ObjectPath, *dbus.Error) {
	return []dbus.ObjectPath{}, nil
}

// Prompt is dismissed at once.
func (f *fakeService) Prompt(string) *dbus.Error {
	f.mu.Lock()
	f.prompts++
	f.mu.Unlock()
	go func() { _ = f.bus.Emit(promptPath, secretsPrompt+".Completed", true, dbus.MakeVariant("")) }()
	return nil
}

func (f *fakeService) set(unlockAsk bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unlockAsk = unlockAsk
}

func (f *fakeService) asked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.prompts
}

// K7: a dismissed unlock dialog is "locked"; a dismissed dialog for storing, which go-keyring reports as
// success, is "denied" because the value does not read back. Neither waits for the deadline.
func TestDismissedDialogs(t *testing.T) {
	if os.Getenv("KEYCHAIN_TEST_BUS") == "" {
		if _, err := exec.LookPath("dbus-run-session"); err != nil {
			t.Fatal("dbus-run-session is missing: install the package dbus")
		}
		config := filepath.Join(t.TempDir(), "bus.conf")
		if err := os.WriteFile(config, []byte(busConfig), 0o600); err != nil {
			t.Fatal(err)
		}
		again(t, []string{"KEYCHAIN_TEST_BUS=1"}, "dbus-run-session", "--config-file="+config, "--")
		return
	}
	fake, locked := serveFake(t)
	defer closeSharedBus(t)
	k := newKeychain(secretService{}, Options{Service: uniqueService(t), Timeout: 20 * time.Second})
	began := time.Now()

	wantReason(t, k.Set(t.Context(), AccessToken, messages.NewSecret("v")), messages.ReasonKeychainDenied)
	if fake.asked() != 1 {
		t.Fatalf("%d dialogs", fake.asked())
	}
	fake.set(true)
	locked(true)
	_, _, err := k.Get(t.Context(), AccessToken)
	wantReason(t, err, messages.ReasonKeychainLocked)
	if fake.asked() != 2 {
		t.Fatalf("%d dialogs: not exactly one for unlocking", fake.asked())
	}
	// A quiet call of either kind asks nobody.
	_, _, err = k.Get(Quiet(t.Context()), AccessToken)
	wantReason(t, err, messages.ReasonKeychainLocked)
	wantReason(t, k.Set(Quiet(t.Context()), AccessToken, messages.NewSecret("v")), messages.ReasonKeychainLocked)
	if fake.asked() != 2 {
		t.Fatalf("%d dialogs: a quiet call asked", fake.asked())
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Fatalf("took %v", took)
	}
}

// serveFake puts the fake on the session bus. The returned function locks or unlocks its collection.
func serveFake(t *testing.T) (*fakeService, func(bool)) {
	t.Helper()
	bus, err := dbus.ConnectSessionBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bus.Close() })
	f := &fakeService{bus: bus}
	const collection = "org.freedesktop.Secret.Collection"
	for path, iface := range map[dbus.ObjectPath]string{
		secretsPath: secretsService, loginCollection: collection, promptPath: secretsPrompt,
		"/org/freedesktop/secrets/session/s1": "org.freedesktop.Secret.Session",
	} {
		if err := bus.Export(f, path, iface); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := prop.Export(bus, secretsPath, prop.Map{secretsService: {
		"Collections": {Value: []dbus.ObjectPath{loginCollection}},
	}}); err != nil {
		t.Fatal(err)
	}
	properties, err := prop.Export(bus, loginCollection, prop.Map{collection: {"Locked": {Value: false}}})
	if err != nil {
		t.Fatal(err)
	}
	if reply, err := bus.RequestName(secretsName, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("%v %v", reply, err)
	}
	return f, func(locked bool) { properties.SetMust(collection, "Locked", locked) }
}
