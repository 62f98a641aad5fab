package frontdoor

import (
	"sync"
	"time"

	"go.uber.org/zap"

	"companion/messages"
)

// refusalLog limits the access log's lines about requests that the guard refuses (L11): any process on the
// machine can cause them, also without the token, and an unlimited number would push the history out of the
// rotated log. For each reason at most refusalLines are written in any refusalSpan. The others are counted, and
// one line per span has their number.
type refusalLog struct {
	log *zap.Logger

	mu      sync.Mutex
	reasons map[messages.Reason]*refusals // as many as the guard has reasons
	closed  bool
}

const (
	refusalLines = 10
	refusalSpan  = time.Second
)

// refusals are those of one reason.
type refusals struct {
	written [refusalLines]time.Time // ring of the last lines
	next    int                     // the oldest line
	more    int                     // refusals that were not written
	since   time.Time               // of the first of more
	flush   *time.Timer             // writes the count; nil while more is 0
}

// allow reports whether a refusal may be written, and counts it if not.
func (l *refusalLog) allow(reason messages.Reason) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.reasons[reason]
	if r == nil {
		if l.reasons == nil {
			l.reasons = map[messages.Reason]*refusals{}
		}
		r = new(refusals)
		l.reasons[reason] = r
	}
	now := time.Now()
	if oldest := r.written[r.next]; oldest.IsZero() || now.Sub(oldest) >= refusalSpan {
		r.written[r.next] = now
		r.next = (r.next + 1) % refusalLines
		return true
	}
	if r.more++; r.flush == nil && !l.closed {
		r.since = now
		r.flush = time.AfterFunc(refusalSpan, func() { l.writeCount(reason) })
	}
	return false
}

// writeCount writes how many refusals of a reason were not written one by one.
func (l *refusalLog) writeCount(reason messages.Reason) {
	l.mu.Lock()
	r := l.reasons[reason]
	more, since := r.more, r.since
	r.more, r.flush = 0, nil
	l.mu.Unlock()
	if more > 0 {
		l.log.Info("more requests refused", zap.String("reason", string(reason)), zap.Int("count", more),
			zap.Duration("within", time.Since(since)))
	}
}

// close writes the counts that are left. Call it after the last request.
func (l *refusalLog) close() {
	l.mu.Lock()
	l.closed = true
	var left []messages.Reason
	for reason, r := range l.reasons {
		// A timer that cannot be stopped writes the count itself.
		if r.flush != nil && r.flush.Stop() {
			left = append(left, reason)
		}
	}
	l.mu.Unlock()
	for _, reason := range left {
		l.writeCount(reason)
	}
}
