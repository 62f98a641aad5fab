//go:build unix

package loopback

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// L2: mode 0600 in a folder with mode 0700; a folder that others can reach is refused.
func TestEndpointIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "endpoint.json")
	if err := WriteEndpoint(path, Endpoint{}); err != nil {
		t.Fatal(err)
	}
	for p, mode := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Stat(p)
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: got mode %v, %v, want a private one", p, info.Mode(), err)
		}
	}
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteEndpoint(path, Endpoint{}); err == nil {
		t.Error("writing into a folder that others can read: got nil, want an error")
	}
	if _, err := ReadEndpoint(path); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading from a folder that others can reach: got %v, want a refusal", err)
	}
}
