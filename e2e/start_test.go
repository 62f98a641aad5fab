package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"companion/adapters/authority/keychain"
	"companion/adapters/door/loopback"
	"companion/e2e/harness"
	"companion/messages"
)

const endWithin = 30 * time.Second

// X1: a second daemon reports the first and ends with 8; the first is not affected.
func TestSecondDaemon(t *testing.T) {
	c := harness.NewHub(t).Companion("")
	first := c.Start()
	second := c.Launch()
	if code := second.Wait(endWithin); code != 8 {
		t.Errorf("the second daemon ended with %d, want 8", code)
	}
	if !strings.Contains(second.Output(), "already runs") {
		t.Errorf("it says %q, want already runs", second.Output())
	}
	if status, answered := c.Status(); !answered || status.PID != first.PID {
		t.Error("the first daemon no longer answers, want it running")
	}
	first.Stop()
}

// X1, T4: of two simultaneous starts, in new and in used folders, one serves; the other reports it, ends with
// 8 and breaks nothing.
func TestTwoStartsAtOnce(t *testing.T) {
	hub := harness.NewHub(t)
	for range 4 {
		c := hub.Companion("")
		for range 2 {
			both := []*harness.Process{c.Launch(), c.Launch()}
			for began := time.Now(); both[0].Running() && both[1].Running(); time.Sleep(10 * time.Millisecond) {
				if time.Since(began) > endWithin {
					t.Fatal("both go on")
				}
			}
			serves, ends := both[0], both[1]
			if ends.Running() {
				serves, ends = ends, serves
			}
			if code := ends.Wait(endWithin); code != 8 || !strings.Contains(ends.Output(), "already runs") {
				t.Fatalf("one ended with %d, want 8:\n%s", code, ends.Output())
			}
			c.Daemon = serves
			status := c.Await("serving", time.Minute, func(s messages.Status) bool {
				return s.PID == serves.PID && s.Facts.Bound && s.Facts.Token
			})
			endpoint, err := loopback.ReadEndpoint(filepath.Join(c.RunTime(), "endpoint.json"))
			if err != nil || endpoint.PID != serves.PID || endpoint.BaseURL != status.FrontDoor.BaseURL {
				t.Errorf("got endpoint file %+v, %v, want process %d at %s", endpoint, err, serves.PID, status.FrontDoor.BaseURL)
			}
			if baseURL, _ := c.Endpoint(); baseURL != status.FrontDoor.BaseURL {
				t.Errorf("env says %s, want %s", baseURL, status.FrontDoor.BaseURL)
			}
			t.Logf("the first of the two serves: %v", serves == both[0])
			c.Stop()
		}
	}
}

// X5: a configuration with an unknown key or a wrong value is refused with file, line and the accepted
// values, by run and by check, before anything else happens.
func TestBadConfiguration(t *testing.T) {
	hub := harness.NewHub(t)
	for name, test := range map[string]struct {
		more string
		line int // of more
		says string
	}{
		"unknown key":   {"[model]\nnam = \"x\"", 2, "model.nam: "},
		"unknown table": {"[modle]\nname = \"x\"", 1, "modle: "},
		"wrong type":    {"[model]\ncontext = \"many\"", 2, "model.context: "},
		"open address":  {"[front_door]\naddress = \"0.0.0.0\"", 2, "127.0.0.1"},
		"no sandbox":    {"[runtime]\nsandbox = \"off\"", 2, "require"},
		"unknown level": {"[log]\nlevel = \"loud\"", 2, "debug"},
	} {
		t.Run(name, func(t *testing.T) {
			c := hub.Companion(test.more + "\n")
			config, err := os.ReadFile(c.ConfigFile())
			if err != nil {
				t.Fatal(err)
			}
			where := fmt.Sprintf("%s:%d: ", c.ConfigFile(), strings.Count(string(config), "\n")-2+test.line)
			daemon := c.Launch()
			code, output := daemon.Wait(endWithin), daemon.Output()
			check := c.Run("config", "check")
			if code != 2 || check.Code != 2 {
				t.Errorf("run ended with %d, config check with %d, want 2", code, check.Code)
			}
			for _, text := range []string{output, check.Stderr} {
				if _, after, ok := strings.Cut(text, where); !ok || !strings.Contains(after, test.says) {
					t.Errorf("it says %q, want %q and then %q", text, where, test.says)
				}
			}
			if _, err := os.Stat(c.State()); !os.IsNotExist(err) {
				t.Errorf("got %v, want nothing made", err)
			}
		})
	}
}

