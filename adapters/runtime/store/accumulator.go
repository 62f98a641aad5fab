package store

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"companion/adapters/privatefs"
	"companion/adapters/runtime/fileid"
	"companion/messages"
)

// Accumulator writes an artifact's bytes in order to a partial file, and verifies the file on disk at the end (M6, M7). It
// is a download.Sink. It ends by Commit, Abort or Discard; afterwards every call fails with accumulator_finalized or
// accumulator_aborted. It is not safe for concurrent use, except Bytes.
type Accumulator struct {
	store     *Store
	artifact  messages.Artifact
	source    [sha256.Size]byte // digest of the URL: a validator is valid for this URL only
	file      *os.File
	bytes     atomic.Int64
	validator string
	begun     bool
	mixed     bool            // bytes of an earlier transfer are among them
	ended     messages.Reason // empty while it accepts
}

// progress is the content of a partial file's record.
type progress struct {
	Source    [sha256.Size]byte
	Validator string
	Chunks    *chunkProgress `json:",omitempty"` // of an Assembly
}

// Accumulate opens the partial file of a, for bytes from url. Bytes from another URL are kept: the digest of the
// whole file shows whether they fit. The missing space must be free (no_space), and within the budget (over_budget). A partial file that is not private is refused
// (T17).
func (s *Store) Accumulate(a messages.Artifact, url string) (*Accumulator, error) {
	if err := s.reserve(a); err != nil {
		return nil, err
	}
	file, identity, err := s.openPartial(a)
	if err != nil {
		s.release(a)
		return nil, err
	}
	acc := &Accumulator{store: s, artifact: a, source: sha256.Sum256([]byte(url)), file: file}
	acc.resume(s.partial(a), identity)
	if err := s.space(a.Size - acc.bytes.Load()); err != nil {
		_ = file.Close()
		s.release(a)
		return nil, err
	}
	return acc, nil
}

// openPartial opens the partial file of a, or makes it.
func (s *Store) openPartial(a messages.Artifact) (*os.File, messages.FileIdentity, error) {
	path := s.partial(a)
	file, identity, err := openPrivate(path, os.O_RDWR)
	if !errors.Is(err, ErrNotHere) {
		return file, identity, err
	}
	file, err = createPrivate(path)
	if err != nil {
		return nil, identity, storing(err)
	}
	identity, err = fileid.Of(file)
	if err != nil {
		_ = file.Close()
		return nil, identity, storing(err)
	}
	return file, identity, nil
}

// resume adopts the bytes on disk, if there is a record of their source.
func (acc *Accumulator) resume(path string, identity messages.FileIdentity) {
	p, ok := readProgress(record(path))
	if !ok || identity.Size > acc.artifact.Size {
		return
	}
	if p.Source == acc.source {
		acc.validator = p.Validator
	}
	acc.bytes.Store(identity.Size)
	acc.mixed = identity.Size > 0
}

// Mixed reports whether some of the bytes come from an earlier transfer, which may then be the cause of a wrong digest.
func (acc *Accumulator) Mixed() bool { return acc.mixed }

// Bytes returns how many bytes are on disk. Safe for concurrent use.
func (acc *Accumulator) Bytes() int64 { return acc.bytes.Load() }

// Validator is the entity tag of the object that the bytes belong to, if they came from this URL; see
// download.Request.
func (acc *Accumulator) Validator() string { return acc.validator }

// Complete reports whether all bytes are on disk, so that Commit is the next step.
func (acc *Accumulator) Complete() bool { return acc.bytes.Load() == acc.artifact.Size }

// Begin sets where the next bytes start; see download.Sink.
func (acc *Accumulator) Begin(offset int64, validator string) error {
	if err := acc.accepting(); err != nil {
		return err
	}
	if offset != 0 && offset != acc.bytes.Load() {
		return &Error{Reason: messages.ReasonTransferFailed, what: "bytes that do not follow those on disk"}
	}
	if offset == 0 {
		acc.mixed = false
		acc.bytes.Store(0)
	}
	if err := errors.Join(acc.file.Truncate(offset), seek(acc.file, offset)); err != nil {
		return storing(err)
	}
	acc.store.testOnlyStep()
	acc.begun, acc.validator = true, validator
	return acc.save()
}

