package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"companion/messages"
)

// userFile writes a file of the user next to the store, on the same file system.
func userFile(t *testing.T, dir, content string) string {
	t.Helper()
	file := filepath.Join(filepath.Dir(dir), "mine.gguf")
	if err := os.WriteFile(file, []byte(content), 0o664); err != nil {
		t.Fatal(err)
	}
	return file
}

func noClone(_, _ *os.File) error { return errors.ErrUnsupported }

func ownArtifact(content string) messages.Artifact {
	return messages.Artifact{Name: "mine", Kind: messages.KindModel, SHA256: sha256.Sum256([]byte(content)), Size: int64(len(content)), Own: true}
}

func modeOf(t *testing.T, file string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

// M16: a big file is not copied: the store shares its blocks or the file itself, which becomes read-only. The daemon verifies
// it before its first use.
func TestImport(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	file := userFile(t, dir, "a model")
	done, err := Import{Dir: dir, File: file, Kind: messages.KindModel}.Run(t.Context())
	if err != nil || done.Size != 7 || done.SHA256 != sha256.Sum256([]byte("a model")) || done.Way != WayClone && done.Way != WayLink {
		t.Fatalf("got %+v, %v, want a clone or a link of 7 bytes", done, err)
	}
	if done.Way == WayLink && modeOf(t, file) != 0o444 {
		t.Errorf("got the mode %04o of a linked file, want 0444", modeOf(t, file))
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	a := ownArtifact("a model")
	if h := s.Held(t.Context(), a); !h.Here || h.Verified {
		t.Errorf("before its first use: got %+v, want here and not verified", h)
	}
	m, err := s.Model(t.Context(), a, false)
	if err != nil || !m.Own || m.Identity.Size != 7 {
		t.Fatalf("got %+v, %v, want the verified model", m, err)
	}
	if h := s.Held(t.Context(), a); !h.Verified {
		t.Errorf("after its first use: got %+v, want verified", h)
	}
	// The same bytes again change nothing.
	if again, err := (Import{Dir: dir, File: file, Kind: messages.KindModel}).Run(t.Context()); err != nil ||
		again.Way != WayHere && done.Way != WayLink {
		t.Errorf("the same file again: got %+v, %v, want no change", again, err)
	}
	// The user's own name may go; the model stays.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if m, err := s.Model(t.Context(), a, false); err != nil || m.Path == "" {
		t.Errorf("after the user's name is gone: got %+v, %v, want the verified model", m, err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, importFolder)); err != nil || len(left) != 0 {
		t.Errorf("got %v, %v, want no temporary file", left, err)
	}
}

// M9, M16: a linked file that changes in place is no longer the verified model. The user's own file stays.
func TestLinkedFileChanges(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	file := userFile(t, dir, "a model")
	done, err := Import{Dir: dir, File: file, Kind: messages.KindModel, testOnlyClone: noClone}.Run(t.Context())
	if err != nil || done.Way != WayLink {
		t.Fatalf("got %+v, %v, want a link", done, err)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	a := ownArtifact("a model")
	if _, err := s.Model(t.Context(), a, false); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, []byte("A MODEL"), 0o600)); err != nil {
		t.Fatal(err)
	}
	var wrong *Error
	if _, err := s.Model(t.Context(), a, false); !errors.As(err, &wrong) || wrong.Reason != messages.ReasonDigestMismatch {
		t.Errorf("got %v, want digest_mismatch", err)
	}
	if _, err := s.Model(t.Context(), a, false); !errors.Is(err, ErrNotHere) {
		t.Errorf("got %v, want the link removed", err)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "A MODEL" {
		t.Errorf("got %q, %v, want the user's file unchanged", data, err)
	}
	// A file that others may write is not taken as a link.
	if _, err := (Import{Dir: dir, File: file, Kind: messages.KindModel, testOnlyClone: noClone}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Model(t.Context(), ownArtifact("A MODEL"), false); err == nil || !strings.Contains(err.Error(), "mode 0666") {
		t.Errorf("got %v, want a refusal that names the mode", err)
	}
}

// M16: with Copy, and for an archive, the user's file keeps its mode and gets no second name.
func TestImportCopies(t *testing.T) {
	for name, m := range map[string]Import{
		"copy":    {Kind: messages.KindModel, Copy: true},
		"archive": {Kind: messages.KindRuntime},
	} {
		m.Dir = filepath.Join(t.TempDir(), "data")
		m.File = userFile(t, m.Dir, "bytes")
		mode := modeOf(t, m.File)
		var seen int64
		m.Progress = func(n int64) { seen = n }
		done, err := m.Run(t.Context())
		if err != nil || done.Way == WayLink || modeOf(t, m.File) != mode || seen != 5 {
			t.Errorf("%s: got %+v, %v, mode %04o, %d bytes reported; want a file of its own", name, done, err, modeOf(t, m.File), seen)
		}
	}
}

// M16: a file without the given digest, a folder, and a cancelled import leave the user's file and the store as they were.
func TestImportRefuses(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		edit func(*Import)
		want func(error) bool
	}{
		"digest": {t.Context(), func(m *Import) { m.Want = &[32]byte{1} }, func(err error) bool {
			var e *Error
			return errors.As(err, &e) && e.Reason == messages.ReasonDigestMismatch
		}},
		"folder": {t.Context(), func(m *Import) { m.File = filepath.Dir(m.File) }, func(err error) bool { return err != nil }},
		"cancel": {cancelled, func(*Import) {}, func(err error) bool { return errors.Is(err, context.Canceled) }},
	} {
		dir := filepath.Join(t.TempDir(), "data")
		file := userFile(t, dir, "a model")
		mode := modeOf(t, file)
		m := Import{Dir: dir, File: file, Kind: messages.KindModel}
		c.edit(&m)
		if _, err := m.Run(c.ctx); !c.want(err) {
			t.Errorf("%s: got %v, want it refused", name, err)
		}
		if modeOf(t, file) != mode {
			t.Errorf("%s: got the mode %04o, want %04o", name, modeOf(t, file), mode)
		}
		for _, sub := range []string{"models", linksFolder, importFolder} {
			if left, err := os.ReadDir(filepath.Join(dir, sub)); err != nil || len(left) != 0 {
				t.Errorf("%s: got %v, %v in %s, want nothing", name, left, err, sub)
			}
		}
	}
}

// M16: the user's file stays writable until its digest is right, and is writable again after a failure.
func TestLinkedFileKeepsMode(t *testing.T) {
	for name, c := range map[string]struct {
		during func(dir, file string) error
		edit   func(*Import)
		want   messages.Reason
		after  string // content of the user's file
	}{
		"digest": {func(_, _ string) error { return nil }, func(m *Import) { m.Want = &[32]byte{1} }, messages.ReasonDigestMismatch, "a model"},
		"written to": {func(_, file string) error {
			return os.WriteFile(file, []byte("a longer model"), 0o600)
		}, func(*Import) {}, messages.ReasonTransferFailed, "a longer model"},
		"no place": {func(dir, _ string) error { return os.Remove(filepath.Join(dir, linksFolder)) }, func(*Import) {}, messages.ReasonTransferFailed, "a model"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			file := userFile(t, dir, "a model")
			mode, reading, done := modeOf(t, file), fs.FileMode(0), false
			m := Import{Dir: dir, File: file, Kind: messages.KindModel, testOnlyClone: noClone}
			m.Progress = func(int64) {
				if reading = modeOf(t, file); !done {
					if err := c.during(dir, file); err != nil {
						t.Error(err)
					}
				}
				done = true
			}
			c.edit(&m)
			var refused *Error
			if _, err := m.Run(t.Context()); !errors.As(err, &refused) || refused.Reason != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if reading != mode || modeOf(t, file) != mode {
				t.Errorf("got the modes %04o while it is read and %04o after, want %04o", reading, modeOf(t, file), mode)
			}
			if data, err := os.ReadFile(file); err != nil || string(data) != c.after {
				t.Errorf("got %q, %v, want %q", data, err, c.after)
			}
			if left, err := os.ReadDir(filepath.Join(dir, importFolder)); err != nil || len(left) != 0 {
				t.Errorf("got %v, %v, want no temporary file", left, err)
			}
		})
	}
}

