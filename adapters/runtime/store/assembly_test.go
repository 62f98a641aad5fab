//go:build linux

package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"runtime"
	"testing"

	"companion/messages"
)

const chunkSize = 64 << 10

// chunkedModel is the model with the digests of its five chunks, of which the last is short.
func chunkedModel() messages.Artifact {
	a := model()
	a.ChunkSize = chunkSize
	for rest := content; len(rest) > 0; {
		n := min(len(rest), chunkSize)
		a.Chunks = append(a.Chunks, sha256.Sum256(rest[:n]))
		rest = rest[n:]
	}
	return a
}

func assemble(t *testing.T, s *Store, a messages.Artifact) *Assembly {
	t.Helper()
	as, err := s.Assemble(t.Context(), a)
	must(t, err)
	return as
}

// deliver writes content[from:to] to a run whose response begins at from.
func deliver(r *Run, data []byte, from, to int64) error {
	if err := r.Begin(from, ""); err != nil {
		return err
	}
	for at := from; at < to; at += 10_000 {
		if _, err := r.Write(data[at:min(at+10_000, to)]); err != nil {
			return err
		}
	}
	return nil
}

// fill gives every missing chunk to runs of at most most chunks.
func fill(as *Assembly, most int) error {
	for {
		r := as.Claim(context.Background(), source, most, false)
		if r == nil {
			return nil
		}
		from := r.Offset()
		if err := deliver(r, content, from, from+r.Length()); err != nil {
			return err
		}
		r.Release()
	}
}

func finish(t *testing.T, as *Assembly) {
	t.Helper()
	must(t, fill(as, 2), as.Follow(t.Context()), as.Commit())
}

func putChunks(s *Store, a messages.Artifact) error {
	as, err := s.Assemble(context.Background(), a)
	if err != nil {
		return err
	}
	if err := errors.Join(fill(as, 2), as.Follow(context.Background()), as.record(false)); err != nil {
		return errors.Join(err, as.Abort())
	}
	return as.Commit()
}

// M14, M6: chunks that arrive in any order make the right file, which is pinned.
func TestAssembly(t *testing.T) {
	s, a := open(t), chunkedModel()
	as := assemble(t, s, a)
	runs := []*Run{as.Claim(t.Context(), source, 2, false), as.Claim(t.Context(), source, 2, false), as.Claim(t.Context(), source, 2, false)}
	if as.Claim(t.Context(), source, 2, false) != nil || as.Missing() != 0 {
		t.Fatal("a fourth run: got one, want none, because every chunk is claimed")
	}
	for i := len(runs) - 1; i >= 0; i-- {
		from := runs[i].Offset()
		must(t, deliver(runs[i], content, from, from+runs[i].Length()))
		if !runs[i].Release() {
			t.Fatalf("run %d: got it incomplete, want it complete", i)
		}
	}
	if !as.Complete() || as.Bytes() != a.Size {
		t.Fatalf("got complete %t with %d bytes, want true with %d", as.Complete(), as.Bytes(), a.Size)
	}
	must(t, as.Follow(t.Context()), as.Commit())
	got, err := s.Model(t.Context(), a, true)
	must(t, err)
	data, err := os.ReadFile(got.Path)
	must(t, err)
	if !bytes.Equal(data, content) || len(names(t, s, "partial")) != 0 {
		t.Fatalf("got %d bytes, partial files %v; want the content and none", len(data), names(t, s, "partial"))
	}
}

// M14, T6: a wrong chunk is refused with its last byte, and costs this chunk only.
func TestWrongChunk(t *testing.T) {
	s, a := open(t), chunkedModel()
	as := assemble(t, s, a)
	wrong := bytes.Clone(content)
	wrong[chunkSize+5] ^= 1
	r := as.Claim(t.Context(), source, 5, false)
	err := deliver(r, wrong, 0, a.Size)
	if reasonOf(err) != messages.ReasonDigestMismatch || r.Release() {
		t.Fatalf("got %v, want digest_mismatch and an incomplete run", err)
	}
	if as.Bytes() != chunkSize || as.Missing() != 4 {
		t.Fatalf("got %d bytes and %d missing chunks, want %d and 4", as.Bytes(), as.Missing(), chunkSize)
	}
	finish(t, as)
}

