package store

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding"
	"errors"
	"hash"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"companion/adapters/runtime/fileid"
	"companion/messages"
)

// Assembly collects the chunks of an artifact in its partial file (M14). Runs write chunks, several at the same time. Follow
// computes the digest of the file from the bytes on disk, and Keep records the verified chunks; the caller runs both during the
// runs. After they have ended, one call of Commit, Abort or Discard ends the assembly.
type Assembly struct {
	store    *Store
	artifact messages.Artifact
	file     *os.File
	identity messages.FileIdentity // of which device and inode count
	bytes    atomic.Int64

	mu      sync.Mutex
	chunks  []chunk
	whole   hash.Hash     // digest of the first hashed chunks
	hashed  int           // chunks
	changed chan struct{} // closed and replaced when a chunk has been verified
	ended   messages.Reason
}

// chunk is the state of one chunk. The run that has claimed it owns it. It changes the digest freely, and the rest under the lock.
type chunk struct {
	have     int64 // bytes on disk, from the chunk's start
	verified bool
	adopted  bool // an earlier process verified it: Follow does so again
	claimed  bool
	mixed    bool      // some of the bytes come from an earlier process or another URL
	strict   bool      // it was wrong once: it may have bytes of one URL only, so that the wrong one is found
	url      string    // of the bytes
	digest   hash.Hash // of the bytes; nil: they must be read
	parts    []part    // of a mixed chunk, in order
	untold   bool      // some of its bytes are of an earlier process
	suspects []part    // the parts of the wrong chunk that was dropped
}

// part is what one URL has sent of a chunk.
type part struct {
	url string
	end int64  // from the start of the chunk
	sum []byte // of the bytes up to end, as they came
}

// keepPeriod is the shortest time between two records of verified chunks. After a kill, the chunks that no record has are
// read again.
const keepPeriod = time.Second

// Assemble opens the partial file of an artifact with chunks. Chunks that a record of the store calls verified are not fetched
// again, unless Follow finds them altered. After a crash, the other bytes on disk are read here. Errors are those of Accumulate,
// and the cause of ctx's end.
func (s *Store) Assemble(ctx context.Context, a messages.Artifact) (*Assembly, error) {
	if err := s.reserve(a); err != nil {
		return nil, err
	}
	file, identity, err := s.openPartial(a)
	if err != nil {
		s.release(a)
		return nil, err
	}
	as := &Assembly{
		store: s, artifact: a, file: file, identity: identity,
		chunks: make([]chunk, len(a.Chunks)), whole: sha256.New(), changed: make(chan struct{}),
	}
	err = as.resume(ctx, identity.Size)
	if err == nil {
		err = s.space(a.Size - as.Bytes())
	}
	if err == nil {
		err = as.record(false) // syncs: resume may have verified bytes that are in memory only
	}
	if err != nil {
		_ = file.Close()
		s.release(a)
		return nil, err
	}
	return as, nil
}

// Bytes returns how many bytes are on disk, verified or not. Safe for concurrent use.
func (as *Assembly) Bytes() int64 { return as.bytes.Load() }

// Complete reports whether every chunk is verified.
func (as *Assembly) Complete() bool {
	as.mu.Lock()
	defer as.mu.Unlock()
	for i := range as.chunks { // no copy: the run that owns a chunk changes its digest without the lock
		if !as.chunks[i].verified {
			return false
		}
	}
	return true
}

// Missing returns the number of chunks that are neither verified nor claimed.
func (as *Assembly) Missing() (n int) {
	as.mu.Lock()
	defer as.mu.Unlock()
	for i := range as.chunks {
		if c := &as.chunks[i]; !c.verified && !c.claimed {
			n++
		}
	}
	return n
}

// span returns where a chunk begins, and its length.
func (as *Assembly) span(i int) (start, length int64) {
	start = int64(i) * as.artifact.ChunkSize
	return start, min(as.artifact.ChunkSize, as.artifact.Size-start)
}

// resume adopts the chunks on disk, in a file of this size.
func (as *Assembly) resume(ctx context.Context, size int64) error {
	if size > as.artifact.Size {
		if err := as.file.Truncate(0); err != nil {
			return storing(err)
		}
		size = 0
	}
	p := as.recorded()
	for i := range as.chunks {
		c := &as.chunks[i]
		start, length := as.span(i)
		c.verified = p.has(i) && start+length <= size
		c.adopted = c.verified
		if !c.verified && p.Clean {
			c.have = max(0, min(p.Have[i], size-start))
		} else if !c.verified && start < size {
			if err := as.reread(ctx, i, min(length, size-start)); err != nil {
				return err
			}
		}
		if c.verified {
			c.have = length
		}
		c.mixed = true
		as.bytes.Add(c.have)
	}
	return nil
}

// reread verifies the first n bytes of a chunk, which no record describes. A complete chunk that is wrong has a hole, because
// its transfer was interrupted.
func (as *Assembly) reread(ctx context.Context, i int, n int64) error {
	c := &as.chunks[i]
	if err := as.load(ctx, i, n); err != nil {
		return err
	}
	c.have = n
	if _, length := as.span(i); n < length {
		return nil
	}
	if c.verified = as.right(i); !c.verified {
		c.have = 0
	}
	c.digest = nil
	return nil
}

