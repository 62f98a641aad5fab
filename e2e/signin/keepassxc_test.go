//go:build keepassxc

package signin

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"companion/e2e/harness"
	"companion/messages"
)

// K2, K7: KeePassXC, without a display, holds the session across restarts of the built daemon.
func TestKeePassXC(t *testing.T) {
	home := harness.TempDir(t)
	bus := sessionBus(t, home)
	for name, text := range map[string]string{
		"keepassxc.ini": "[General]\nConfigVersion=2\n[FdoSecrets]\nEnabled=true\nConfirmAccessItem=false\n[GUI]\nCheckForUpdates=false\n",
		"db.xml": `<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<KeePassFile><Meta><CustomData><Item><Key>FDO_SECRETS_EXPOSED_GROUP</Key><Value>{01020304-0506-0708-090a-0b0c0d0e0f10}</Value></Item>
</CustomData></Meta><Root><Group><UUID>AQIDBAUGBwgJCgsMDQ4PEA==</UUID><Name>Root</Name></Group></Root></KeePassFile>`,
	} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	database := filepath.Join(home, "db.kdbx")
	convert := exec.Command(program(t, "keepassxc-cli"), "import", "-p", filepath.Join(home, "db.xml"), database)
	convert.Stdin = strings.NewReader("password\npassword\n")
	if out, err := convert.CombinedOutput(); err != nil {
		t.Fatalf("making a KeePassXC database: %v\n%s", err, out)
	}
	onBus(t, bus, home, []string{"QT_QPA_PLATFORM=offscreen", "XDG_CONFIG_HOME=" + home, "XDG_CACHE_HOME=" + home, "TMPDIR=" + home},
		"password\n", "keepassxc", "--config", filepath.Join(home, "keepassxc.ini"), "--localconfig", filepath.Join(home, "local.ini"), "--pw-stdin", database)
	c := harness.NewHub(t).Companion("")
	c.Edit(`backend = "kernel-keyring"`, `backend = "secret-service"`)
	c.Extra = []string{bus}
	c.Start()
	stored := func(s messages.Status) bool { return s.Facts.Token }
	c.Await("the token stored, once the database is open", harness.AvailableWithin, stored)
	c.SignIn()
	c.Daemon.Stop()
	c.Start()
	c.Await("the session of KeePassXC", harness.AvailableWithin, func(s messages.Status) bool {
		return s.Session.State == messages.SessionSignedIn && stored(s)
	})
	c.Must("whoami")
	c.Must("logout")
	c.Daemon.Stop()
	c.Start()
	c.Await("no session", harness.AvailableWithin, func(s messages.Status) bool { return s.Session.State == messages.SessionSignedOut })
}