// M14: right chunks of a file that is not the signed one are no verdict: the digest of the file is.
func TestChunksAreNoVerdict(t *testing.T) {
	s, a := open(t), chunkedModel()
	a.SHA256[0] ^= 1
	as := assemble(t, s, a)
	must(t, fill(as, 5), as.Follow(t.Context()))
	if err := as.Commit(); reasonOf(err) != messages.ReasonDigestMismatch {
		t.Fatalf("Commit: got %v, want digest_mismatch", err)
	}
	if left := append(names(t, s, "models"), names(t, s, "partial")...); len(left) != 0 {
		t.Fatalf("left: %v, want nothing", left)
	}
}

// M14, M6: the digest of the file is computed from the bytes on disk, not from those that arrived.
func TestFollowReadsDisk(t *testing.T) {
	s, a := open(t), chunkedModel()
	as := assemble(t, s, a)
	must(t, fill(as, 5))
	_, err := as.file.WriteAt([]byte("X"), 1000)
	must(t, err, as.Follow(t.Context()))
	if err := as.Commit(); reasonOf(err) != messages.ReasonDigestMismatch {
		t.Fatalf("Commit: got %v, want digest_mismatch", err)
	}
}

// cut writes content up to the byte to and ends the assembly, in order or as a kill does.
func cut(t *testing.T, s *Store, a messages.Artifact, to int64, kill bool) {
	t.Helper()
	as := assemble(t, s, a)
	r := as.Claim(t.Context(), source, 5, false)
	must(t, deliver(r, content, 0, to))
	r.Release()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = as.Follow(ctx)
	if kill {
		must(t, as.record(false), as.file.Close())
		return
	}
	must(t, as.Abort())
}

