//go:build linux

package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"companion/adapters/runtime/fileid"
	"companion/messages"
)

// M6, M7: a right file gets its final name and is read-only; no other file remains.
func TestCommit(t *testing.T) {
	s, a := open(t), model()
	if _, err := s.Model(t.Context(), a, false); !errors.Is(err, ErrNotHere) {
		t.Fatalf("before: got %v, want ErrNotHere", err)
	}
	must(t, put(s, a, content))
	got, err := s.Model(t.Context(), a, false)
	must(t, err)
	data, err := os.ReadFile(got.Path)
	info, statErr := os.Lstat(got.Path)
	must(t, err, statErr)
	if !bytes.Equal(data, content) || info.Mode() != 0o400 || got.Name != "g" || got.Version != "1" || got.SHA256 != a.SHA256 {
		t.Fatalf("got %+v, mode %v, %d bytes; want model g 1, mode 0400, the content", got, info.Mode(), len(data))
	}
	f, err := os.Open(got.Path)
	must(t, err)
	defer f.Close()
	if id, err := fileid.Of(f); err != nil || id != got.Identity || id.Inode == 0 || id.ChangeNano == 0 {
		t.Fatalf("identity: got %+v, %v; want %+v", id, err, got.Identity)
	}
	if left := names(t, s, "partial"); len(left) != 0 {
		t.Fatalf("partial files: got %v, want none", left)
	}
	if h := s.Held(t.Context(), a); !h.Here || !h.Verified || h.PartialBytes != 0 {
		t.Fatalf("got %+v, want it verified, without a partial file", h)
	}
}

// M6, T6: wrong bytes are deleted, with the reason size_mismatch or digest_mismatch.
func TestWrongBytes(t *testing.T) {
	flipped := bytes.Clone(content)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct {
		data []byte
		want messages.Reason
	}{
		"flipped":   {flipped, messages.ReasonDigestMismatch},
		"truncated": {content[:len(content)-1], messages.ReasonSizeMismatch},
		"empty":     {nil, messages.ReasonSizeMismatch},
		"extended":  {append(bytes.Clone(content), 'x'), messages.ReasonSizeMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			s, a := open(t), model()
			if err := put(s, a, c.data); reasonOf(err) != c.want {
				t.Fatalf("put: got %v, want %s", err, c.want)
			}
			if left := append(names(t, s, "models"), names(t, s, "partial")...); len(left) != 0 {
				t.Fatalf("left %v, want nothing", left)
			}
		})
	}
}

// M6: the first excess byte is refused and not written.
func TestTooMuchStopsAtOnce(t *testing.T) {
	s, a := open(t), model()
	acc, err := s.Accumulate(a, source)
	must(t, err, acc.Begin(0, `"one"`))
	_, err = acc.Write(content)
	must(t, err)
	if _, err := acc.Write([]byte("x")); reasonOf(err) != messages.ReasonSizeMismatch || acc.Bytes() != a.Size {
		t.Fatalf("Write: got %v, %d bytes; want size_mismatch, %d", err, acc.Bytes(), a.Size)
	}
	must(t, acc.Discard())
}

func TestEndedAccumulator(t *testing.T) {
	s, a := open(t), model()
	for _, c := range []struct {
		end  func(*Accumulator) error
		want messages.Reason
	}{
		{(*Accumulator).Abort, messages.ReasonAccumulatorAborted},
		{(*Accumulator).Discard, messages.ReasonAccumulatorAborted},
		{func(acc *Accumulator) error { return acc.Commit(context.Background()) }, messages.ReasonAccumulatorFinalized},
	} {
		acc, err := s.Accumulate(a, source)
		must(t, err, acc.Begin(0, `"one"`))
		_, err = acc.Write(content)
		must(t, err, c.end(acc))
		_, write := acc.Write([]byte("x"))
		for _, err := range []error{write, acc.Begin(0, ""), acc.Abort(), acc.Discard(), acc.Commit(context.Background())} {
			if reasonOf(err) != c.want {
				t.Errorf("after the end: got %v, want %s", err, c.want)
			}
		}
	}
}