// K3: without the configured keychain the daemon ends with 7, and the token is stored nowhere else.
func TestNoKeychain(t *testing.T) {
	c := harness.NewHub(t).Companion("")
	c.Edit("kernel-keyring", "secret-service")
	c.Extra = []string{"DBUS_SESSION_BUS_ADDRESS=unix:path=" + filepath.Join(c.Home, "no-bus")}
	daemon := c.Launch()
	if code := daemon.Wait(endWithin); code != 7 {
		t.Errorf("run ended with %d, want 7:\n%s", code, daemon.Output())
	}
	for _, account := range []keychain.Account{keychain.LoopbackToken, keychain.AccessToken, keychain.RefreshToken, keychain.SessionMetadata} {
		if _, found := c.Secret(account); found {
			t.Errorf("%v is in the kernel keyring, want it in no keychain", account)
		}
	}
	for _, file := range harness.Files(t, c.Home) {
		switch name := filepath.Base(file); {
		case strings.HasSuffix(name, ".log"), name == "config.toml", name == "lock":
		case name == "pin.key": // authenticates the records of verified files, and opens nothing
		default:
			t.Errorf("the daemon left %s, want nothing", file)
		}
	}
	if r := c.Run("env"); r.Code != 3 {
		t.Errorf("env: exit %d, want 3", r.Code)
	}
}

// T17, M7, X2: a folder of the companion that others may enter, that is a link, or that belongs to another
// user is refused; the message names it and what would be right.
func TestFoldersOfOthers(t *testing.T) {
	hub := harness.NewHub(t)
	type attack struct {
		make func(dir string) error
		says string
	}
	attacks := map[string]attack{
		"mode 0755": {func(dir string) error {
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
			return os.Chmod(dir, 0o755)
		}, "mode 0700"},
		"a link": {func(dir string) error {
			if err := os.Mkdir(dir+"-real", 0o700); err != nil {
				return err
			}
			return os.Symlink(dir+"-real", dir)
		}, "a symbolic link"},
		"a file": {func(dir string) error { return os.WriteFile(dir, nil, 0o600) }, "not a directory"},
	}
	if os.Geteuid() == 0 { // only root can give a folder away
		attacks["another owner"] = attack{func(dir string) error {
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
			return os.Chown(dir, 65534, 65534)
		}, "owner 65534"}
	}
	for name, attack := range attacks {
		for place, dir := range map[string]func(*harness.Companion) string{
			"state": (*harness.Companion).State, "data": (*harness.Companion).Data, "run-time": (*harness.Companion).RunTime,
		} {
			t.Run(place+" folder, "+name, func(t *testing.T) {
				c := hub.Companion("")
				if err := attack.make(dir(c)); err != nil {
					t.Fatal(err)
				}
				daemon := c.Launch()
				if code := daemon.Wait(endWithin); code != 1 {
					t.Errorf("run ended with %d, want 1", code)
				}
				if _, after, ok := strings.Cut(daemon.Output(), dir(c)); !ok || !strings.Contains(after, attack.says) {
					t.Errorf("it says %q, want the folder and then %q", daemon.Output(), attack.says)
				}
				if _, found := c.Secret(keychain.LoopbackToken); found {
					t.Error("a token was stored, want none")
				}
			})
		}
	}
}
