package frontdoor

import (
	"sync"
	"time"

	"companion/messages"
)

// Quarantine finds requests that end the runtime (queries of death) and keeps them from doing it twice (R11).
// It keeps digests of requests, never their text.
//
// When the runtime dies, every request in it is noted:
//
//   - A request that was alone in the runtime, or that was in it at two deaths, is refused for an hour.
//   - Any other noted request is a suspect. The next time it runs alone, so that the next death tells which
//     request is the cause and no honest request is at two deaths by coincidence. A complete answer clears it; a refusal by the
//     runtime does not.
//   - A request that was sent within a second after the runtime had ended the connection of another one, and that has left
//     the runtime, is excused, but only once: the runtime may have been dying already. One that is still in it is a suspect.
//     In both cases no request counts as alone.
//   - A request that ended here without an answer, such as one whose client has left, is in the runtime until the runtime has
//     shown that it works for it no longer (see stay.closed), or has ended.
//   - A request that the runtime has answered before, one whose client had left, and one that woke the model (R14) need two
//     deaths: there the runtime itself, another request, or too little memory is the likelier cause.
//   - A caller who varies the request meets four bounds. Fields that cannot matter to the runtime, such as
//     the seed, are not part of the digest. A text, or a set of schemas and tools, that two refused requests
//     share is refused in any request, unless the runtime has answered a request with it. White space, invisible
//     characters and letter case make no other text. After three deaths in five minutes every request runs
//     alone, and schemas and tools that the runtime has never answered have to wait for the end of the five
//     minutes. After ten deaths in an hour the pauses between the starts grow (fsm.RequestDeath).
//
// No death with a request in the runtime counts towards the crash loop: a caller with new deadly texts can
// cost the other callers one restart for each, and never the five minutes of a hold.
//
// It outlives the front door actor, so that a restart of that actor forgets nothing. It is safe for
// concurrent use.
type Quarantine struct {
	mu       sync.Mutex
	inside   map[*stay]struct{} // requests in the runtime
	left     []*stay            // requests without an answer that may be in it although nothing waits for them, oldest first
	noted    ring[record]       // by digest
	answered ring[struct{}]     // digests of requests with a complete answer, and of their parts
	deaths   []death            // in the last carefulTime
	failed   failure            // the last request whose connection the runtime ended without an answer
}

const (
	refusalTime = time.Hour
	// suspicionTime is how long after its end a request without an answer may still count as alone. Later it needs two deaths.
	suspicionTime = 20 * time.Second
	// carefulTime and carefulDeaths bound what a caller who varies deadly requests can do.
	carefulTime   = 5 * time.Minute
	carefulDeaths = 3
	// partDeaths is how many refused requests must share a part until the part is refused.
	partDeaths = 2

	// lateTime is how long after it has ended a connection a runtime may take to die. A request that is sent then may meet a
	// dying runtime, and need not be the cause.
	lateTime = time.Second

	maxDepartures = 1 << 10
	maxNoted      = 1 << 10
	maxAnswered   = 1 << 12
)

// record is what is known of a digest. It is forgotten refusalTime after at.
type record struct {
	deaths  int // of a part: refused requests that have it
	refused bool
	excused bool      // it was late at a death
	part    bool      // the digest is of a text, or of schemas and tools
	at      time.Time // of the last death
}

// failure is when a launch of the runtime ended the connection of a request. An error that it reports is none: it lives.
type failure struct {
	launch messages.Launch
	at     time.Time
}

type death struct {
	at        time.Time
	newFormat bool // a request with unanswered schemas or tools was in the runtime
}

// NewQuarantine returns a Quarantine that knows of no request.
func NewQuarantine() *Quarantine {
	return &Quarantine{inside: map[*stay]struct{}{}, noted: newRing[record](maxNoted), answered: newRing[struct{}](maxAnswered)}
}

// permission is the answer of judge.
type permission uint8

const (
	permitted permission = iota
	permittedAlone
	refusedForItself // the request, or a part of it, ended the runtime before
	refusedForKind   // other requests with new schemas or tools did, several times
)

