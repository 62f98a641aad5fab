package archive

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// entries has no links: llama.cpp's archives for Windows contain none, and creating one requires a privilege.
var entries = []messages.ArchiveFile{
	{Path: "bin/llama-server.exe", SHA256: sha256.Sum256([]byte("program")), Size: 7, Executable: true},
	{Path: "bin/ggml.dll", SHA256: sha256.Sum256([]byte("library")), Size: 7},
	{Path: "LICENSE", SHA256: sha256.Sum256([]byte("text")), Size: 4},
}

func packed(t *testing.T, library string, extra ...string) map[string][]byte {
	t.Helper()
	var z, tgz bytes.Buffer
	zipped, gz := zip.NewWriter(&z), gzip.NewWriter(&tgz)
	tarred := tar.NewWriter(gz)
	add := func(name, body string) {
		must(t, tarred.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(body)), Mode: 0o644}))
		_, err := tarred.Write([]byte(body))
		must(t, err)
		f, err := zipped.Create(name)
		must(t, err)
		_, err = f.Write([]byte(body))
		must(t, err)
	}
	add("bin/llama-server.exe", "program")
	add("bin/ggml.dll", library)
	add("LICENSE", "text")
	for _, name := range extra {
		add(name, "x")
	}
	must(t, tarred.Close(), gz.Close(), zipped.Close())
	return map[string][]byte{"zip": z.Bytes(), "tar.gz": tgz.Bytes()}
}

func unpack(t *testing.T, data []byte, format string) (string, error) {
	t.Helper()
	base := t.TempDir()
	dir, src := filepath.Join(base, "folder"), filepath.Join(base, "archive")
	must(t, os.Mkdir(dir, 0o700), os.WriteFile(src, data, 0o600))
	f, err := os.Open(src)
	must(t, err)
	defer f.Close()
	err = Unpack(context.Background(), f, format, entries, dir)
	if entries, readErr := os.ReadDir(base); readErr != nil || len(entries) != 2 {
		t.Errorf("outside the folder got %v, %v, want two entries", entries, readErr)
	}
	return dir, err
}

// M12: both formats unpack to exactly the entries, can be renamed into place, and can be removed.
func TestUnpack(t *testing.T) {
	for format, data := range packed(t, "library") {
		dir, err := unpack(t, data, format)
		must(t, err, os.Rename(dir, dir+"2"), Check(t.Context(), dir+"2", entries, true))
		if info, err := os.Lstat(filepath.Join(dir+"2", "bin", "ggml.dll")); err != nil || info.Mode() != 0o444 {
			t.Errorf("got mode %v of a library, %v, want 0444", info.Mode(), err)
		}
		must(t, Remove(dir+"2"))
		if _, err := os.Lstat(dir + "2"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after removing: got %v, want os.ErrNotExist", err)
		}
	}
}

// M12: names with a special meaning on Windows are refused like all names that are not in the entries.
func TestUnpackRefuses(t *testing.T) {
	for _, name := range []string{
		`..\evil`, `C:\evil`, "C:evil", "bin/ggml.dll:stream", `\\host\share\evil`, "NUL", "bin/ggml.dll ", "bin/ggml.dll.", "BIN/GGML.DLL",
	} {
		for format, data := range packed(t, "library", name) {
			var refused *Error
			if _, err := unpack(t, data, format); !errors.As(err, &refused) || refused.Reason != messages.ReasonMalformedSpec {
				t.Errorf("%s in %s: got %v, want malformed_spec", name, format, err)
			}
		}
	}
}

// M10, M12: Check detects a file that was altered, added or removed.
func TestCheck(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"altered": func(dir string) error {
			library := filepath.Join(dir, "bin", "ggml.dll")
			return errors.Join(os.Chmod(library, 0o600), os.WriteFile(library, []byte("librarY"), 0o600))
		},
		"added":   func(dir string) error { return os.WriteFile(filepath.Join(dir, "bin", "ggml-cpu.dll"), nil, 0o600) },
		"missing": func(dir string) error { return os.Remove(filepath.Join(dir, "LICENSE")) },
	} {
		dir, err := unpack(t, packed(t, "library")["zip"], "zip")
		must(t, err, change(dir))
		var refused *Error
		if err := Check(t.Context(), dir, entries, true); !errors.As(err, &refused) {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
