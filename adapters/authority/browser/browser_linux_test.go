package browser

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const start = "http://127.0.0.1:4321/start/abc"

// plant puts a program of this name into a folder that becomes the whole PATH, and returns the file that it may write.
func plant(t *testing.T, name, script string) (out string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Setenv("BROWSER", "")
	t.Setenv("OUT", filepath.Join(dir, "out"))
	return filepath.Join(dir, "out")
}

// O1, O12: the opener gets the page and nothing else, whichever opener there is.
func TestOpen(t *testing.T) {
	for _, name := range []string{"xdg-open", "wslview", "my-browser"} {
		for _, page := range []string{start, "http://[::1]:4321/start/abc", "https://hub.example/device?user_code=ABCD-EFGH"} {
			out := plant(t, name, `printf '%s\n' "$@" > "$OUT"`)
			t.Setenv("BROWSER", map[string]string{"my-browser": name}[name])
			if err := Open(t.Context(), page); err != nil {
				t.Fatalf("%s %s: %v", name, page, err)
			}
			got, err := os.ReadFile(out)
			if err != nil || string(got) != page+"\n" {
				t.Errorf("%s got the arguments %q (%v), want %q", name, got, err, page)
			}
		}
	}
}

// O12: a folder for temporary files that does not exist keeps no browser from opening.
func TestOpenWithoutTemporaryFolder(t *testing.T) {
	out := plant(t, "xdg-open", `printf '%s\n' "$@" > "$OUT"`)
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "missing"))
	if err := Open(t.Context(), start); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(out); err != nil || string(got) != start+"\n" {
		t.Errorf("the opener: got %q (%v), want %q", got, err, start)
	}
}

// O12: the opener runs in a session of its own, so that neither an interrupt in the terminal nor the end of the command
// ends the browser, and Open returns while it runs.
func TestOpenerOutlives(t *testing.T) {
	out := plant(t, "xdg-open", `echo $$ > "$OUT"; read -r line < "$OUT.go" || true`)
	if err := unix.Mkfifo(out+".go", 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Open(t.Context(), start); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("the opener has ended: %v", err)
	}
	if session, err := unix.Getsid(pid); err != nil || session != pid {
		t.Errorf("the opener's session is %d (%v), want its own, %d", session, err, pid)
	}
	gate, err := os.OpenFile(out+".go", os.O_WRONLY, 0) // lets the opener end
	if err != nil {
		t.Fatal(err)
	}
	gate.Close()
}

func TestOpenFails(t *testing.T) {
	check := func(err error) {
		t.Helper()
		var e *Error
		if !errors.As(err, &e) || e.Reason != messages.ReasonBrowserFailed {
			t.Fatalf("got %v, want an *Error with %s", err, messages.ReasonBrowserFailed)
		}
	}
	plant(t, "xdg-open", "exit 3")
	check(Open(t.Context(), start))
	t.Setenv("PATH", t.TempDir())
	check(Open(t.Context(), start))
}

// O1: nothing but a plain path on loopback, or an https page, reaches a program argument.
func TestRefusesOtherURLs(t *testing.T) {
	out := plant(t, "xdg-open", `echo called > "$OUT"`)
	for _, u := range []string{
		"http://127.0.0.1:1/x?state=s", "http://127.0.0.1:1/x?", "http://127.0.0.1:1/x#f", "http://localhost:1/x", "http://u@127.0.0.1:1/x",
		"https://u@hub.example/", "https:hub.example", "https:///x", "https://hub.example/#x", "https://hub.example/a b",
		"file:///etc/passwd", "javascript:alert(1)", "-x", "", "http://10.0.0.1:1/x", "http://hub.example/device",
	} {
		if err := Open(t.Context(), u); err == nil {
			t.Errorf("%q was opened, want it refused", u)
		}
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("the opener was called, want no call")
	}
}

// O12: over SSH and without a display no browser of this machine reaches the user.
func TestWhere(t *testing.T) {
	for _, row := range []struct {
		goos, env, release string
		want               Place
	}{
		{"linux", "DISPLAY=:0", "6.12.0", PlaceDesktop},
		{"linux", "WAYLAND_DISPLAY=wayland-0", "6.12.0", PlaceDesktop},
		{"linux", "", "6.12.0", PlaceHeadless},
		{"freebsd", "", "", PlaceHeadless},
		{"linux", "SSH_CONNECTION=192.0.2.1 5 192.0.2.2 22", "", PlaceSSH},
		{"linux", "SSH_TTY=/dev/pts/0;DISPLAY=localhost:10.0", "", PlaceSSH},
		{"darwin", "SSH_CONNECTION=192.0.2.1 5 192.0.2.2 22", "", PlaceSSH},
		{"linux", "SSH_CONNECTION=192.0.2.1 5 192.0.2.2 22;BROWSER=/opt/code/helper", "", PlaceDesktop},
		{"linux", "WSL_DISTRO_NAME=Debian;DISPLAY=:0", "", PlaceWSL},
		{"linux", "", "5.15.153.1-microsoft-standard-WSL2", PlaceWSL},
		{"darwin", "", "", PlaceDesktop},
		{"windows", "", "", PlaceDesktop},
	} {
		getenv := func(name string) string {
			for pair := range strings.SplitSeq(row.env, ";") {
				if key, value, _ := strings.Cut(pair, "="); key == name {
					return value
				}
			}
			return ""
		}
		if got := Where(row.goos, getenv, row.release); got != row.want {
			t.Errorf("%s with %q and release %q: got %s, want %s", row.goos, row.env, row.release, got, row.want)
		}
	}
}
