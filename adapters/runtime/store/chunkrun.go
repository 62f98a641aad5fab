package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync/atomic"

	"companion/messages"
)

var (
	// ErrRunDone ends a transfer whose server sends more than the run needs. The run is complete.
	ErrRunDone = errors.New("store: the run is complete")
	// ErrStale means that a chunk was wrong, but that its bytes come from several transfers. They were dropped, and the chunk
	// is missing again.
	ErrStale = errors.New("store: bytes of an earlier transfer were wrong")
	// ErrTooShort means that a response ended before its announced end.
	ErrTooShort = &Error{Reason: messages.ReasonSizeMismatch, what: "fewer bytes than the manifest says"}
	// ErrNoRanges means that the server sends the whole file instead of the run.
	ErrNoRanges = errors.New("store: the server does not serve ranges")
)

// Run is a download.Sink for consecutive chunks, which no other run writes. Release ends it. It is not safe for concurrent use,
// except Added.
type Run struct {
	as    *Assembly
	ctx   context.Context // of reads in Begin: a sink's methods have none
	url   string
	alone bool
	first int
	last  int // exclusive
	next  int // the chunk that is being written
	at    int64
	added atomic.Int64
	// blamed are the URLs that sent wrong bytes of a chunk that several URLs have sent.
	blamed []string
}

// Claim returns a run of at most most chunks, for bytes from url; nil if no chunk is missing that no run has claimed. alone
// means that no other run exists, so that a server may also send the whole file.
func (as *Assembly) Claim(ctx context.Context, url string, most int, alone bool) *Run {
	as.mu.Lock()
	defer as.mu.Unlock()
	for i := range as.chunks {
		if !as.claim(i, url) {
			continue
		}
		r := &Run{as: as, ctx: ctx, url: url, alone: alone, first: i, next: i, last: i + 1}
		// A chunk with bytes begins a run of its own: the server can send only consecutive bytes.
		for r.last < len(as.chunks) && r.last-i < most && as.chunks[r.last].have == 0 && as.claim(r.last, url) {
			r.last++
		}
		r.at = r.Offset()
		return r
	}
	return nil
}

// claim marks a missing chunk, and reports whether it could. The caller holds the lock.
func (as *Assembly) claim(i int, url string) bool {
	c := &as.chunks[i]
	if c.verified || c.claimed {
		return false
	}
	if c.have > 0 && c.url != url {
		c.mixed = true
		if c.untold = c.untold || c.digest == nil; !c.untold {
			c.parts = append(c.parts, part{c.url, c.have, c.digest.Sum(nil)})
		}
		if c.strict {
			as.bytes.Add(-c.have)
			c.have, c.digest = 0, nil
		}
	}
	if c.have == 0 {
		c.mixed, c.untold, c.parts = false, false, nil
	}
	c.claimed, c.url = true, url
	return true
}

// Offset is the position of the first missing byte.
func (r *Run) Offset() int64 {
	start, _ := r.as.span(r.first)
	return start + r.as.chunks[r.first].have
}

// Length is the number of bytes from Offset to the end of the run.
func (r *Run) Length() int64 {
	start, length := r.as.span(r.last - 1)
	return start + length - r.Offset()
}

// Added returns the number of bytes that the run has written. Safe for concurrent use.
func (r *Run) Added() int64 { return r.added.Load() }

// Blamed returns the URLs whose bytes were wrong in a mixed chunk that this run has fetched again. Call it after the transfer.
func (r *Run) Blamed() []string { return r.blamed }

// blame compares a right chunk with the parts of the wrong one that was dropped. The first part with which the bytes differ is
// the wrong one.
func (r *Run) blame(i int) {
	c := &r.as.chunks[i]
	start, length := r.as.span(i)
	for _, p := range c.suspects {
		digest := sha256.New()
		if p.end < length {
			if _, err := io.Copy(digest, io.NewSectionReader(r.as.file, start, p.end)); err != nil {
				break
			}
			if bytes.Equal(digest.Sum(nil), p.sum) {
				continue
			}
		}
		r.blamed = append(r.blamed, p.url)
		break
	}
	c.suspects = nil
}

// Begin sets where the next bytes start; see download.Sink. Bytes before the run's offset are skipped.
func (r *Run) Begin(offset int64, _ string) error {
	if offset > r.at {
		return &Error{Reason: messages.ReasonTransferFailed, what: "bytes that do not follow those on disk"}
	}
	if offset < r.at && !r.alone {
		return ErrNoRanges
	}
	r.at = offset
	return nil
}

// Write receives the next bytes. A chunk is verified with its last byte. A wrong one is dropped, with ErrStale or an *Error
// with digest_mismatch: then all of its bytes came from this run's URL.
func (r *Run) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		if r.next == r.last && !r.extend() {
			return total - len(p), ErrRunDone
		}
		n, err := r.writeChunk(p)
		p = p[n:]
		if err != nil {
			return total - len(p), err
		}
	}
	return total, nil
}

// extend claims the chunk after the run, because the server sends more than it was asked for.
func (r *Run) extend() bool {
	as := r.as
	as.mu.Lock()
	defer as.mu.Unlock()
	for i := r.last; i < len(as.chunks) && r.alone; i++ {
		if as.claim(i, r.url) {
			r.next, r.last = i, i+1
			return true
		}
	}
	return false
}

// writeChunk writes the part of p that belongs to the current chunk, or skips bytes before it.
func (r *Run) writeChunk(p []byte) (int, error) {
	as, c := r.as, &r.as.chunks[r.next]
	start, length := as.span(r.next)
	if skip := start + c.have - r.at; skip > 0 {
		n := min(skip, int64(len(p)))
		r.at += n
		return int(n), nil
	}
	if c.digest == nil {
		if c.have == 0 {
			c.digest = sha256.New()
		} else if err := as.load(r.ctx, r.next, c.have); err != nil {
			return 0, err
		}
	}
	p = p[:min(int64(len(p)), length-c.have)]
	n, err := as.file.WriteAt(p, r.at)
	_, _ = c.digest.Write(p[:n]) // never fails
	as.mu.Lock()
	c.have += int64(n)
	as.mu.Unlock()
	as.bytes.Add(int64(n))
	r.at += int64(n)
	r.added.Add(int64(n))
	as.store.testOnlyStep()
	if err != nil {
		return n, storing(err)
	}
	if c.have == length {
		return n, r.verify()
	}
	return n, nil
}

// verify decides about the current chunk, which is complete, and goes on to the next.
func (r *Run) verify() error {
	as, i := r.as, r.next
	right := as.right(i)
	if right {
		r.blame(i)
	}
	as.mu.Lock()
	defer as.mu.Unlock()
	c := &as.chunks[i]
	c.claimed, c.digest = false, nil
	r.next++
	if right {
		c.verified = true
		close(as.changed)
		as.changed = make(chan struct{})
		return nil
	}
	as.bytes.Add(-c.have)
	if c.mixed {
		c.strict = true
		if !c.untold {
			c.suspects = append(c.parts, part{url: r.url, end: c.have})
		}
		c.have = 0
		return ErrStale
	}
	c.have = 0
	return &Error{Reason: messages.ReasonDigestMismatch, what: "a chunk has other content than the manifest says"}
}

// Release gives back the chunks that are not verified, with their bytes. It reports whether the run is complete.
func (r *Run) Release() bool {
	r.as.mu.Lock()
	defer r.as.mu.Unlock()
	for i := r.next; i < r.last; i++ {
		r.as.chunks[i].claimed = false
	}
	return r.next >= r.last
}