// alter writes data over a partial file in place: its device, inode and size stay.
func alter(t *testing.T, s *Store, a messages.Artifact, offset int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(s.partial(a), os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(data, offset)
	must(t, err, f.Close())
}

// M14, M8: after a cut in order, no byte is fetched again.
func TestResumeFetchesNothingAgain(t *testing.T) {
	const at = 3*chunkSize + 1000
	s, a := open(t), chunkedModel()
	cut(t, s, a, at, false)
	if h := s.Held(t.Context(), a); h.PartialBytes != at {
		t.Errorf("held: got %d bytes, want %d", h.PartialBytes, at)
	}
	as := assemble(t, s, a)
	if as.Bytes() != at || as.Missing() != 2 {
		t.Fatalf("got %d bytes and %d missing chunks, want %d and 2", as.Bytes(), as.Missing(), at)
	}
	r := as.Claim(t.Context(), source, 5, false)
	if r.Offset() != at {
		t.Fatalf("the next run: got offset %d, want %d", r.Offset(), at)
	}
	must(t, deliver(r, content, at, a.Size))
	r.Release()
	must(t, as.Follow(t.Context()), as.Commit())
}

// M14, M6: a byte that changes in a verified chunk between two transfers is found before the file gets its final name. Only this
// chunk is fetched again, also when a later transfer finds it.
func TestAlteredChunkIsFetchedAgain(t *testing.T) {
	for name, abort := range map[string]bool{"same transfer": false, "next transfer": true} {
		t.Run(name, func(t *testing.T) {
			s, a := open(t), chunkedModel()
			cut(t, s, a, 3*chunkSize+1000, false)
			alter(t, s, a, chunkSize+1000, []byte("X"))
			as := assemble(t, s, a)
			must(t, fill(as, 2))
			if !as.Complete() {
				t.Fatal("before the chunks are read: got missing chunks, want none")
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			followed := make(chan error, 1)
			go func() { followed <- as.Follow(ctx) }()
			for as.Missing() == 0 {
				select {
				case err := <-followed:
					t.Fatalf("Follow: got %v with an altered chunk in the file, want it missing", err)
				default:
					runtime.Gosched()
				}
			}
			if as.Missing() != 1 || as.Bytes() != a.Size-chunkSize {
				t.Fatalf("got %d missing chunks and %d bytes, want 1 and %d", as.Missing(), as.Bytes(), a.Size-chunkSize)
			}
			if abort {
				cancel()
				<-followed
				must(t, as.Abort())
				as = assemble(t, s, a)
				if as.Missing() != 1 {
					t.Fatalf("the next transfer: got %d missing chunks, want 1", as.Missing())
				}
				go func() { followed <- as.Follow(t.Context()) }()
			}
			must(t, fill(as, 2), <-followed, as.Commit())
			got, err := s.Model(t.Context(), a, false)
			must(t, err)
			if data, err := os.ReadFile(got.Path); err != nil || !bytes.Equal(data, content) {
				t.Fatalf("got %d bytes, %v; want the content", len(data), err)
			}
		})
	}
}

// M14, M7: chunks that were only read again after a crash are synced before a record calls them verified.
func TestRereadChunksAreSynced(t *testing.T) {
	s, a := open(t), chunkedModel()
	cut(t, s, a, 3*chunkSize, true)
	must(t, os.Remove(record(s.partial(a))))
	var steps []bool // whether the record was there
	s.testOnlyStep = func() {
		_, ok := readProgress(record(s.partial(a)))
		steps = append(steps, ok)
	}
	as := assemble(t, s, a)
	if len(steps) != 2 || steps[0] || !steps[1] {
		t.Errorf("the record at each step: got %v, want it after the sync only", steps)
	}
	s.testOnlyStep = func() {}
	must(t, as.Discard())
}

// M14, M7: for each damage to the partial file or its record, and for a kill, the right file comes, and what is fetched again
// are the damaged chunks.
func TestResumeAfterDamage(t *testing.T) {
	const at = 3*chunkSize + 1000
	a := chunkedModel()
	write := func(offset int64, data []byte) func(*testing.T, *Store) {
		return func(t *testing.T, s *Store) {
			t.Helper()
			alter(t, s, a, offset, data)
		}
	}
	edit := func(change func(*chunkProgress)) func(*testing.T, *Store) {
		return func(t *testing.T, s *Store) {
			p, ok := readProgress(record(s.partial(a)))
			if !ok || p.Chunks == nil {
				t.Fatal("got no record, want one")
			}
			change(p.Chunks)
			data, err := json.Marshal(p)
			must(t, err, os.WriteFile(record(s.partial(a)), data, 0o600))
		}
	}
	noRecord := func(t *testing.T, s *Store) { must(t, os.Remove(record(s.partial(a)))) }
	for name, c := range map[string]struct {
		kill    bool
		damage  []func(*testing.T, *Store)
		missing int // chunks
		bytes   int64
	}{
		"none":               {false, nil, 2, at},
		"kill":               {true, nil, 2, at},
		"no record":          {false, []func(*testing.T, *Store){noRecord}, 2, at},
		"hole, no record":    {false, []func(*testing.T, *Store){noRecord, write(chunkSize, make([]byte, 4096))}, 3, at - chunkSize},
		"hole in the tail":   {true, []func(*testing.T, *Store){write(3*chunkSize, make([]byte, 500))}, 2, at},
		"lost tail":          {false, []func(*testing.T, *Store){func(t *testing.T, s *Store) { must(t, os.Truncate(s.partial(a), chunkSize+7)) }}, 4, chunkSize + 0},
		"too long":           {false, []func(*testing.T, *Store){func(t *testing.T, s *Store) { must(t, os.Truncate(s.partial(a), a.Size+1)) }}, 5, 0},
		"forged record":      {false, []func(*testing.T, *Store){edit(func(p *chunkProgress) { p.Verified[0] |= 1 << 4 })}, 2, at},
		"record, other file": {false, []func(*testing.T, *Store){edit(func(p *chunkProgress) { p.Inode++ })}, 2, at},
		"torn record": {false, []func(*testing.T, *Store){func(t *testing.T, s *Store) {
			must(t, os.WriteFile(record(s.partial(a)), []byte(`{"So`), 0o600))
		}}, 2, at},
		"grown file": {true, []func(*testing.T, *Store){write(at, content[at:4*chunkSize])}, 1, 4 * chunkSize},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			cut(t, s, a, at, c.kill)
			for _, damage := range c.damage {
				damage(t, s)
			}
			s, err := Open(s.dir)
			must(t, err)
			as := assemble(t, s, a)
			if as.Missing() != c.missing || as.Bytes() != c.bytes {
				t.Fatalf("got %d missing chunks and %d bytes, want %d and %d", as.Missing(), as.Bytes(), c.missing, c.bytes)
			}
			err = fill(as, 2)
			if errors.Is(err, ErrStale) {
				for i := range as.chunks {
					as.chunks[i].claimed = false
				}
				err = fill(as, 2)
			}
			must(t, err, as.Follow(t.Context()), as.Commit())
			_, err = s.Model(t.Context(), a, true)
			must(t, err)
		})
	}
}

