package relay

import (
	"errors"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"
)

const (
	// firstAnswer is the size of a new buffer in bytes.
	firstAnswer = 16 << 10
	// keptAnswer is the largest buffer that is kept for the next answer.
	keptAnswer = 1 << 20
)

var (
	errLongAnswer = errors.New("the answer is longer than allowed")
	errNoMemory   = errors.New("the answers that are read at the moment use up their memory")
)

// answerBuffer holds an answer that is read whole. Its capacity is taken from the budget of all such answers
// (Options.AnswerMemory) as bytes arrive; an announced length reserves nothing. It belongs to one exchange, which must
// release it.
type answerBuffer struct {
	budget *semaphore.Weighted
	bytes  []byte
}

var answerBuffers = sync.Pool{New: func() any { return new(answerBuffer) }}

// newAnswerBuffer returns an empty buffer.
func newAnswerBuffer(budget *semaphore.Weighted) *answerBuffer {
	b := answerBuffers.Get().(*answerBuffer)
	b.budget = budget
	if !budget.TryAcquire(int64(cap(b.bytes))) {
		b.bytes = nil
	}
	return b
}

// readFrom reads r to its end, at most limit bytes.
func (b *answerBuffer) readFrom(r io.Reader, limit int) error {
	for {
		if len(b.bytes) == cap(b.bytes) && !b.grow(limit+1) {
			return errNoMemory
		}
		n, err := r.Read(b.bytes[len(b.bytes):min(cap(b.bytes), limit+1)])
		b.bytes = b.bytes[:len(b.bytes)+n]
		switch {
		case len(b.bytes) > limit:
			return errLongAnswer
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// grow doubles the capacity, up to most bytes. Both buffers count while bytes are copied.
func (b *answerBuffer) grow(most int) bool {
	size := min(max(2*cap(b.bytes), firstAnswer), most)
	if !b.budget.TryAcquire(int64(size)) {
		return false
	}
	larger := append(make([]byte, 0, size), b.bytes...)
	b.budget.Release(int64(cap(b.bytes)))
	b.bytes = larger
	return true
}

// release returns the capacity to the budget. A buffer that is kept for reuse is cleared, because answers are private.
func (b *answerBuffer) release() {
	b.budget.Release(int64(cap(b.bytes)))
	if cap(b.bytes) > keptAnswer {
		b.bytes = nil
	}
	clear(b.bytes)
	b.budget, b.bytes = nil, b.bytes[:0]
	answerBuffers.Put(b)
}
