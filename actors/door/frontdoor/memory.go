package frontdoor

import (
	"sync"
	"sync/atomic"
)

const (
	// freeBody is the size up to which a body counts as small: small ones are bounded by the number
	// of connections, larger ones share Bounds.BodyMemory.
	freeBody = 64 << 10
	// added is what a body grows by when it is encoded anew, unless it is odd. A chunked one
	// needs a byte of it, by which it is seen to be no longer than it was.
	added = 1 << 10
	// freeBuffer holds a small body.
	freeBuffer = freeBody + added
	// firstBuffer is where a buffer begins.
	firstBuffer = 4 << 10
)

// memory counts what large bodies hold at once, in bytes. What counts is the room that was made for
// them, not what a client announces: room is made as bytes arrive.
type memory struct {
	bound int64
	taken atomic.Int64
}

// take counts a buffer of size bytes; false: there is no room for it.
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

// held is a body in memory. It belongs to one request, which must release it.
type held struct {
	memory *memory
	bytes  []byte
}

var small = sync.Pool{New: func() any { return new(held) }}

// hold begins with nothing, or with a small buffer that was used before.
func (m *memory) hold() *held {
	h := small.Get().(*held)
	h.memory = m
	return h
}

// grow makes more room, up to most bytes: twice as much each time, so that a client makes us hold at
// most twice what it has sent. While bytes are moved both buffers count.
func (h *held) grow(most int) bool {
	size := max(2*cap(h.bytes), firstBuffer)
	if cap(h.bytes) < freeBuffer {
		size = min(size, freeBuffer)
	}
	return h.reserve(min(size, most))
}

// reserve makes room for size bytes.
func (h *held) reserve(size int) bool {
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
func (h *held) become(b []byte) bool {
	if cap(b) > cap(h.bytes) {
		if !h.memory.take(cap(b)) {
			return false
		}
		h.memory.give(cap(h.bytes))
	}
	h.bytes = b
	return true
}

// release gives the memory back.
func (h *held) release() {
	h.memory.give(cap(h.bytes))
	if cap(h.bytes) > freeBuffer {
		h.bytes = nil
	}
	h.memory, h.bytes = nil, h.bytes[:0]
	small.Put(h)
}
