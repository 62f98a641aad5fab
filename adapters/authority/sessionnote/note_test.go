package sessionnote

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"companion/adapters/privatefs"
	"companion/messages"
)

// O8, O9: what was written is read; a missing file says nothing; a broken one is an error.
func TestNote(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := privatefs.EnsureDir(dir); err != nil {
		t.Fatal(err)
	}
	f := File(filepath.Join(dir, "session.json"))
	if n, err := f.Read(); err != nil || n != (Note{}) {
		t.Errorf("without a file: got %+v, %v, want an empty note", n, err)
	}
	token := messages.NewSecret("planted-refresh-token")
	for _, want := range []Note{{InFlight: Digest(token)}, {SignedOut: true}, {InFlight: "d", Stale: true}, {InFlight: Digest(token), SignedOut: true}, {}} {
		if err := f.Write(want); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Read(); err != nil || got != want {
			t.Errorf("read %+v, %v, want %+v", got, err, want)
		}
		if data, err := os.ReadFile(string(f)); err != nil || strings.Contains(string(data), "planted") {
			t.Errorf("the file holds %s (%v), want no token in it", data, err)
		}
	}
	for _, bad := range []string{"", "{", `{"inFlight":1}`, "[]"} {
		if err := os.WriteFile(string(f), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := f.Read(); err == nil {
			t.Errorf("%q was read as %+v, want an error", bad, n)
		}
	}
	if Digest(messages.Secret{}) != "" || Digest(messages.NewSecret("a")) == Digest(messages.NewSecret("b")) {
		t.Error("got equal digests of different tokens, want different ones")
	}
}
