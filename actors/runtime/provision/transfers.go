package provision

import (
	"slices"
	"strings"
	"time"

	"companion/messages"
)

// beatPeriod is the interval of publications of progress during a transfer; M11 requires one per second.
const beatPeriod = 500 * time.Millisecond

// smoothing is the weight of the newest rate: with two measurements a second the published rate follows within a few
// seconds and does not jump.
const smoothing = 0.25

// meter computes a rate from byte counts.
type meter struct {
	at    time.Time
	bytes int64
	rate  float64 // bytes per second
}

// measure adds a count and returns the rate. Bytes that were on disk at the start, or after a restart from zero, are not
// progress.
func (m *meter) measure(now time.Time, bytes int64) float64 {
	elapsed := now.Sub(m.at).Seconds()
	if m.at.IsZero() || bytes < m.bytes {
		m.rate = 0
	} else if elapsed > 0 {
		newest := float64(bytes-m.bytes) / elapsed
		if m.rate == 0 {
			m.rate = newest
		}
		m.rate += smoothing * (newest - m.rate)
	}
	m.at, m.bytes = now, bytes
	return m.rate
}

// publish sets the watch to the running transfers, sorted by name.
func (s *service) publish() {
	now := time.Now()
	transfers := []messages.Transfer{} // in JSON a list, also when empty
	for key, j := range s.jobs {
		acc := j.transfer.Load()
		if acc == nil {
			continue
		}
		if s.meters[key] == nil {
			s.meters[key] = &meter{}
		}
		t := messages.Transfer{Name: j.artifact.Name, Bytes: (*acc).Bytes(), Total: j.artifact.Size, SecondsLeft: -1}
		if rate := s.meters[key].measure(now, t.Bytes); rate >= 1 {
			t.BytesPerSecond = int64(rate)
			t.SecondsLeft = int64(float64(t.Total-t.Bytes)/rate + 0.5)
		}
		transfers = append(transfers, t)
	}
	for key := range s.meters {
		if s.jobs[key] == nil {
			delete(s.meters, key)
		}
	}
	slices.SortFunc(transfers, func(a, b messages.Transfer) int { return strings.Compare(a.Name, b.Name) })
	s.Transfers.Set(transfers)
}
