//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"companion/e2e/harness"
)

// TestServiceUnderSystemd runs `companion service` under a real systemd user manager, in mount namespace, cgroup and
// home folder of its own: installed twice, killed, uninstalled while it runs. // X7
// O12: the service has no display. The command line opens the browser, and the sign-in outlives the service's restarts.
func TestServiceUnderSystemd(t *testing.T) {
	if page := os.Getenv("E2E_BROWSE"); page != "" { // the browser of login
		visit, err := (&harness.Hub{CAFile: os.Getenv("E2E_CA")}).Browse(t.Context(), page)
		if err != nil || !strings.Contains(visit.Page, "signed in") {
			t.Fatalf("the browser: got %q, %v; want the page that says so", visit.Page, err)
		}
		return
	}
	for _, tool := range []string{"/lib/systemd/systemd", "systemctl", "dbus-daemon", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("a mount namespace of its own needs root")
	}
	home := t.TempDir()
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte(serviceScript), 0o600); err != nil {
		t.Fatal(err)
	}
	hub := harness.NewHub(t)
	c := hub.Companion("")
	service := c.Service
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	browser := filepath.Join(t.TempDir(), "browser")
	if err := os.WriteFile(browser, []byte("#!/bin/sh\necho \"$1\" >>\"$0.opened\"\nE2E_BROWSE=\"$1\" exec "+self+" -test.run '^TestServiceUnderSystemd$'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "bash", script)
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "COMPANION=" + harness.Binary(t, "companion"), "SERVICE=" + service,
		"CONFIG=" + c.ConfigFile(), "OPENER=" + browser, "E2E_CA=" + hub.CAFile}
	cmd.WaitDelay = 5 * time.Second
	t.Cleanup(func() {
		for _, tree := range []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup"} {
			removeGroups(filepath.Join(tree, service))
		}
	})
	out, err := cmd.CombinedOutput()
	text := string(out)
	if strings.Contains(text, "NO MANAGER") {
		t.Skipf("no user manager runs here: %s", text)
	}
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	if opened, err := os.ReadFile(browser + ".opened"); err != nil || strings.Count(string(opened), "\n") != 1 {
		t.Errorf("the browser: got it opened for %q (%v), want one page", opened, err)
	}
	for _, want := range []string{"before 3", "install 0", "running 0", "again 0", "another process yes", "restarted yes", "aborted yes", "login 0", "who 0", "who again 0", "second 8", "broken 2", "uninstall 0", "twice 0", "left 0", "log kept yes", "ended 3"} {
		if !strings.Contains(text, "RESULT "+want+"\n") {
			t.Errorf("got no RESULT %s, want it:\n%s", want, text)
		}
	}
}

// removeGroups removes an empty tree of control groups.
func removeGroups(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		if entry.IsDir() {
			removeGroups(filepath.Join(dir, entry.Name()))
		}
	}
	_ = os.Remove(dir)
}

const serviceScript = `
mount -t proc proc /proc
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system /run/user/0 && chmod 700 /run/user/0
export XDG_RUNTIME_DIR=/run/user/0 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/0/bus
for tree in /sys/fs/cgroup/systemd /sys/fs/cgroup; do
  if mkdir -p $tree/$SERVICE 2>/dev/null && echo $$ >$tree/$SERVICE/cgroup.procs 2>/dev/null; then break; fi
done
dbus-daemon --session --address=$DBUS_SESSION_BUS_ADDRESS --nofork --nopidfile 2>/dev/null &
/lib/systemd/systemd --user >/dev/null 2>&1 &
for i in $(seq 50); do systemctl --user show-environment >/dev/null 2>&1 && break; sleep 0.2; done
systemctl --user show-environment >/dev/null 2>&1 || { echo NO MANAGER; exit 0; }
mkdir -p $HOME/.config/companion
cp $CONFIG $HOME/.config/companion/config.toml
main() { systemctl --user show companion -p MainPID --value; }
answers() { for i in $(seq 100); do $COMPANION status >/dev/null 2>&1 && return 0; sleep 0.2; done; return 1; }
$COMPANION service status >/dev/null; echo "RESULT before $?"
$COMPANION service install; echo "RESULT install $?"
answers; $COMPANION service status; echo "RESULT running $?"
FIRST=$(main)
$COMPANION service install; echo "RESULT again $?"
answers; [ "$(main)" != "$FIRST" ] && echo "RESULT another process yes"
BROWSER=$OPENER $COMPANION login; echo "RESULT login $?"
$COMPANION whoami; echo "RESULT who $?"
SECOND=$(main); kill -9 $SECOND; sleep 1; answers
[ "$(main)" != "$SECOND" ] && [ "$(main)" != 0 ] && echo "RESULT restarted yes"
THIRD=$(main); kill -ABRT $THIRD; sleep 1; answers # as the watchdog does
[ "$(main)" != "$THIRD" ] && [ "$(main)" != 0 ] && echo "RESULT aborted yes"
$COMPANION whoami; echo "RESULT who again $?"
timeout 10 $COMPANION run; echo "RESULT second $?"
$COMPANION --set model.context=1 service install; echo "RESULT broken $?"
$COMPANION service uninstall; echo "RESULT uninstall $?"
$COMPANION service uninstall; echo "RESULT twice $?"
echo "RESULT left $(find $HOME -name '*.service*' | wc -l)"
[ -s $HOME/.local/state/companion/companion.log ] && echo "RESULT log kept yes"
$COMPANION status; echo "RESULT ended $?"
exit 0
`
