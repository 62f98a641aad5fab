package selection

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func loads(t *testing.T, f File, want string) {
	t.Helper()
	if got, err := f.Load(); err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

// X6: a choice is kept until model.name changes, or until it is removed.
func TestFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f := File{Path: filepath.Join(dir, "model.json"), Configured: "a"}
	loads(t, f, "")
	if err := f.Store("b"); err != nil {
		t.Fatal(err)
	}
	loads(t, f, "b")
	loads(t, File{f.Path, "c"}, "")
	loads(t, f, "") // the choice has ended
	if err := f.Store("b"); err != nil {
		t.Fatal(err)
	}
	if err := f.Store(""); err != nil {
		t.Fatal(err)
	}
	loads(t, f, "")
	if err := f.Store(""); err != nil {
		t.Errorf("removing no record: got %v, want nil", err)
	}
}

// T17: a record that another user could have written does not count. A torn one is removed.
func TestFileIsChecked(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f := File{Path: filepath.Join(dir, "model.json")}
	if err := f.Store("b"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(f.Path, 0o666); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Load(); err == nil || got != "" {
		t.Errorf("mode 0666: got %q, %v; want an error", got, err)
	}
	if err := os.WriteFile(f.Path, []byte(`{"mod`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(f.Path, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Load(); err == nil || got != "" {
		t.Errorf("torn: got %q, %v; want an error", got, err)
	}
	loads(t, f, "")
}
