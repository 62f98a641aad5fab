package frontdoor

import (
	"slices"
	"time"

	"companion/adapters/door/relay"
	"companion/messages"
)

// stay is one request that is in the runtime, as far as is known. It holds digests of the request only.
type stay struct {
	launch messages.Launch
	print  fingerprint
	sent   time.Time
	counts bool // the runtime only counts its tokens, which says nothing about its worker
	wakes  bool // it was sent to a model that was asleep
	late   bool // it was sent when the runtime had just ended the connection of another request
	noted  bool // its runtime has ended

	// Of a request that has ended here without an answer.
	left   bool
	leftAt time.Time
	gone   bool // its client had left
	// closed is when the runtime had ended its side of the connection, or will have noticed that this side is closed. By then
	// it has told its worker to drop the request. The worker takes its work in order, so a request that is sent later and
	// answered shows that it has. Zero: the runtime may not notice.
	closed time.Time
}

// noticeTime is more than llama-server needs to notice a connection that was closed: it looks once a second, and a write
// fails at once.
const noticeTime = 3 * time.Second

// needsTwo reports whether the death of the runtime with only this request in it is no evidence by itself.
func (s *stay) needsTwo(now time.Time) bool {
	return s.late || s.gone || s.wakes || s.left && age(s.leftAt, now) >= suspicionTime
}

// watched is one exchange with the runtime that the quarantine follows. It belongs to one goroutine.
type watched struct {
	q        *Quarantine
	snapshot messages.Snapshot
	print    fingerprint
	counts   bool
	stay     *stay // nil until something is sent
}

// watch returns what follows a request to the runtime of a snapshot. Counts is stay.counts. A request that is never sent is
// in no runtime.
func (q *Quarantine) watch(s messages.Snapshot, f fingerprint, counts bool) *watched {
	return &watched{q: q, snapshot: s, print: f, counts: counts}
}

// sending notes that something is about to be sent; a second call changes nothing.
func (w *watched) sending() {
	if w.stay != nil {
		return
	}
	w.stay = &stay{launch: w.snapshot.Launch, print: w.print, wakes: w.snapshot.Asleep, counts: w.counts}
	w.q.enter(w.stay)
}

// leave notes how the exchange ended.
func (w *watched) leave(r relay.Result) {
	if w.stay == nil {
		return
	}
	r.Sent = r.Sent || r.Reason == "" // after a panic nothing is known
	w.q.leave(w.stay, r)
}

// settled notes what became of the connection of a client that left.
func (w *watched) settled(noticed bool) {
	if w.stay == nil || !noticed {
		return
	}
	w.q.mu.Lock()
	defer w.q.mu.Unlock()
	w.stay.closed = time.Now().Add(noticeTime)
}

// enter notes that a request goes to the runtime. The caller must call leave.
func (q *Quarantine) enter(s *stay) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s.sent = time.Now()
	s.late = q.failed.launch == s.launch && age(q.failed.at, s.sent) < lateTime
	q.inside[s] = struct{}{}
}

// leave notes how the request ended.
func (q *Quarantine) leave(s *stay, r relay.Result) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.inside, s)
	now := time.Now()
	switch {
	case r.Whole && r.Reason != messages.ReasonOK:
		// The runtime refused the request or failed to answer it, and survived: its text and schemas stay unproven.
	case r.Whole:
		q.releaseLocked(s)
		for _, d := range s.print.all() {
			q.answered.set(d, struct{}{})
			if !q.recordOf(d, now).refused {
				q.noted.drop(d)
			}
		}
	case r.Sent && !s.noted:
		if len(q.left) == maxDepartures {
			q.left = append(q.left[:0], q.left[1:]...)
		}
		s.left, s.leftAt, s.gone = true, now, r.Gone
		switch {
		case r.Lost:
			s.closed = now
		case r.Ending == nil: // this side has closed the connection
			s.closed = now.Add(noticeTime)
		}
		q.left = append(q.left, s)
		if r.Lost && !r.Gone && !s.late {
			q.failed = failure{launch: s.launch, at: now}
		}
	}
}

// releaseLocked forgets the requests that the runtime has dropped, because it has answered s, which came after that.
func (q *Quarantine) releaseLocked(s *stay) {
	if s.counts {
		return
	}
	q.left = slices.DeleteFunc(q.left, func(d *stay) bool {
		return d.launch == s.launch && !d.closed.IsZero() && d.closed.Before(s.sent)
	})
}

// takeSuspects returns the requests that were in the runtime of a launch at its end, by digest. Equal requests count as one.
func (q *Quarantine) takeSuspects(l messages.Launch) map[digest]*stay {
	present := map[digest]*stay{}
	add := func(s *stay) {
		if known, twice := present[s.print.whole]; twice {
			merged := *s
			merged.gone, merged.late, merged.wakes = s.gone && known.gone, s.late && known.late, s.wakes && known.wakes
			if !known.left || s.left && known.leftAt.After(s.leftAt) {
				merged.left, merged.leftAt = known.left, known.leftAt
			}
			s = &merged
		}
		present[s.print.whole] = s
	}
	for s := range q.inside {
		if s.launch == l && !s.noted {
			s.noted = true
			add(s)
		}
	}
	later := q.left[:0]
	for _, s := range q.left {
		switch {
		case s.launch == l:
			add(s)
		case s.launch > l:
			later = append(later, s)
		}
	}
	clear(q.left[len(later):])
	q.left = later
	return present
}

// withoutLate leaves out the requests that were sent after the runtime had ended another one's connection and have left it
// too, unless there are no others. It excuses each for one death only: the connection may have ended for another reason, in
// a runtime that lived on until this request came.
func (q *Quarantine) withoutLate(present map[digest]*stay, now time.Time) map[digest]*stay {
	suspects, timely := map[digest]*stay{}, false
	for whole, d := range present {
		timely = timely || !d.late
		if !d.late || !d.left || q.recordOf(whole, now).excused {
			suspects[whole] = d
		}
	}
	if !timely {
		return present
	}
	for whole := range present {
		if _, suspect := suspects[whole]; !suspect {
			r := q.recordOf(whole, now)
			r.excused, r.at = true, now
			q.noted.set(whole, r)
		}
	}
	return suspects
}