// judge says whether a request may go to the runtime.
func (q *Quarantine) judge(f *fingerprint) permission {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	for _, d := range f.all() {
		if q.recordOf(d, now).refused {
			return refusedForItself
		}
	}
	if q.recordOf(f.folded, now).refused && !q.answered.has(f.text) {
		return refusedForItself
	}
	total, ofNewFormats := q.recentDeaths(now)
	switch {
	case ofNewFormats >= carefulDeaths && q.isNew(f.format):
		return refusedForKind
	case total >= carefulDeaths, q.recordOf(f.whole, now).deaths > 0:
		return permittedAlone
	}
	return permitted
}

// RuntimeEnded reports whether requests were in the runtime of a launch when it ended: then its end does not count towards
// the crash loop (A8). If the runtime died by itself, it notes them. A runtime that the daemon has ended, because it hung,
// for other artifacts, at a shutdown, says nothing about the requests in it. The lifecycle actor calls it once for each
// launch. It does not block.
func (q *Quarantine) RuntimeEnded(l messages.Launch, byItself bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	all := q.takeSuspects(l)
	if len(all) == 0 || !byItself {
		return len(all) > 0
	}
	present := q.withoutLate(all, now)
	d := death{at: now}
	for _, s := range present {
		d.newFormat = d.newFormat || q.isNew(s.print.format)
	}
	q.recentDeaths(now) // drops the old ones
	q.deaths = append(q.deaths[max(0, len(q.deaths)-4*carefulDeaths):], d)
	for whole, s := range present {
		r := q.recordOf(whole, now)
		r.deaths, r.at = r.deaths+1, now
		alone := len(all) == 1 && !s.needsTwo(now) && !q.answered.has(whole)
		if !r.refused && (alone || r.deaths >= 2) {
			r.refused = true
			q.blameParts(&s.print, now)
		}
		q.noted.set(whole, r)
	}
	return true
}

// blameParts counts a refused request against its text, in any spelling, and its schemas and tools. An answer to
// the same text in another spelling excuses nothing: that one may be harmless.
func (q *Quarantine) blameParts(f *fingerprint, now time.Time) {
	for _, part := range []struct{ sent, noted digest }{{f.text, f.folded}, {f.format, f.format}} {
		if part.sent == (digest{}) || q.answered.has(part.sent) {
			continue
		}
		r := q.recordOf(part.noted, now)
		r.deaths, r.at, r.part = r.deaths+1, now, true
		r.refused = r.deaths >= partDeaths
		q.noted.set(part.noted, r)
	}
}

// recordOf returns what is known of d, and the zero record after refusalTime.
func (q *Quarantine) recordOf(d digest, now time.Time) record {
	if r, known := q.noted.get(d); known && age(r.at, now) < refusalTime {
		return r
	}
	return record{}
}

// isNew reports whether f names schemas or tools that the runtime has not answered yet.
func (q *Quarantine) isNew(f digest) bool { return f != (digest{}) && !q.answered.has(f) }

// recentDeaths counts the deaths of the last carefulTime, and those with new schemas or tools.
func (q *Quarantine) recentDeaths(now time.Time) (total, ofNewFormats int) {
	recent := q.deaths[:0]
	for _, d := range q.deaths {
		if age(d.at, now) < carefulTime {
			recent = append(recent, d)
			if d.newFormat {
				ofNewFormats++
			}
		}
	}
	q.deaths = recent
	return len(recent), ofNewFormats
}

// refused counts the requests that are refused at the moment.
func (q *Quarantine) refused() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	for _, r := range q.noted.values {
		if r.refused && !r.part && age(r.at, now) < refusalTime {
			n++
		}
	}
	return n
}

// age is the time from at to now. The monotonic clock stands still while the machine sleeps, so the wall clock
// counts as well. A wall clock that was set back extends nothing.
func age(at, now time.Time) time.Duration {
	return max(now.Sub(at), now.Round(0).Sub(at.Round(0)))
}
