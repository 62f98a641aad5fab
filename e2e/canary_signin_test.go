package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"companion/adapters/authority/keychain"
	"companion/cmd/devhub/fault"
	"companion/e2e/harness"
	"companion/messages"
)

// J4, T5, T12, X8: the other paths of tokens at the most verbose level: device authorization, a sign-in that replaces another, a
// revocation that waits for the hub, a refresh that is cut off by SIGKILL, tokens that are refused, and a crash that would write a
// core file. Afterwards no token is in a log, an output, an error, an argument list or a file.
func TestCanaryOfSignIn(t *testing.T) {
	c := &canary{t: t, secrets: map[string]string{}}
	hub := harness.NewHub(t)
	house := hub.Companion("[log]\nlevel = \"debug\"\n")
	learn := func(when string) {
		t.Helper()
		for account, what := range map[keychain.Account]string{
			keychain.AccessToken: "access token", keychain.RefreshToken: "refresh token", keychain.LoopbackToken: "loopback token",
		} {
			if secret, found := house.Secret(account); found {
				c.know(what+" "+when, secret)
			} else if account != keychain.LoopbackToken {
				t.Fatalf("%s: got no %s in the keychain, want one", when, what)
			}
		}
	}
	daemon := house.Start()
	house.SignIn()
	learn("of the first sign-in")
	device := house.DeviceLogin()
	c.look("output of login --device", device.Stdout)
	learn("of the device")

	hub.Fault(string(fault.ServerError), true)
	c.run(house, "logout") // the revocation waits for the hub
	c.run(house, "status", "--json")
	c.run(house, "whoami")
	hub.Fault(string(fault.ServerError), false)
	house.SignIn()
	learn("of the sign-in after the outage")

	hub.Fault(string(fault.LostResponse), true)
	harness.RefuseAccessToken(house, hub)
	house.Await("signed out", time.Minute, func(s messages.Status) bool { return s.Session.State == messages.SessionSignedOut })
	hub.Fault(string(fault.LostResponse), false)
	c.run(house, "whoami")
	house.SignIn()
	learn("of the sign-in after the lost answer")

	hub.Fault(string(fault.SlowToken), true)
	harness.RefuseAccessToken(house, hub)
	note := filepath.Join(house.State(), "session.json")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if data, err := os.ReadFile(note); err == nil && strings.Contains(string(data), "nFlight") {
			c.look("note of a refresh in flight", string(data))
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the note of a refresh in flight: got none, want one")
		}
	}
	c.process("daemon that refreshes", daemon.PID)
	daemon.Kill()
	hub.Fault(string(fault.SlowToken), false)
	c.look("output of the first daemon", daemon.Output())

	allowCoreFiles(t)
	house.Extra = []string{"GOTRACEBACK=crash"} // a Go program ends with a core file then, if it may write one
	daemon = house.Start()
	house.SignIn()
	learn("of the sign-in after SIGKILL")
	c.run(house, "status")
	bundle := filepath.Join(house.Home, "bundle.txt")
	c.run(house, "doctor", "--bundle", bundle)
	c.run(house, "metrics")
	t.Run("core file", func(t *testing.T) { crash(t, daemon) })
	c.look("output of the daemon that crashed", daemon.Output())
	c.look("log", house.Log())
	looked := 0
	for _, file := range harness.Files(t, house.Home) {
		if data, err := os.ReadFile(file); err == nil { // not a socket
			c.look("file "+strings.TrimPrefix(file, house.Home), string(data))
			looked++
		}
	}
	if looked < 6 {
		t.Errorf("files: got %d, want at least 6", looked)
	}
	if len(c.secrets) < 10 {
		t.Errorf("secrets: got %d, want at least 10", len(c.secrets))
	}
	if found := c.find(); len(found) != 0 {
		t.Errorf("got secrets, want none:\n%s", strings.Join(found, "\n"))
	}
}

// allowCoreFiles lets the programs that the test starts write core files.
func allowCoreFiles(t *testing.T) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: before.Max, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_CORE, &before) })
}

// crash ends the daemon by SIGABRT and checks that it leaves no core file where another program does.
func crash(t *testing.T, daemon *harness.Process) {
	ordinary := exec.Command("sleep", "60")
	ordinary.Dir = t.TempDir()
	if err := ordinary.Start(); err != nil {
		t.Fatal(err)
	}
	_ = ordinary.Process.Signal(syscall.SIGABRT)
	_ = ordinary.Wait()
	// The daemon has lowered its own limit. Where the test may lift it again, what is left is that the process is not dumpable.
	_ = unix.Prlimit(daemon.PID, unix.RLIMIT_CORE, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}, nil)
	daemon.Signal(syscall.SIGABRT)
	daemon.Wait(time.Minute)
	if status, ok := ordinary.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.CoreDump() {
		t.Skip("this system writes no core file for any program: nothing is proven")
	}
	if daemon.Dumped() {
		t.Error("the daemon: got a core file, want none")
	}
}