// M8, M7: a partial file is continued with its validator only from the same source, and the verified digest is always the
// digest of the bytes on disk.
func TestResume(t *testing.T) {
	const half = 120_000
	a := model()
	for name, c := range map[string]struct {
		change func(t *testing.T, s *Store)
		url    string
		at     int64
		verify messages.Reason
	}{
		"untouched":   {func(*testing.T, *Store) {}, source, half, messages.ReasonOK},
		"other URL":   {func(*testing.T, *Store) {}, source + "?2", half, messages.ReasonOK},
		"no record":   {func(t *testing.T, s *Store) { must(t, os.Remove(record(s.partial(a)))) }, source, 0, messages.ReasonOK},
		"torn record": {func(t *testing.T, s *Store) { must(t, os.WriteFile(record(s.partial(a)), []byte(`{"So`), 0o600)) }, source, 0, messages.ReasonOK},
		"grown after the record": {func(t *testing.T, s *Store) {
			must(t, os.WriteFile(s.partial(a), content[:half+1000], 0o600))
		}, source, half + 1000, messages.ReasonOK},
		"altered": {func(t *testing.T, s *Store) {
			data := bytes.Clone(content[:half])
			data[7] ^= 1
			must(t, os.WriteFile(s.partial(a), data, 0o600))
		}, source, half, messages.ReasonDigestMismatch},
		"too long": {func(t *testing.T, s *Store) {
			must(t, os.WriteFile(s.partial(a), append(bytes.Clone(content), 'x'), 0o600))
		}, source, 0, messages.ReasonOK},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			acc, err := s.Accumulate(a, source)
			must(t, err, acc.Begin(0, `"one"`))
			_, err = acc.Write(content[:half])
			must(t, err, acc.Abort())
			if h := s.Held(t.Context(), a); h.Here || h.PartialBytes != half {
				t.Fatalf("got %+v, want %d bytes of a partial file", h, half)
			}
			c.change(t, s)
			s, err = Open(s.dir)
			must(t, err)
			acc, err = s.Accumulate(a, c.url)
			must(t, err)
			if acc.Bytes() != c.at || (c.at > 0 && c.url == source) != (acc.Validator() == `"one"`) || acc.Mixed() != (c.at > 0) {
				t.Fatalf("resume: got %d bytes with validator %q, want %d", acc.Bytes(), acc.Validator(), c.at)
			}
			must(t, acc.Begin(c.at, `"one"`))
			_, err = acc.Write(content[c.at:])
			must(t, err)
			if err := acc.Commit(context.Background()); reasonOf(err) != c.verify {
				t.Fatalf("Commit: got %v, want %s", err, c.verify)
			}
		})
	}
}

// M8: if the object has changed, the transfer starts from zero.
func TestFromZero(t *testing.T) {
	s, a := open(t), model()
	acc, err := s.Accumulate(a, source)
	must(t, err, acc.Begin(0, `"old"`))
	_, err = acc.Write(bytes.Repeat([]byte("x"), 200_000))
	must(t, err, acc.Abort())
	acc, err = s.Accumulate(a, source)
	must(t, err)
	if err := acc.Begin(100, `"new"`); err == nil {
		t.Fatal("Begin at an offset that does not follow: got no error, want one")
	}
	must(t, acc.Begin(0, `"new"`))
	_, err = acc.Write(content)
	must(t, err, acc.Commit(context.Background()))
}

