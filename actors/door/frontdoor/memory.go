package frontdoor

import (
	"sync"
	"sync/atomic"
)

const (
	// freeBody is the size up to which a body counts as small. The number of connections bounds small bodies;
	// larger ones share Bounds.BodyMemory.
	freeBody = 64 << 10
	// slack is extra room for re-encoding a body; unusual bodies need more. A chunked body needs one byte of it to
	// show that it is no longer than it was.
	slack = 1 << 10
	// freeBuffer is the size of a buffer for a small body.
	freeBuffer = freeBody + slack
	// firstBuffer is the size of a new buffer.
	firstBuffer = 4 << 10
)

// memory counts the bytes of the buffers for large bodies. Buffers grow as data arrives, so a large
// Content-Length without data reserves no memory.
type memory struct {
	bound int64
	taken atomic.Int64
}

// take counts a buffer of size bytes. It returns false when there is no room for it.
func (m *memory) take(size int) bool {
	if size <= freeBuffer {
		return true
	}
	for {
		taken := m.taken.Load()
		if taken+int64(size) > m.bound {
			return false
		}
		if m.taken.CompareAndSwap(taken, taken+int64(size)) {
			return true
		}
	}
}

func (m *memory) give(size int) {
	if size > freeBuffer {
		m.taken.Add(-int64(size))
	}
}

// bodyBuffer is a body in memory. It belongs to one request, which must release it.
type bodyBuffer struct {
	memory *memory
	bytes  []byte
}

var small = sync.Pool{New: func() any { return new(bodyBuffer) }}

// hold returns an empty buffer, or a small one that was used before.
func (m *memory) hold() *bodyBuffer {
	h := small.Get().(*bodyBuffer)
	h.memory = m
	return h
}

// grow doubles the room, up to most bytes, so that a client makes us hold at most twice what it has sent.
// Both buffers count while bytes are copied.
func (h *bodyBuffer) grow(most int) bool {
	size := max(2*cap(h.bytes), firstBuffer)
	if cap(h.bytes) < freeBuffer {
		size = min(size, freeBuffer)
	}
	return h.reserve(min(size, most))
}

// reserve makes room for size bytes.
func (h *bodyBuffer) reserve(size int) bool {
	if size <= cap(h.bytes) {
		return true
	}
	if !h.memory.take(size) {
		return false
	}
	larger := append(make([]byte, 0, size), h.bytes...)
	h.memory.give(cap(h.bytes))
	h.bytes = larger
	return true
}

// become takes over b, which was appended to h.bytes and may have outgrown it.
func (h *bodyBuffer) become(b []byte) bool {
	if cap(b) > cap(h.bytes) {
		if !h.memory.take(cap(b)) {
			return false
		}
		h.memory.give(cap(h.bytes))
	}
	h.bytes = b
	return true
}

// release returns the memory.
func (h *bodyBuffer) release() {
	h.memory.give(cap(h.bytes))
	if cap(h.bytes) > freeBuffer {
		h.bytes = nil
	}
	h.memory, h.bytes = nil, h.bytes[:0]
	small.Put(h)
}