// M14: a file of a transfer without chunks is continued with them, and the other way round.
func TestChunksAndNone(t *testing.T) {
	s, a := open(t), chunkedModel()
	acc, err := s.Accumulate(model(), source)
	must(t, err, acc.Begin(0, `"one"`))
	_, err = acc.Write(content[:2*chunkSize+10])
	must(t, err, acc.Abort())
	as := assemble(t, s, a)
	if as.Missing() != 3 || as.Bytes() != 2*chunkSize+10 {
		t.Fatalf("got %d missing chunks and %d bytes, want 3 and %d", as.Missing(), as.Bytes(), 2*chunkSize+10)
	}
	must(t, as.Abort())
	acc, err = s.Accumulate(model(), source)
	must(t, err)
	if acc.Bytes() != 2*chunkSize+10 || !acc.Mixed() {
		t.Fatalf("without chunks: got %d bytes, mixed %t; want %d, true", acc.Bytes(), acc.Mixed(), 2*chunkSize+10)
	}
	must(t, acc.Begin(acc.Bytes(), ""))
	_, err = acc.Write(content[2*chunkSize+10:])
	must(t, err, acc.Commit(t.Context()))
}

// M14, T6: a chunk with bytes of two URLs that is wrong blames neither. It is fetched again from one URL, which is then
// blamed for a wrong one.
func TestMixedChunk(t *testing.T) {
	s, a := open(t), chunkedModel()
	as := assemble(t, s, a)
	wrong := bytes.Repeat([]byte("x"), len(content))
	half := func(url string, data []byte, to int64) error {
		r := as.Claim(t.Context(), url, 1, false)
		defer r.Release()
		return deliver(r, data, r.Offset(), to)
	}
	must(t, half("https://bad.example/g", wrong, 1000))
	if err := half(source, content, chunkSize); !errors.Is(err, ErrStale) || as.Bytes() != 0 {
		t.Fatalf("got %v with %d bytes, want ErrStale with none", err, as.Bytes())
	}
	must(t, half("https://bad.example/g", wrong, 1000))
	must(t, half(source, content, chunkSize))
	if as.Bytes() != chunkSize {
		t.Fatalf("got %d bytes, want the right chunk of %d", as.Bytes(), chunkSize)
	}
	must(t, as.Discard())
}

// M14: a server without ranges sends the whole file: alone, the run skips what is there and takes the rest. With another
// run it is refused.
func TestServerWithoutRanges(t *testing.T) {
	s, a := open(t), chunkedModel()
	as := assemble(t, s, a)
	r := as.Claim(t.Context(), source, 1, true)
	must(t, deliver(r, content, 0, a.Size))
	if !r.Release() || !as.Complete() {
		t.Fatal("the whole file for a run of one chunk: got it incomplete, want it complete")
	}
	must(t, as.Discard())

	cut(t, s, a, 2*chunkSize+10, false)
	as = assemble(t, s, a)
	r = as.Claim(t.Context(), source, 1, false)
	if err := r.Begin(0, ""); !errors.Is(err, ErrNoRanges) {
		t.Fatalf("with another run: got %v, want ErrNoRanges", err)
	}
	r.Release()
	r = as.Claim(t.Context(), source, 1, true)
	must(t, deliver(r, content, 0, a.Size))
	r.Release()
	must(t, as.Follow(t.Context()), as.Commit())
}

// M6: a server that sends more than the wanted range ends the transfer, and writes nothing outside the run.
func TestRunIsBounded(t *testing.T) {
	s, a := open(t), chunkedModel()
	as := assemble(t, s, a)
	r := as.Claim(t.Context(), source, 1, false)
	other := as.Claim(t.Context(), source, 1, false)
	if err := deliver(r, content, 0, a.Size); !errors.Is(err, ErrRunDone) || !r.Release() || as.Bytes() != chunkSize {
		t.Fatalf("got %v with %d bytes, want ErrRunDone with %d", err, as.Bytes(), chunkSize)
	}
	if err := other.Begin(2*chunkSize, ""); err == nil {
		t.Error("bytes after the run's offset: got nil, want an error")
	}
	other.Release()
	must(t, as.Discard())
	for _, err := range []error{as.Commit(), as.Abort(), as.Discard()} {
		if reasonOf(err) != messages.ReasonAccumulatorAborted {
			t.Errorf("after the end: got %v, want accumulator_aborted", err)
		}
	}
}
