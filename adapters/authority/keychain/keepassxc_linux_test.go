//go:build keepassxc

package keychain

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"companion/messages"
)

// keePassXML is a database whose root group KeePassXC exposes as a collection of the Secret Service.
const keePassXML = `<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<KeePassFile><Meta><DatabaseName>Passwords</DatabaseName><CustomData><Item><Key>FDO_SECRETS_EXPOSED_GROUP</Key>
<Value>{01020304-0506-0708-090a-0b0c0d0e0f10}</Value></Item></CustomData></Meta>
<Root><Group><UUID>AQIDBAUGBwgJCgsMDQ4PEA==</UUID><Name>Root</Name></Group></Root></KeePassFile>`

// slow bounds a call to KeePassXC, which writes and encrypts its whole database for each change.
const slow = 15 * time.Second

// startKeePassXC starts a KeePassXC with its Secret Service, without a display, and waits for its collection. It opens no
// database if open is false.
func startKeePassXC(t *testing.T, open bool, settings ...string) {
	t.Helper()
	for _, program := range []string{"keepassxc", "keepassxc-cli"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is missing: install the package keepassxc", program)
		}
	}
	home := t.TempDir()
	config := filepath.Join(home, "keepassxc.ini")
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(config, "[General]\nConfigVersion=2\n[FdoSecrets]\nEnabled=true\nShowNotification=false\nConfirmDeleteItem=false\n"+
		strings.Join(settings, "\n")+"\n[GUI]\nCheckForUpdates=false\n")
	write(filepath.Join(home, "db.xml"), keePassXML)
	database := filepath.Join(home, "db.kdbx")
	convert := exec.Command("keepassxc-cli", "import", "-p", filepath.Join(home, "db.xml"), database)
	convert.Stdin = strings.NewReader("password\npassword\n")
	if out, err := convert.CombinedOutput(); err != nil {
		t.Fatalf("making a KeePassXC database: %v\n%s", err, out)
	}
	args := []string{"--config", config, "--localconfig", filepath.Join(home, "local.ini")}
	if open {
		args = append(args, "--pw-stdin", database)
	}
	cmd := exec.Command("keepassxc", args...)
	// TMPDIR holds the lock that lets one KeePassXC of a user run.
	cmd.Env = append(os.Environ(), "QT_QPA_PLATFORM=offscreen", "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home, "TMPDIR="+home)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.Stdin = strings.NewReader("password\n")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the output of KeePassXC:\n%s", output.String())
		}
	})
	bus, err := dbus.ConnectSessionBus()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bus.Close() }()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var all []dbus.ObjectPath
		err := bus.Object(secretsName, secretsPath).StoreProperty(secretsService+".Collections", &all)
		locked := true
		if err == nil && len(all) > 0 {
			err = bus.Object(secretsName, all[0]).StoreProperty(secretsCollection+".Locked", &locked)
		}
		if err == nil && (len(all) > 0) == open && locked != open {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("KeePassXC: got %v, %v; want a collection: %t", all, err, open)
		}
	}
}

// K1–K4, K7 with a real KeePassXC: no database, its default settings, locked. It is the only service known whose every write has
// a prompt, and which decides for each connection.
func TestKeePassXC(t *testing.T) {
	if !onBus(t) {
		return
	}
	back := &secretService{}
	t.Cleanup(back.close)
	service := uniqueService(t)
	k := newKeychain(back, Options{Service: service, Timeout: slow})
	startKeePassXC(t, true)
	testBackEnd(t, back, service, MaxValue)
	if err := k.Set(t.Context(), RefreshToken, messages.NewSecret("kept")); err != nil {
		t.Fatal(err)
	}

	t.Run("encrypted", func(t *testing.T) {
		recorded := eavesdrop(t)
		if err := k.Set(t.Context(), AccessToken, messages.NewSecret("not in plain text")); err != nil {
			t.Fatal(err)
		}
		if text := recorded(); strings.Contains(text, "not in plain text") || !strings.Contains(text, "SetSecret") {
			t.Errorf("the monitor: got the value in plain text %t, SetSecret %t; want false, true",
				strings.Contains(text, "not in plain text"), strings.Contains(text, "SetSecret"))
		}
	})
	t.Run("another connection may not read without the user", func(t *testing.T) {
		stranger := &secretService{}
		defer stranger.close()
		other := newKeychain(stranger, Options{Service: service, Timeout: 2 * time.Second})
		_, _, err := other.Get(t.Context(), RefreshToken)
		wantReason(t, err, messages.ReasonKeychainLocked)
		wantReason(t, other.Set(t.Context(), RefreshToken, messages.NewSecret("overwritten")), messages.ReasonKeychainLocked)
		wantReason(t, other.Delete(t.Context(), RefreshToken), messages.ReasonKeychainLocked)
		wantValue(t, k, RefreshToken, "kept")
	})
	t.Run("locked is not signed out", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		changed, ended := make(chan struct{}, 100), make(chan struct{})
		go func() {
			defer close(ended)
			Watch(ctx, BackendSecretService, func() { changed <- struct{}{} })
		}()
		defer func() { cancel(); <-ended }()
		settleWatch(t)
		lockCollections(t)
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Error("Watch: got no change, want one when the database was locked")
		}
		_, _, err := k.Get(t.Context(), RefreshToken)
		wantReason(t, err, messages.ReasonKeychainLocked)
		wantReason(t, k.Set(t.Context(), AccessToken, messages.NewSecret("v")), messages.ReasonKeychainLocked)
		wantReason(t, k.Delete(t.Context(), RefreshToken), messages.ReasonKeychainLocked)
		_, _, err = k.Get(Ask(t.Context()), RefreshToken) // a dialog that has no user here
		wantReason(t, err, messages.ReasonKeychainLocked)
	})
}

