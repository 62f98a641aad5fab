//go:build linux

package store

import (
	"archive/tar"
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

func TestMain(m *testing.M) {
	if role := os.Getenv(childRole); role != "" {
		os.Exit(children[role]())
	}
	goleak.VerifyTestMain(m)
}

const source = "https://models.example/g.gguf"

var content = bytes.Repeat([]byte("model "), 50_000)

func model() messages.Artifact {
	return messages.Artifact{Name: "g", Version: "1", Kind: messages.KindModel, SHA256: sha256.Sum256(content), Size: int64(len(content))}
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "data"))
	must(t, err)
	return s
}

// put writes data to an accumulator in pieces, and commits it.
func put(s *Store, a messages.Artifact, data []byte) error {
	acc, err := s.Accumulate(a, source)
	if err != nil {
		return err
	}
	if !acc.Complete() {
		at := acc.Bytes()
		if acc.Validator() == "" {
			at = 0
		}
		if err := acc.Begin(at, `"one"`); err != nil {
			return errors.Join(err, acc.Abort())
		}
		for rest := data[at:]; len(rest) > 0; {
			n := min(len(rest), 100_000)
			if _, err := acc.Write(rest[:n]); err != nil {
				return errors.Join(err, acc.Discard())
			}
			rest = rest[n:]
		}
	}
	return acc.Commit(context.Background())
}

func packedData(t testing.TB, library string) (messages.Artifact, []byte) {
	t.Helper()
	var out bytes.Buffer
	gz := gzip.NewWriter(&out)
	w := tar.NewWriter(gz)
	for _, f := range [][2]string{{"bin/llama-server", "program"}, {"lib/libggml.so.0", library}} {
		must(t, w.WriteHeader(&tar.Header{Name: f[0], Typeflag: tar.TypeReg, Size: int64(len(f[1])), Mode: 0o755}))
		_, err := w.Write([]byte(f[1]))
		must(t, err)
	}
	must(t, w.WriteHeader(&tar.Header{Name: "lib/libggml.so", Typeflag: tar.TypeSymlink, Linkname: "libggml.so.0"}), w.Close(), gz.Close())
	return messages.Artifact{
		Name: "r", Version: "1", Kind: messages.KindRuntime, Format: "tar.gz", Executable: "bin/llama-server",
		SHA256: sha256.Sum256(out.Bytes()), Size: int64(out.Len()),
		Files: []messages.ArchiveFile{
			{Path: "bin/llama-server", SHA256: sha256.Sum256([]byte("program")), Size: 7, Executable: true},
			{Path: "lib/libggml.so.0", SHA256: sha256.Sum256([]byte("library")), Size: 7},
			{Path: "lib/libggml.so", LinkTarget: "libggml.so.0"},
		},
	}, out.Bytes()
}

func names(t testing.TB, s *Store, sub string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, sub))
	must(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func reasonOf(err error) messages.Reason {
	var e *Error
	switch {
	case err == nil:
		return messages.ReasonOK
	case errors.As(err, &e):
		return e.Reason
	}
	return ""
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
