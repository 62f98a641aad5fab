package store

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const source = "https://models.example/g.gguf"

var content = bytes.Repeat([]byte("model "), 50_000)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "data"))
	must(t, err)
	return s
}

func model() messages.Artifact {
	return messages.Artifact{Name: "g", Version: "1", Kind: messages.KindModel, SHA256: sha256.Sum256(content), Size: int64(len(content))}
}

// put stores data in two transfers; the first one is interrupted.
func put(t *testing.T, s *Store, a messages.Artifact, data []byte) error {
	t.Helper()
	for _, part := range [][]byte{data[:len(data)/2], data[len(data)/2:]} {
		acc, err := s.Accumulate(a, source)
		must(t, err, acc.Begin(acc.Bytes(), `"one"`))
		_, err = acc.Write(part)
		must(t, err)
		if acc.Complete() {
			return acc.Commit(context.Background())
		}
		must(t, acc.Abort())
	}
	return errors.New("there are bytes missing")
}

// M6, M7, M8, M9: an interrupted transfer is continued. The file gets its final name, is read-only and has its identity
// recorded; no other file remains.
func TestModel(t *testing.T) {
	s, a := open(t), model()
	must(t, put(t, s, a, content))
	first, err := s.Model(t.Context(), a, true)
	must(t, err)
	if h := s.Held(t.Context(), a); !h.Here || !h.Verified || first.Identity.Inode == 0 || first.Identity.ChangeNano == 0 {
		t.Errorf("got %+v with identity %+v, want it verified, with file number and time", h, first.Identity)
	}
	if info, err := os.Lstat(first.Path); err != nil || info.Mode() != 0o444 {
		t.Errorf("got mode %v, %v; want 0444", info.Mode(), err)
	}
	if left := names(t, s, "partial"); len(left) > 0 {
		t.Errorf("left %v, want nothing", left)
	}
	must(t, os.Remove(record(first.Path)))
	again, err := s.Model(t.Context(), a, false)
	must(t, err)
	if again.Identity.Inode != first.Identity.Inode {
		t.Errorf("got identity %+v, want %+v", again.Identity, first.Identity)
	}
}

// M6, M9: wrong bytes are deleted, both during a transfer and afterwards.
func TestWrongBytes(t *testing.T) {
	s, a := open(t), model()
	wrong := bytes.Clone(content)
	wrong[7] ^= 1
	refused := func(err error) {
		t.Helper()
		var typed *Error
		if !errors.As(err, &typed) || typed.Reason != messages.ReasonDigestMismatch || typed.cause != nil {
			t.Errorf("got %v, want digest_mismatch without a cause", err)
		}
		if left := append(names(t, s, "models"), names(t, s, "partial")...); len(left) > 0 {
			t.Errorf("left %v, want nothing", left)
		}
	}
	refused(put(t, s, a, wrong))
	must(t, put(t, s, a, content), os.Chmod(s.final(a), 0o600), os.WriteFile(s.final(a), wrong, 0o600))
	_, err := s.Model(t.Context(), a, false)
	refused(err)
}

func packed(t *testing.T, library string) (messages.Artifact, []byte) {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for name, body := range map[string]string{"bin/llama-server.exe": "program", "bin/ggml.dll": library} {
		f, err := w.Create(name)
		must(t, err)
		_, err = f.Write([]byte(body))
		must(t, err)
	}
	must(t, w.Close())
	return messages.Artifact{
		Name: "r", Version: "1", Kind: messages.KindRuntime, Format: "zip", Executable: "bin/llama-server.exe",
		SHA256: sha256.Sum256(out.Bytes()), Size: int64(out.Len()),
		Files: []messages.ArchiveFile{
			{Path: "bin/llama-server.exe", SHA256: sha256.Sum256([]byte("program")), Size: 7, Executable: true},
			{Path: "bin/ggml.dll", SHA256: sha256.Sum256([]byte("library")), Size: 7},
		},
	}, out.Bytes()
}

// M12: an archive is unpacked to a temporary folder, renamed into place, and deleted. One that differs from the list leaves
// no file.
func TestRuntime(t *testing.T) {
	s := open(t)
	a, data := packed(t, "library")
	must(t, put(t, s, a, data))
	got, err := s.Unpack(t.Context(), a)
	must(t, err)
	body, err := os.ReadFile(filepath.Join(got.Dir, "bin", "ggml.dll"))
	if err != nil || string(body) != "library" || len(names(t, s, "archives")) > 0 {
		t.Errorf("read %q, %v, archives %v, want library and no archive", body, err, names(t, s, "archives"))
	}
	bad, data := packed(t, "librarX")
	must(t, put(t, s, bad, data))
	var typed *Error
	if _, err := s.Unpack(t.Context(), bad); !errors.As(err, &typed) || typed.Reason != messages.ReasonDigestMismatch {
		t.Errorf("got %v, want digest_mismatch", err)
	}
	if left := append(names(t, s, "archives"), names(t, s, "runtimes")...); len(left) != 1 {
		t.Errorf("left %v, want one file", left)
	}
}

// M8: free space is checked first.
func TestSpace(t *testing.T) {
	s := open(t)
	must(t, s.space(1))
	var typed *Error
	if err := s.space(math.MaxInt64); !errors.As(err, &typed) || typed.Reason != messages.ReasonNoSpace {
		t.Errorf("got %v, want no_space", err)
	}
}

// M10: the binaries that may be used unpinned.
func TestUnpinned(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "llama-server.exe")
	must(t, os.WriteFile(binary, nil, 0o700))
	if got, err := Unpinned(binary); err != nil || got.Pinned || got.Dir != dir || got.Executable != "llama-server.exe" {
		t.Errorf("got %+v, %v, want llama-server.exe in %s, not pinned", got, err, dir)
	}
	for _, path := range []string{"", "llama-server.exe", dir, filepath.Join(dir, "absent.exe"), dir + `\..\x.exe`, `\llama-server.exe`} {
		if got, err := Unpinned(path); err == nil {
			t.Errorf("%q: got %+v, want an error", path, got)
		}
	}
}

func names(t *testing.T, s *Store, sub string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, sub))
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
