package spawn_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"companion/adapters/runtime/spawn"
	"companion/adapters/runtime/spawn/spawntest"
)

// R4, R10: a path in a mount that the runtime does not need cannot be looked up, so that no file server learns a name
// from it: neither in a mount that was there before, nor in one that is made later. Without the namespaces it can.
func TestLookupsReachNoOtherMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, which may mount")
	}
	for name, layer := range map[string]string{"with namespaces": "", "without namespaces": "namespace"} {
		t.Run(name, func(t *testing.T) {
			defer spawn.WithoutLayer(layer)()
			script := target(t)
			served := filepath.Join(t.TempDir(), "a served folder")
			secret := filepath.Join(served, "deeper", "secret")
			mount(t, served)
			mount(t, filepath.Dir(secret))
			if err := os.WriteFile(secret, []byte("planted"), 0o600); err != nil {
				t.Fatal(err)
			}
			script["secret"], script["only"] = secret, possible
			var output lines
			spec := spawntest.Spec(t, script)
			spec.Line = output.add
			// The system's file systems tell each other of later mounts, unlike some containers'.
			shared := spawntest.Dir(t)
			mount(t, shared)
			spec.RunDir = filepath.Join(shared, "run")
			if err := errors.Join(unix.Mount("", shared, "", unix.MS_SHARED, ""), os.Mkdir(spec.RunDir, 0o700)); err != nil {
				t.Fatal(err)
			}
			started := start(t, spec)
			if want := layer == ""; started.Sandbox.Mounts != want {
				t.Errorf("got level %+v, want mounts %v", started.Sandbox, want)
			}
			tried := output.attempts(t)
			if len(tried) != 1 || tried[0].Refused != (layer == "") {
				t.Errorf("got %+v, want one attempt, refused %v", tried, layer == "")
			}
			later := filepath.Join(shared, "later")
			mount(t, later)
			seen, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", started.Handle.PID()))
			if err != nil {
				t.Fatal(err)
			}
			if visible := strings.Contains(string(seen), " "+later+" "); visible == (layer == "") {
				t.Errorf("a mount that is made later: got visible %v, want %v", visible, layer != "")
			}
		})
	}
}

// mount makes a file system of the test's.
func mount(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", path, "tmpfs", 0, "mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
}