// load sets the digest of a chunk to the one of its first n bytes on disk.
func (as *Assembly) load(ctx context.Context, i int, n int64) error {
	start, _ := as.span(i)
	digest := sha256.New()
	if _, err := io.Copy(digest, contextReader{ctx, io.NewSectionReader(as.file, start, n)}); err != nil {
		return unreadable(ctx, err)
	}
	as.chunks[i].digest = digest
	return nil
}

func (as *Assembly) right(i int) bool {
	return subtle.ConstantTimeCompare(as.chunks[i].digest.Sum(nil), as.artifact.Chunks[i][:]) == 1
}

// Follow adds the verified chunks to the digest of the file, in order, as they are on disk. It begins with the first chunk also
// in a resumed transfer, because bytes may have changed since they were recorded: an altered chunk becomes a missing one. Follow
// returns nil when all chunks are added, and otherwise the cause of ctx's end or an *Error.
func (as *Assembly) Follow(ctx context.Context) error {
	buffer := make([]byte, 256<<10)
	for {
		as.mu.Lock()
		next, changed := as.hashed, as.changed
		ready := next < len(as.chunks) && as.chunks[next].verified
		as.mu.Unlock()
		switch {
		case next == len(as.chunks):
			return nil
		case ready:
			if err := as.follow(ctx, next, buffer); err != nil {
				return err
			}
		default:
			select {
			case <-changed:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

func (as *Assembly) follow(ctx context.Context, i int, buffer []byte) error {
	start, length := as.span(i)
	c := &as.chunks[i]                                                 // verified and not hashed: only Follow changes it
	before, err := as.whole.(encoding.BinaryMarshaler).MarshalBinary() // crypto/sha256 documents the type
	if err != nil {
		return storing(err)
	}
	to, again := io.Writer(as.whole), sha256.New()
	if c.adopted {
		to = io.MultiWriter(as.whole, again)
	}
	// Only an io.Writer is visible to CopyBuffer, so that it uses the buffer.
	n, err := io.CopyBuffer(struct{ io.Writer }{to}, contextReader{ctx, io.NewSectionReader(as.file, start, length)}, buffer)
	if err != nil {
		return unreadable(ctx, err)
	}
	wrong := n != length || c.adopted && subtle.ConstantTimeCompare(again.Sum(nil), as.artifact.Chunks[i][:]) != 1
	if wrong {
		if err := as.whole.(encoding.BinaryUnmarshaler).UnmarshalBinary(before); err != nil {
			return storing(err)
		}
	}
	as.mu.Lock()
	defer as.mu.Unlock()
	c.adopted = false
	if wrong {
		as.bytes.Add(-c.have)
		c.have, c.verified = 0, false
		return nil
	}
	as.hashed = i + 1
	return nil
}

// Keep records the verified chunks while they arrive, at most once per keepPeriod, until ctx ends.
func (as *Assembly) Keep(ctx context.Context) error {
	for {
		as.mu.Lock()
		changed := as.changed
		as.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := as.record(false); err != nil {
			return err
		}
		select {
		case <-time.After(keepPeriod):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// record writes the state to disk. The bytes are synced before the record that calls them verified, so that it is true
// also after a loss of power.
func (as *Assembly) record(clean bool) error {
	p := as.snapshot(clean)
	if err := as.file.Sync(); err != nil {
		return storing(err)
	}
	as.store.testOnlyStep()
	return as.save(p)
}

// Commit compares the digest of the file. A right file gets its final name, as after Accumulator.Commit; a wrong one is
// deleted, with digest_mismatch. Every chunk is verified, and Follow has returned nil.
func (as *Assembly) Commit() error {
	if err := as.end(messages.ReasonAccumulatorFinalized); err != nil {
		return err
	}
	defer as.file.Close()
	if as.hashed != len(as.chunks) {
		return &Error{Reason: messages.ReasonTransferFailed, what: "chunks that are not in the digest of the file"}
	}
	if err := as.file.Sync(); err != nil {
		return storing(err)
	}
	as.store.testOnlyStep()
	part := as.store.partial(as.artifact)
	now, err := fileid.Of(as.file)
	switch {
	case err != nil:
		return storing(err)
	case now.Size != as.artifact.Size:
		return &Error{messages.ReasonSizeMismatch, "the file has another size than the manifest says", remove(part)}
	case subtle.ConstantTimeCompare(as.whole.Sum(nil), as.artifact.SHA256[:]) != 1:
		return &Error{messages.ReasonDigestMismatch, "the chunks are right, but the file is not: the manifest contradicts itself", remove(part)}
	}
	return as.store.install(as.file, as.artifact, now)
}

// Abort ends an interrupted transfer. It keeps and records its bytes.
func (as *Assembly) Abort() error {
	if as.Bytes() == 0 {
		return as.Discard()
	}
	if err := as.end(messages.ReasonAccumulatorAborted); err != nil {
		return err
	}
	return errors.Join(as.record(true), as.file.Close())
}

// Discard ends the transfer and deletes its bytes.
func (as *Assembly) Discard() error {
	if err := as.end(messages.ReasonAccumulatorAborted); err != nil {
		return err
	}
	return errors.Join(as.file.Close(), remove(as.store.partial(as.artifact)))
}

func (as *Assembly) end(reason messages.Reason) error {
	if as.ended != "" {
		return &Error{Reason: as.ended, what: "the assembly has ended"}
	}
	as.ended = reason
	as.store.release(as.artifact)
	return nil
}
