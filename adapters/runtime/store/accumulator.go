package store

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"companion/adapters/privatefs"
	"companion/adapters/runtime/fileid"
	"companion/messages"
)

// Accumulator takes an artifact's bytes in order, into a partial file and a digest at once, and gives
// the verdict (M6, M7). It is a download.Sink. It ends by Commit, Abort or Discard; from then on it
// refuses everything with accumulator_finalized or accumulator_aborted. Not safe for concurrent use,
// but for Bytes.
type Accumulator struct {
	store     *Store
	artifact  messages.Artifact
	source    [sha256.Size]byte // of the URL: a validator means nothing elsewhere
	file      *os.File
	digest    hash.Hash
	bytes     atomic.Int64
	validator string
	ended     messages.Reason // empty while it accepts
}

// progress is kept beside a partial file. Identity and Digest are set when the transfer was ended in
// order; after a crash they are missing or do not fit, and the bytes on disk are read again.
type progress struct {
	Source    [sha256.Size]byte
	Validator string
	Identity  messages.FileIdentity
	Digest    []byte
}

// Accumulate begins or goes on with the partial file of a, whose bytes come from url. The space that
// is missing must be free (no_space). A partial file that is not private is refused (T17).
func (s *Store) Accumulate(ctx context.Context, a messages.Artifact, url string) (*Accumulator, error) {
	path := s.partial(a)
	file, identity, err := openPrivate(path, os.O_RDWR)
	if errors.Is(err, ErrNotHere) {
		file, err = createPrivate(path)
		if err != nil {
			return nil, storing(err)
		}
	} else if err != nil {
		return nil, err
	}
	acc := &Accumulator{store: s, artifact: a, source: sha256.Sum256([]byte(url)), file: file, digest: sha256.New()}
	if err := acc.resume(ctx, path, identity); err != nil {
		_ = file.Close()
		return nil, err
	}
	if err := s.space(a.Size - acc.bytes.Load()); err != nil {
		_ = file.Close()
		return nil, err
	}
	return acc, nil
}

// resume takes over the bytes on disk if they are of the same source and can be confirmed by it. Their
// digest is always that of what the file holds: the saved state counts only while the file is untouched.
func (acc *Accumulator) resume(ctx context.Context, path string, identity messages.FileIdentity) error {
	var p progress
	if privatefs.CheckFile(record(path)) != nil {
		return nil
	}
	data, err := os.ReadFile(record(path))
	if err != nil || json.Unmarshal(data, &p) != nil || p.Source != acc.source || identity.Size > acc.artifact.Size {
		return nil
	}
	saved := acc.digest.(encoding.BinaryUnmarshaler)
	if p.Identity != identity || saved.UnmarshalBinary(p.Digest) != nil {
		acc.digest = sha256.New()
		if _, err := io.Copy(acc.digest, contextReader{ctx, io.LimitReader(acc.file, identity.Size)}); err != nil {
			return unreadable(ctx, err)
		}
	}
	acc.validator = p.Validator
	acc.bytes.Store(identity.Size)
	return nil
}

// Bytes is how many bytes are there. Any goroutine may ask.
func (acc *Accumulator) Bytes() int64 { return acc.bytes.Load() }

// Validator is what the source called the object when the first bytes came; see download.Request.
func (acc *Accumulator) Validator() string { return acc.validator }

// Complete reports whether all bytes are there, so that Commit is the next step.
func (acc *Accumulator) Complete() bool { return acc.bytes.Load() == acc.artifact.Size }

// Begin says where the coming bytes start; see download.Sink.
func (acc *Accumulator) Begin(offset int64, validator string) error {
	if err := acc.accepting(); err != nil {
		return err
	}
	if offset != 0 && offset != acc.bytes.Load() {
		return &Error{Reason: messages.ReasonTransferFailed, what: "bytes that do not follow those on disk"}
	}
	if offset == 0 {
		acc.digest.Reset()
		acc.bytes.Store(0)
	}
	if err := errors.Join(acc.file.Truncate(offset), seek(acc.file, offset)); err != nil {
		return storing(err)
	}
	acc.store.testOnlyStep()
	acc.validator = validator
	return acc.save(progress{Source: acc.source, Validator: validator})
}