// M9: a file with an unchanged identity is not read, one with a changed identity is, and one with a wrong digest is deleted.
func TestIdentity(t *testing.T) {
	s, a := open(t), model()
	must(t, put(s, a, content))
	first, err := s.Model(t.Context(), a, false)
	must(t, err)

	must(t, os.Chtimes(first.Path, testTime, testTime))
	second, err := s.Model(t.Context(), a, false)
	must(t, err)
	if second.Identity == first.Identity {
		t.Fatalf("identity after a change: got %+v, want another one", second.Identity)
	}

	wrong := bytes.Clone(content)
	wrong[0] ^= 1
	alter := func() {
		must(t, os.Chmod(first.Path, 0o600), os.WriteFile(first.Path, wrong, 0o600), os.Chmod(first.Path, 0o400))
	}
	alter()
	f, err := os.Open(first.Path)
	must(t, err)
	id, err := fileid.Of(f)
	must(t, err, f.Close())
	// With a valid pin of the altered file, the altered content is not detected, which shows that the file is not read.
	must(t, s.pin(first.Path, id))
	if _, err := s.Model(t.Context(), a, false); err != nil {
		t.Fatalf("file with a pinned identity: got %v, want no error", err)
	}
	if _, err := s.Model(t.Context(), a, true); reasonOf(err) != messages.ReasonDigestMismatch {
		t.Fatalf("rehash: got %v, want digest_mismatch", err)
	}
	if left := names(t, s, "models"); len(left) != 0 {
		t.Fatalf("left %v, want nothing", left)
	}

	must(t, put(s, a, content))
	alter()
	if _, err := s.Model(t.Context(), a, false); reasonOf(err) != messages.ReasonDigestMismatch {
		t.Fatalf("altered file: got %v, want digest_mismatch", err)
	}
	must(t, put(s, a, content), os.Chmod(first.Path, 0o600), os.Truncate(first.Path, 10))
	if _, err := s.Model(t.Context(), a, false); reasonOf(err) != messages.ReasonSizeMismatch {
		t.Fatalf("truncated file: got %v, want size_mismatch", err)
	}
}

// M9, T6: a record that the store did not write is not a pin: the file is read, and its altered content is detected.
func TestForgedPin(t *testing.T) {
	for name, forge := range map[string]func(s *Store, path string, id messages.FileIdentity) any{
		"identity alone": func(_ *Store, _ string, id messages.FileIdentity) any { return id },
		"no MAC":         func(_ *Store, _ string, id messages.FileIdentity) any { return pin{Identity: id} },
		"MAC of another identity": func(s *Store, path string, id messages.FileIdentity) any {
			other := id
			other.ChangeNano--
			return pin{id, s.mac(path, other)}
		},
		"MAC of another file": func(s *Store, _ string, id messages.FileIdentity) any {
			return pin{id, s.mac("other.gguf", id)}
		},
		"MAC of another key": func(s *Store, path string, id messages.FileIdentity) any {
			return pin{id, (&Store{key: make([]byte, pinKeySize)}).mac(path, id)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, a := open(t), model()
			must(t, put(s, a, content))
			good, err := s.Model(t.Context(), a, false)
			must(t, err)
			altered := bytes.Clone(content)
			altered[5] ^= 1
			must(t, os.Chmod(good.Path, 0o600), os.WriteFile(good.Path, altered, 0o600), os.Chmod(good.Path, 0o400))
			f, err := os.Open(good.Path)
			must(t, err)
			id, err := fileid.Of(f)
			must(t, err, f.Close())
			data, err := json.Marshal(forge(s, good.Path, id))
			must(t, err, os.WriteFile(record(good.Path), data, 0o600))
			s, err = Open(s.dir) // the next start
			must(t, err)
			if h := s.Held(t.Context(), a); h.Verified {
				t.Error("Held: got the altered file verified, want not verified")
			}
			if _, err := s.Model(t.Context(), a, false); reasonOf(err) != messages.ReasonDigestMismatch {
				t.Fatalf("Model: got %v, want digest_mismatch", err)
			}
		})
	}
}

