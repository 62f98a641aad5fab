package privatefs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// T17: anything but a directory or regular file is refused, and the error says what would be right.
func TestRefuses(t *testing.T) {
	base := t.TempDir()
	folder, file := filepath.Join(base, "new", "deep"), filepath.Join(base, "file")
	must(t, EnsureDir(folder), EnsureDir(folder), os.WriteFile(file, nil, 0o600), CheckFile(file))
	for name, err := range map[string]error{
		"a file as a folder": CheckDir(file), "a folder as a file": CheckFile(folder),
		"writing over a folder": WriteFile(folder, nil),
	} {
		var refused *Error
		if !errors.As(err, &refused) || refused.Found == "" || refused.Want == "" {
			t.Errorf("%s: got %v, want a refusal that says what was found and wanted", name, err)
		}
	}
	for name, err := range map[string]error{
		"no folder": CheckDir(filepath.Join(base, "absent")), "no file": CheckFile(filepath.Join(base, "absent")),
		"writing into no folder": WriteFile(filepath.Join(base, "absent", "x"), nil),
		"writing below a file":   WriteFile(filepath.Join(file, "x"), nil),
	} {
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: got %v, want os.ErrNotExist", name, err)
		}
	}
}

// T17, L2: a file is replaced atomically, and no temporary file is left.
func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	must(t, WriteFile(path, []byte("one")), WriteFile(path, []byte("two")), SyncDir(dir))
	if data, err := os.ReadFile(path); err != nil || string(data) != "two" {
		t.Errorf("read %q, %v, want two", data, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left %v, %v, want one file", entries, err)
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
