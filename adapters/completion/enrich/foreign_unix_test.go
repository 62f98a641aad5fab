//go:build unix

package enrich

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// E7: what has the name of a result and is none is refused at once: a device, a named pipe or a file without end.
func TestResultThatIsNone(t *testing.T) {
	dir := t.TempDir()
	n := note(t, "hello")
	n.Real = put(t, filepath.Join(dir, "a.md"), "hello")
	large := put(t, filepath.Join(dir, "large"), "")
	if err := os.Truncate(large, maxResult+1); err != nil {
		t.Fatal(err)
	}
	for what, plant := range map[string]func(name string) error{
		"device":  func(name string) error { return os.Symlink("/dev/zero", name) },
		"pipe":    func(name string) error { return unix.Mkfifo(name, 0o600) },
		"large":   func(name string) error { return os.Link(large, name) },
		"folder":  func(name string) error { return os.Mkdir(name, 0o700) },
		"nothing": func(name string) error { return os.Symlink("gone", name) },
	} {
		name := n.Real + sidecarSuffix
		if err := plant(name); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { _, err := Sidecar{}.Done(n); ended <- err }()
		select {
		case err := <-ended:
			if !errors.Is(err, ErrForeign) {
				t.Errorf("%s: got %v, want ErrForeign", what, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: got no answer, want ErrForeign", what)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}