func seek(f *os.File, offset int64) error {
	_, err := f.Seek(offset, io.SeekStart)
	return err
}

func (acc *Accumulator) save() error {
	data, err := json.Marshal(progress{Source: acc.source, Validator: acc.validator})
	if err == nil {
		err = privatefs.WriteFile(record(acc.store.partial(acc.artifact)), data)
	}
	if err != nil {
		return storing(err)
	}
	acc.store.testOnlyStep()
	return nil
}

// Write appends the next bytes. More bytes than the manifest's size are refused at once with size_mismatch (M6). A full disk
// gives no_space.
func (acc *Accumulator) Write(p []byte) (int, error) {
	if err := acc.accepting(); err != nil {
		return 0, err
	}
	if int64(len(p)) > acc.artifact.Size-acc.bytes.Load() {
		return 0, &Error{Reason: messages.ReasonSizeMismatch, what: "more bytes than the manifest says"}
	}
	n, err := acc.file.Write(p)
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

// Commit verifies the bytes in the file, not the received ones. A right file is synced, made read-only and renamed to its
// final name. A wrong file is deleted, with size_mismatch or digest_mismatch. After any other error the partial file stays.
// Commit reads the file once.
func (acc *Accumulator) Commit(ctx context.Context) error {
	if err := acc.accepting(); err != nil {
		return err
	}
	acc.ended = messages.ReasonAccumulatorFinalized
	defer acc.store.release(acc.artifact)
	defer acc.file.Close()
	part := acc.store.partial(acc.artifact)
	if !acc.Complete() {
		return &Error{messages.ReasonSizeMismatch, "fewer bytes than the manifest says", remove(part)}
	}
	if err := acc.file.Sync(); err != nil {
		return storing(err)
	}
	acc.store.testOnlyStep()
	identity, err := fileid.Of(acc.file)
	if err != nil {
		return storing(err)
	}
	if identity, err = acc.store.hash(ctx, acc.file, acc.artifact, identity); err != nil {
		if wrong := wrongBytes(err); wrong != nil {
			wrong.cause = remove(part)
		}
		return err
	}
	return acc.store.install(acc.file, acc.artifact, identity)
}

// install gives a partial file that was verified with this identity its final name.
func (s *Store) install(file *os.File, a messages.Artifact, hashed messages.FileIdentity) error {
	part, final := s.partial(a), s.final(a)
	if _, err := os.Lstat(final); err == nil {
		return &Error{Reason: messages.ReasonTransferFailed, what: "the place is taken"}
	}
	for _, step := range []func() error{
		func() error { return os.Rename(part, final) },
		func() error { return privatefs.SyncDir(filepath.Dir(final)) },
		func() error { return privatefs.SyncDir(filepath.Dir(part)) },
	} {
		if err := step(); err != nil {
			return storing(err)
		}
		s.testOnlyStep()
	}
	if _, err := s.settle(file, final, hashed); err != nil {
		return err
	}
	return remove(part)
}

// Abort ends an interrupted transfer and keeps its bytes. It also keeps the bytes of an earlier transfer if this one added
// none.
func (acc *Accumulator) Abort() error {
	if err := acc.accepting(); err != nil {
		return err
	}
	if acc.bytes.Load() == 0 {
		return acc.Discard()
	}
	acc.ended = messages.ReasonAccumulatorAborted
	defer acc.store.release(acc.artifact)
	defer acc.file.Close()
	if !acc.begun {
		return nil // the file and its record are unchanged
	}
	if err := acc.file.Sync(); err != nil {
		return storing(err)
	}
	return acc.save()
}

// Discard ends the transfer and deletes its bytes.
func (acc *Accumulator) Discard() error {
	if err := acc.accepting(); err != nil {
		return err
	}
	acc.ended = messages.ReasonAccumulatorAborted
	defer acc.store.release(acc.artifact)
	return errors.Join(acc.file.Close(), remove(acc.store.partial(acc.artifact)))
}