// M6: Commit verifies the bytes in the file at the end, not the received ones.
func TestVerdictOverDisk(t *testing.T) {
	s, a := open(t), model()
	acc, err := s.Accumulate(a, source)
	must(t, err, acc.Begin(0, `"one"`))
	_, err = acc.Write(content)
	must(t, err)
	f, err := os.OpenFile(s.partial(a), os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("X"), 1000)
	must(t, err, f.Close())
	if err := acc.Commit(t.Context()); reasonOf(err) != messages.ReasonDigestMismatch {
		t.Fatalf("Commit: got %v, want digest_mismatch", err)
	}
	if left := append(names(t, s, "models"), names(t, s, "partial")...); len(left) != 0 {
		t.Fatalf("left %v, want nothing", left)
	}
}

// M8: a transfer from any URL that adds no byte keeps the bytes of an earlier transfer.
func TestFruitlessTransferKeepsBytes(t *testing.T) {
	s, a := open(t), model()
	acc, err := s.Accumulate(a, source)
	must(t, err, acc.Begin(0, `"one"`))
	_, err = acc.Write(content[:120_000])
	must(t, err, acc.Abort())
	for _, url := range []string{source + "?2", source + "?3", source} {
		acc, err = s.Accumulate(a, url)
		must(t, err, acc.Abort())
	}
	acc, err = s.Accumulate(a, source)
	must(t, err)
	if acc.Bytes() != 120_000 || acc.Validator() != `"one"` {
		t.Fatalf("got %d bytes with validator %q, want 120000 with \"one\"", acc.Bytes(), acc.Validator())
	}
	must(t, acc.Abort())
}

// M12: an archive is unpacked to a temporary folder, renamed into place, and deleted.
func TestRuntime(t *testing.T) {
	s := open(t)
	t.Cleanup(func() { cleanup(s) })
	a, data := packedData(t, "library")
	must(t, put(s, a, data), s.Archived(t.Context(), a))
	if _, err := s.Runtime(t.Context(), a, false); !errors.Is(err, ErrNotHere) {
		t.Fatalf("before unpacking: got %v, want ErrNotHere", err)
	}
	got, err := s.Unpack(t.Context(), a)
	must(t, err)
	if !got.Pinned || got.Executable != "bin/llama-server" || len(got.Files) != 3 {
		t.Fatalf("got %+v, want a pinned runtime with 3 files", got)
	}
	body, err := os.ReadFile(filepath.Join(got.Dir, "lib/libggml.so"))
	if err != nil || string(body) != "library" {
		t.Fatalf("library: got %q, %v; want \"library\"", body, err)
	}
	if left := names(t, s, "archives"); len(left) != 0 {
		t.Fatalf("left %v, want nothing", left)
	}
	if h := s.Held(t.Context(), a); !h.Here || !h.Verified {
		t.Fatalf("got %+v, want it verified", h)
	}
	library := filepath.Join(got.Dir, "lib/libggml.so.0")
	must(t, os.Chmod(library, 0o600), os.WriteFile(library, []byte("librarY"), 0o600), os.Chmod(library, 0o400))
	if _, err := s.Runtime(t.Context(), a, true); reasonOf(err) != messages.ReasonDigestMismatch {
		t.Fatalf("altered library: got %v, want digest_mismatch", err)
	}
	if left := names(t, s, "runtimes"); len(left) != 0 {
		t.Fatalf("left %v, want nothing", left)
	}
}

// M12, M6: an archive with the signed digest but other files than listed is deleted, and no file remains.
func TestRuntimeNotAsListed(t *testing.T) {
	s := open(t)
	a, data := packedData(t, "librarX")
	must(t, put(s, a, data))
	_, err := s.Unpack(t.Context(), a)
	if reasonOf(err) != messages.ReasonDigestMismatch {
		t.Fatalf("Unpack: got %v, want digest_mismatch", err)
	}
	quiet(t, err, s, a)
	if left := append(names(t, s, "archives"), names(t, s, "runtimes")...); len(left) != 0 {
		t.Fatalf("left %v, want nothing", left)
	}
}
