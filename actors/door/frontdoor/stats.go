package frontdoor

import (
	"sync"
	"sync/atomic"
	"time"

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
	buckets  [len(bucketBounds) + 1]atomic.Int64
	sum      atomic.Int64 // nanoseconds
	active   atomic.Int64 // nanoseconds since 1970
	dropped  sync.Map     // name of a field → *atomic.Int64; the names are those of the tables

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

func (s *stats) took(d time.Duration) {
	i := 0
	for i < len(bucketBounds) && d > bucketBounds[i] {
		i++
	}
	s.buckets[i].Add(1)
	s.sum.Add(int64(d))
}

func (s *stats) heard() { s.active.Store(time.Now().UnixNano()) }

// fill writes the counts into v. Buckets are cumulative, as in OpenMetrics.
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
	for i, bound := range bucketBounds {
		v.LatencyCount += s.buckets[i].Load()
		v.Latency = append(v.Latency, messages.LatencyBucket{UpTo: bound, Count: v.LatencyCount})
	}
	v.LatencyCount += s.buckets[len(bucketBounds)].Load()
	v.LatencySum = time.Duration(s.sum.Load())
	if at := s.active.Load(); at != 0 {
		v.LastActivity = time.Unix(0, at)
	}
}
