package browser

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"companion/e2e/harness"
)

// strangerSocket is the environment variable that turns this test binary into a program that connects to a
// socket and reports the result.
const strangerSocket = "E2E_STRANGER_SOCKET"

// Reports of the stranger.
const (
	denied   = "denied"   // could not connect, for want of permission
	hungUp   = "hung up"  // connected and got nothing
	answered = "answered" // got at least a byte
)

// Uid of a user who owns no file here.
const nobody = 65534

func beStranger(socket string) int {
	said, err := call(socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Print(said)
	return 0
}

func call(socket string) (string, error) {
	conn, err := net.Dial("unix", socket)
	if errors.Is(err, syscall.EACCES) {
		return denied, nil
	}
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: companion\r\n\r\n")
	if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return "", err
	} else if err != nil {
		return hungUp, nil
	}
	return answered, nil
}

// X2, R3, T3: another user cannot connect to the control socket or to the runtime's. The mode of the folder
// and the mode of the socket refuse independently, and the control socket also checks the peer's uid.
func testStranger(t *testing.T, c *harness.Companion) {
	sockets := map[string]string{"control.sock": "", "llama.sock": ""}
	var folders []string
	err := filepath.WalkDir(c.RunTime(), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type() == fs.ModeSocket {
			sockets[entry.Name()] = path
			folders = append(folders, filepath.Dir(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// Folders above the companion's own are not under test.
	for dir := filepath.Dir(c.RunTime()); len(dir) >= len(c.Home); dir = filepath.Dir(dir) {
		open(t, dir, 0o755)
	}
	program := sharedProgram(t)
	ask := func(name, want string, as func(string) *exec.Cmd) {
		t.Helper()
		if said := say(t, as(program), sockets[name]); said != want {
			t.Errorf("%s: %q, want %q", name, said, want)
		}
	}
	for name := range sockets {
		ask(name, answered, asOwner) // the stranger's words can be trusted
		ask(name, denied, asStranger)
	}
	for _, dir := range folders {
		open(t, dir, 0o755)
	}
	for name := range sockets {
		ask(name, denied, asStranger)
	}
	open(t, sockets["control.sock"], 0o666)
	ask("control.sock", hungUp, asStranger)
	ask("control.sock", answered, asOwner)
}

// open changes the mode of path until the test ends.
func open(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	before, err := os.Stat(path)
	if err == nil {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		t.Fatalf("opening a place to others: %v", err)
	}
	t.Cleanup(func() { _ = os.Chmod(path, before.Mode().Perm()) })
}

// sharedProgram copies this test binary to a place where every user may run it.
func sharedProgram(t *testing.T) string {
	t.Helper()
	dir := harness.TempDir(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "stranger")
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	open(t, dir, 0o755)
	return program
}

func asOwner(program string) *exec.Cmd { return exec.Command(program) }

// asStranger runs program as another user: directly for root, otherwise in a user namespace.
func asStranger(program string) *exec.Cmd {
	if os.Geteuid() == 0 {
		cmd := asOwner(program)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		return cmd
	}
	return exec.Command("unshare", "--user", "--map-root-user", "--map-auto", "--setuid", "1", "--setgid", "1", "--", program)
}

func say(t *testing.T, cmd *exec.Cmd, socket string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", []string{strangerSocket + "=" + socket}, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("acting as another user takes root, or unshare of util-linux 2.38 with newuidmap (package uidmap)"+
			" and a range in /etc/subuid and /etc/subgid: %v\n%s", err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String()
}
