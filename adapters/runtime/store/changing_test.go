//go:build linux

package store

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"companion/adapters/runtime/fileid"
	"companion/messages"
)

// readHook calls f before each read of a file that it is the context of, with the number of earlier reads.
type readHook struct {
	context.Context
	reads int
	f     func(reads int)
}

func (h *readHook) Err() error {
	h.f(h.reads)
	h.reads++
	return h.Context.Err()
}

// unverified stores the model without a pin, so that it is read before its next use, and returns its path.
func unverified(t *testing.T, s *Store) string {
	t.Helper()
	must(t, put(s, model(), content))
	path := s.final(model())
	must(t, os.Remove(record(path)))
	return path
}

// breakReads lets every open descriptor of the file fail to read, as a bad disk does.
func breakReads(t *testing.T, path string) {
	t.Helper()
	folder, err := os.Open(filepath.Dir(path))
	must(t, err)
	defer folder.Close()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && target == path {
			fd, err := strconv.Atoi(e.Name())
			must(t, err, unix.Dup3(int(folder.Fd()), fd, unix.O_CLOEXEC))
		}
	}
}

// renamed gives the file another name and the old one again, until the clock of the file system has ticked.
func renamed(t *testing.T, path string) {
	t.Helper()
	identity := func() messages.FileIdentity {
		f, err := os.Open(path)
		must(t, err)
		defer f.Close()
		id, err := fileid.Of(f)
		must(t, err)
		return id
	}
	for before := identity(); before == identity(); {
		must(t, os.Rename(path, path+".x"), os.Rename(path+".x", path))
	}
}

// M6, M9: a model is deleted because its bytes are wrong, and for no other reason: not when it cannot be read, and not when it
// changes while it is read.
func TestOnlyWrongBytesAreDeleted(t *testing.T) {
	later := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		during func(t *testing.T, path string, reads int)
		want   messages.Reason
		after  messages.Reason // of the next use
	}{
		"unreadable": {func(t *testing.T, path string, reads int) {
			t.Helper()
			if reads == 2 {
				breakReads(t, path)
			}
		}, messages.ReasonInvalidModelPath, messages.ReasonOK},
		"mode changed once": {func(t *testing.T, path string, reads int) {
			t.Helper()
			if reads == 2 {
				must(t, os.Chmod(path, 0o600))
			}
		}, messages.ReasonOK, messages.ReasonOK},
		"renamed all the time": {func(t *testing.T, path string, _ int) {
			t.Helper()
			renamed(t, path)
		}, messages.ReasonTransferFailed, messages.ReasonOK},
		"written to": {func(t *testing.T, path string, reads int) {
			t.Helper()
			if reads == 2 {
				must(t, os.Chtimes(path, later, later))
			}
		}, messages.ReasonTransferFailed, messages.ReasonOK},
		"truncated": {func(t *testing.T, path string, reads int) {
			t.Helper()
			if reads == 2 {
				must(t, os.Chmod(path, 0o600), os.Truncate(path, 10))
			}
		}, messages.ReasonTransferFailed, messages.ReasonSizeMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			path := unverified(t, s)
			ctx := &readHook{Context: t.Context(), f: func(reads int) { c.during(t, path, reads) }}
			if _, err := s.Model(ctx, model(), false); reasonOf(err) != c.want {
				t.Fatalf("Model: got %v, want %s", err, c.want)
			}
			if _, err := os.Stat(path); err != nil {
				t.Fatalf("the file: got %v, want it kept", err)
			}
			if _, err := s.Model(t.Context(), model(), false); reasonOf(err) != c.after {
				t.Fatalf("the next use: got %v, want %s", err, c.after)
			}
		})
	}
}

// M6, M9: wrong bytes are deleted also when only the mode changes while they are read.
func TestWrongBytesOfChangingMode(t *testing.T) {
	s := open(t)
	path := unverified(t, s)
	wrong := bytes.Clone(content)
	wrong[7] ^= 1
	must(t, os.Chmod(path, 0o600), os.WriteFile(path, wrong, 0o600))
	ctx := &readHook{Context: t.Context(), f: func(reads int) {
		if reads == 2 {
			must(t, os.Chmod(path, 0o400))
		}
	}}
	if _, err := s.Model(ctx, model(), false); reasonOf(err) != messages.ReasonDigestMismatch {
		t.Fatalf("got %v, want digest_mismatch", err)
	}
	if left := names(t, s, "models"); len(left) != 0 {
		t.Fatalf("left: %v, want nothing", left)
	}
}

// M9: the pinned identity is the one of the bytes that were read: a file that is written to after that is not pinned.
func TestPinIsOfTheReadBytes(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, s *Store) func() error{
		"before a use": func(t *testing.T, s *Store) func() error {
			t.Helper()
			must(t, os.Chmod(unverified(t, s), 0o600)) // so that settle changes the mode, which is a step
			return func() error { _, err := s.Model(t.Context(), model(), false); return err }
		},
		"after a download": func(_ *testing.T, s *Store) func() error {
			return func() error { return put(s, model(), content) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			use, path := prepare(t, s), s.final(model())
			written := false
			s.testOnlyStep = func() {
				if info, err := os.Stat(path); err != nil || written || info.Mode().Perm() != 0o400 {
					return
				}
				written = true
				must(t, os.Chmod(path, 0o600))
				f, err := os.OpenFile(path, os.O_WRONLY, 0)
				must(t, err)
				_, err = f.WriteAt([]byte("X"), 1000)
				later := time.Now().Add(time.Second) // the clock of the file system may not have ticked since the last write
				must(t, err, f.Close(), os.Chtimes(path, later, later), os.Chmod(path, 0o400))
			}
			if err := use(); !written || reasonOf(err) != messages.ReasonTransferFailed {
				t.Fatalf("got %v, written %t; want transfer_failed", err, written)
			}
			s.testOnlyStep = func() {}
			if h := s.Held(t.Context(), model()); h.Verified {
				t.Fatal("got the written file verified, want not verified")
			}
			if _, err := s.Model(t.Context(), model(), false); reasonOf(err) != messages.ReasonDigestMismatch {
				t.Fatalf("the next use: got %v, want digest_mismatch", err)
			}
		})
	}
}