// M16, M7: a clone is synced like a copy, before it gets its final name.
func TestClonesAreSynced(t *testing.T) {
	broken := errors.New("a broken disk")
	for name, clone := range map[string]func(to, from *os.File) error{
		string(WayCopy): noClone,
		string(WayClone): func(to, from *os.File) error {
			_, err := io.Copy(to, from)
			return errors.Join(err, seek(to, 0))
		},
	} {
		for _, failure := range []error{nil, broken} {
			dir := filepath.Join(t.TempDir(), "data")
			syncs := 0
			m := Import{Dir: dir, File: userFile(t, dir, "a model"), Kind: messages.KindModel, Copy: true, testOnlyClone: clone}
			m.testOnlySync = func(*os.File) error { syncs++; return failure }
			done, err := m.Run(t.Context())
			models, listing := os.ReadDir(filepath.Join(dir, "models"))
			if listing != nil || syncs != 1 || (err == nil) != (failure == nil) || (len(models) == 1) != (failure == nil) {
				t.Errorf("%s, sync %v: got %+v, %v, %d syncs, models %v; want one sync, and the model only after it", name, failure, done, err, syncs, models)
			}
			if failure == nil && string(done.Way) != name {
				t.Errorf("got %s, want %s", done.Way, name)
			}
		}
	}
}

// M15, M16: a clean-up that does not know the newest catalogue keeps what was just added, and removes it an hour later. It
// never removes the user's own file.
func TestPruneKeepsAdded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	file := userFile(t, dir, "a model")
	if _, err := (Import{Dir: dir, File: file, Kind: messages.KindModel}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if items, err := s.Prune(nil, time.Now(), false); err != nil || len(items) != 0 {
		t.Errorf("at once: got %v, %v, want nothing removed", items, err)
	}
	items, err := s.Prune(nil, time.Now().Add(2*time.Hour), false)
	if err != nil || len(items) != 1 || items[0].Kind != "model" {
		t.Errorf("later: got %v, %v, want the model removed", items, err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("got %v, want the user's own file kept", err)
	}
}