// K7: KeePassXC without an open database is distinguished from an absent service.
func TestKeePassXCWithoutDatabase(t *testing.T) {
	if !onBus(t) {
		return
	}
	back := &secretService{}
	t.Cleanup(back.close)
	k := newKeychain(back, Options{Service: uniqueService(t), Timeout: slow})
	startKeePassXC(t, false)
	_, _, err := k.Get(t.Context(), AccessToken)
	wantReason(t, err, messages.ReasonKeychainNoCollection)
}

// A5: the loopback token is read regularly. KeePassXC may show a notification for each read, so an item that was not modified
// is not read again, and a modified one is.
func TestKeePassXCReadsOnce(t *testing.T) {
	if !onBus(t) {
		return
	}
	back := &secretService{}
	t.Cleanup(back.close)
	service := uniqueService(t)
	k := newKeychain(back, Options{Service: service, Timeout: slow})
	startKeePassXC(t, true, "ConfirmAccessItem=false")
	if err := k.Set(t.Context(), LoopbackToken, messages.NewSecret("first")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2100 * time.Millisecond) // the time of a change has a resolution of one second
	wantValue(t, k, LoopbackToken, "first")
	recorded := eavesdrop(t)
	for range 5 {
		wantValue(t, k, LoopbackToken, "first")
	}
	if text := recorded(); strings.Contains(text, "GetSecret") {
		t.Errorf("the monitor: got a GetSecret for an unchanged item, want none")
	}
	stranger := &secretService{}
	defer stranger.close()
	other := newKeychain(stranger, Options{Service: service, Timeout: slow})
	if err := other.Set(t.Context(), LoopbackToken, messages.NewSecret("second")); err != nil {
		t.Fatal(err)
	}
	wantValue(t, k, LoopbackToken, "second")
}

// lockCollections locks every collection of the service.
func lockCollections(t *testing.T) {
	t.Helper()
	bus, err := dbus.ConnectSessionBus()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bus.Close() }()
	var all, locked []dbus.ObjectPath
	var prompt dbus.ObjectPath
	if err := bus.Object(secretsName, secretsPath).StoreProperty(secretsService+".Collections", &all); err != nil {
		t.Fatal(err)
	}
	if err := bus.Object(secretsName, secretsPath).Call(secretsService+".Lock", 0, all).Store(&locked, &prompt); err != nil {
		t.Fatal(err)
	}
	if prompt != noPrompt {
		if err := bus.Object(secretsName, prompt).Call(secretsPrompt+".Prompt", 0, "").Err; err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		is := false
		if err := bus.Object(secretsName, all[0]).StoreProperty(secretsCollection+".Locked", &is); err != nil {
			t.Fatal(err)
		}
		if is {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the collection: got unlocked, want locked")
		}
	}
}

// close closes the kept connection. KeePassXC forgets what the user has allowed.
func (s *secretService) close() {
	s.mu.Lock()
	l := s.kept
	s.kept, s.seen = nil, seenItem{}
	s.mu.Unlock()
	if l != nil {
		l.close()
	}
}
