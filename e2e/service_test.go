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
// home folder of its own: installed twice, killed, its binary replaced, uninstalled while it runs. The unit's hardening
// leaves the runtime's own sandbox as it is without a manager. // X7
// O12: the service has no display. The command line opens the browser, and the sign-in outlives the service's restarts.
func TestServiceUnderSystemd(t *testing.T) {
	if page := os.Getenv("E2E_BROWSE"); page != "" { // the browser of login
		visit, err := (&harness.Hub{CAFile: os.Getenv("E2E_CA")}).Browse(t.Context(), page)
		if err != nil || !strings.Contains(visit.Page, "signed in") {
			t.Fatalf("the browser: got %q, %v; want the page that says so", visit.Page, err)
		}
		return
	}
	text, opener := underUserManager(t, serviceScript)
	if opened, err := os.ReadFile(opener + ".opened"); err != nil || strings.Count(string(opened), "\n") != 1 {
		t.Errorf("the browser: got it opened for %q (%v), want one page", opened, err)
	}
	for _, want := range []string{"before 3", "install 0", "running 0", "again 0", "another process yes", "restarted yes", "aborted yes",
		"login 0", "who 0", "who again 0", "available 0", "landlock yes", "seccomp yes", "answer 0", "upgrade 0", "new binary yes", "upgraded 0",
		"second 8", "broken 2", "uninstall 0", "twice 0", "left 0", "no runtime left yes", "log kept yes", "model kept 1", "ended 3"} {
		if !strings.Contains(text, "RESULT "+want+"\n") {
			t.Errorf("got no RESULT %s, want it:\n%s", want, text)
		}
	}
}

// underUserManager runs a script under a systemd user manager of its own, with a companion whose hub offers the real model
// and runtime. It returns what the script said, and the program that stands for the browser.
func underUserManager(t testing.TB, script string, environ ...string) (text, opener string) {
	t.Helper()
	for _, tool := range []string{"/lib/systemd/systemd", "systemctl", "dbus-daemon", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("a mount namespace of its own needs root")
	}
	home := t.TempDir()
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte(managerScript+script), 0o600); err != nil {
		t.Fatal(err)
	}
	hub := harness.RealHub(t)
	c := hub.Companion("")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	opener = filepath.Join(t.TempDir(), "browser")
	if err := os.WriteFile(opener, []byte("#!/bin/sh\necho \"$1\" >>\"$0.opened\"\nE2E_BROWSE=\"$1\" exec "+self+" -test.run '^TestServiceUnderSystemd$'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "bash", file)
	cmd.Env = append(environ, "HOME="+home, "PATH="+os.Getenv("PATH"), "BUILT="+harness.Binary(t, "companion"), "SERVICE="+c.Service,
		"CONFIG="+c.ConfigFile(), "OPENER="+opener, "E2E_CA="+hub.CAFile)
	cmd.WaitDelay = 5 * time.Second
	t.Cleanup(func() {
		for _, tree := range []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup"} {
			removeGroups(filepath.Join(tree, c.Service))
		}
	})
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "NO MANAGER") {
		t.Skipf("no user manager runs here: %s", out)
	}
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	return string(out), opener
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

// managerScript starts the manager. The program lies in a folder of the home, as after an installation.
const managerScript = `
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
mkdir -p $HOME/bin && cp $BUILT $HOME/bin/companion
COMPANION=$HOME/bin/companion
main() { systemctl --user show companion -p MainPID --value; }
answers() { for i in $(seq 100); do $COMPANION status >/dev/null 2>&1 && return 0; sleep 0.2; done; return 1; }
`

const serviceScript = `
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
$COMPANION status --wait --timeout 3m >/dev/null; echo "RESULT available $?"
STATUS=$($COMPANION status --json)
echo "$STATUS" | grep -q '"landlock":0' || echo "RESULT landlock yes"
echo "$STATUS" | grep -q '"seccomp":true' && echo "RESULT seccomp yes"
$COMPANION chat --max-tokens 4 Hello >/dev/null; echo "RESULT answer $?"
cp $BUILT $HOME/bin/new && printf x >>$HOME/bin/new && mv $HOME/bin/new $HOME/bin/companion
$COMPANION service install; echo "RESULT upgrade $?"
answers; cmp -s /proc/$(main)/exe $HOME/bin/companion && ! cmp -s /proc/$(main)/exe $BUILT && echo "RESULT new binary yes"
$COMPANION status --wait --timeout 3m >/dev/null && $COMPANION whoami; echo "RESULT upgraded $?"
RUNTIME=$($COMPANION status --json | grep -o '"runtime":{[^}]*"pid":[0-9]*' | grep -o '[0-9]*$')
timeout 10 $COMPANION run; echo "RESULT second $?"
$COMPANION --set model.context=1 service install; echo "RESULT broken $?"
$COMPANION service uninstall; echo "RESULT uninstall $?"
$COMPANION service uninstall; echo "RESULT twice $?"
echo "RESULT left $(find $HOME -name '*.service*' | wc -l)"
[ -n "$RUNTIME" ] && [ ! -d /proc/$RUNTIME ] && echo "RESULT no runtime left yes"
echo "RESULT model kept $(ls $HOME/.local/share/companion/models/*.gguf | wc -l)"
[ -s $HOME/.local/state/companion/companion.log ] && echo "RESULT log kept yes"
$COMPANION status; echo "RESULT ended $?"
exit 0
`