func seek(f *os.File, offset int64) error {
	_, err := f.Seek(offset, io.SeekStart)
	return err
}

func (acc *Accumulator) save(p progress) error {
	data, err := json.Marshal(p)
	if err == nil {
		err = privatefs.WriteFile(record(acc.store.partial(acc.artifact)), data)
	}
	if err != nil {
		return storing(err)
	}
	acc.store.testOnlyStep()
	return nil
}

// Write takes the next bytes. More than announced are refused at once with size_mismatch (M6), a full
// disk with no_space.
func (acc *Accumulator) Write(p []byte) (int, error) {
	if err := acc.accepting(); err != nil {
		return 0, err
	}
	if int64(len(p)) > acc.artifact.Size-acc.bytes.Load() {
		return 0, &Error{Reason: messages.ReasonSizeMismatch, what: "more bytes than announced"}
	}
	n, err := acc.file.Write(p)
	_, _ = acc.digest.Write(p[:n]) // never fails
	acc.bytes.Add(int64(n))
	acc.store.testOnlyStep()
	if err != nil {
		return n, storing(err)
	}
	return n, nil
}

func (acc *Accumulator) accepting() error {
	if acc.ended != "" {
		return &Error{Reason: acc.ended, what: "the accumulator has ended"}
	}
	return nil
}

// Commit gives the verdict. Right bytes are made durable, read-only and renamed into place; wrong ones
// are deleted, with size_mismatch or digest_mismatch. After any other error the partial file stays.
func (acc *Accumulator) Commit() error {
	if err := acc.accepting(); err != nil {
		return err
	}
	acc.ended = messages.ReasonAccumulatorFinalized
	defer acc.file.Close()
	part, final := acc.store.partial(acc.artifact), acc.store.final(acc.artifact)
	if !acc.Complete() {
		return &Error{messages.ReasonSizeMismatch, "fewer bytes than announced", remove(part)}
	}
	if subtle.ConstantTimeCompare(acc.digest.Sum(nil), acc.artifact.SHA256[:]) != 1 {
		return &Error{messages.ReasonDigestMismatch, "other bytes than announced", remove(part)}
	}
	if _, err := os.Lstat(final); err == nil {
		return &Error{Reason: messages.ReasonTransferFailed, what: "the place is taken"}
	}
	for _, step := range []func() error{
		acc.file.Sync,
		func() error { return os.Rename(part, final) },
		func() error { return privatefs.SyncDir(filepath.Dir(final)) },
		func() error { return privatefs.SyncDir(filepath.Dir(part)) },
	} {
		if err := step(); err != nil {
			return storing(err)
		}
		acc.store.testOnlyStep()
	}
	if _, err := acc.store.settle(acc.file, final); err != nil {
		return err
	}
	return remove(part)
}

// Abort ends an interrupted transfer, keeping its bytes for going on later.
func (acc *Accumulator) Abort() error {
	if err := acc.accepting(); err != nil {
		return err
	}
	if acc.bytes.Load() == 0 {
		return acc.Discard()
	}
	acc.ended = messages.ReasonAccumulatorAborted
	defer acc.file.Close()
	if err := acc.file.Sync(); err != nil {
		return storing(err)
	}
	id, err := fileid.Of(acc.file)
	if err != nil {
		return storing(err)
	}
	state, err := acc.digest.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return storing(err)
	}
	return acc.save(progress{acc.source, acc.validator, id, state})
}

// Discard ends the transfer and deletes its bytes.
func (acc *Accumulator) Discard() error {
	if err := acc.accepting(); err != nil {
		return err
	}
	acc.ended = messages.ReasonAccumulatorAborted
	return errors.Join(acc.file.Close(), remove(acc.store.partial(acc.artifact)))
}
