package frontdoor

import (
	"sync"
	"sync/atomic"
	"time"

	"companion/adapters/door/relay"
	"companion/messages"
)

// bucketBounds are the upper bounds of the latency histogram. The last bucket has none.
var bucketBounds = [...]time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second,
	2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute,
}

// stats counts requests since the daemon started. It outlives restarts of the actor, because counters must
// not decrease.
type stats struct {
	verdicts sync.Map // messages.Reason → *atomic.Int64
	latency  histogram
	first    histogram    // from the head of a request to the first event of its stream
	active   atomic.Int64 // nanoseconds since 1970
	dropped  sync.Map     // name of a field → *atomic.Int64; the names are those of the tables

	prompt, completion atomic.Int64 // tokens of answers
	generating         atomic.Int64 // nanoseconds, from the first event of a stream, or the head of another answer, to the end
	progress           atomic.Int64 // events of streams and tokens of other answers, while they come

	applications sync.Map // digest of an application token → *applicationCounts
}

// drops counts the requests in which a field was left out.
func (s *stats) drops(fields []string) {
	for _, name := range fields {
		add(&s.dropped, name)
	}
}

// add counts one more of key.
func add(counts *sync.Map, key any) {
	n, found := counts.Load(key)
	if !found {
		n, _ = counts.LoadOrStore(key, new(atomic.Int64))
	}
	n.(*atomic.Int64).Add(1)
}

func (s *stats) verdict(r messages.Reason) { add(&s.verdicts, r) }

func (s *stats) took(d time.Duration) { s.latency.add(d) }

func (s *stats) heard(events int) {
	s.active.Store(time.Now().UnixNano())
	if events > 0 {
		s.progress.Add(int64(events))
	}
}

// answered counts the tokens of an answer and the time that they took. first is zero for an answer that is not a
// stream.
func (s *stats) answered(tokens relay.Tokens, began, first, ended time.Time) {
	s.prompt.Add(int64(tokens.Prompt))
	s.completion.Add(int64(tokens.Completion))
	if first.IsZero() {
		s.progress.Add(int64(tokens.Completion))
		first = began
	} else {
		s.first.add(first.Sub(began))
	}
	if tokens.Completion > 0 {
		s.generating.Add(int64(ended.Sub(first)))
	}
}

// histogram counts durations by bucketBounds.
type histogram struct {
	buckets [len(bucketBounds) + 1]atomic.Int64
	sum     atomic.Int64 // nanoseconds
}

func (h *histogram) add(d time.Duration) {
	i := 0
	for i < len(bucketBounds) && d > bucketBounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(int64(d))
}

// view returns cumulative buckets, as in OpenMetrics, and the count and sum of all durations.
func (h *histogram) view() (buckets []messages.LatencyBucket, count int64, sum time.Duration) {
	for i, bound := range bucketBounds {
		count += h.buckets[i].Load()
		buckets = append(buckets, messages.LatencyBucket{UpTo: bound, Count: count})
	}
	return buckets, count + h.buckets[len(bucketBounds)].Load(), time.Duration(h.sum.Load())
}

// fill writes the counts into v.
func (s *stats) fill(v *messages.DoorView) {
	v.Verdicts = map[messages.Reason]int64{}
	s.verdicts.Range(func(r, n any) bool {
		v.Verdicts[r.(messages.Reason)] = n.(*atomic.Int64).Load()
		return true
	})
	v.Dropped = map[string]int64{}
	s.dropped.Range(func(name, n any) bool {
		v.Dropped[name.(string)] = n.(*atomic.Int64).Load()
		return true
	})
	v.Latency, v.LatencyCount, v.LatencySum = s.latency.view()
	v.First, v.FirstCount, v.FirstSum = s.first.view()
	v.PromptTokens, v.CompletionTokens, v.Progress = s.prompt.Load(), s.completion.Load(), s.progress.Load()
	v.Generating = time.Duration(s.generating.Load())
	if at := s.active.Load(); at != 0 {
		v.LastActivity = time.Unix(0, at)
	}
}
