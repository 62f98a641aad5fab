package provision

import "time"

const (
	// maxLines bounds the connections of one download (M14).
	maxLines = 4
	// linesPeriod is the time over which a rate is measured.
	linesPeriod = 3 * time.Second
	// linesGain is the factor by which one more connection must raise the rate to be kept. It is above the noise of a
	// measurement, and far below what a connection adds whose rate the server or the distance limits.
	linesGain = 1.15
	// linesPause is the time until one more connection is tried again.
	linesPause = time.Minute
)

// lines decides how many connections a download uses: one, and one more as long as the rate grows with it.
type lines struct {
	limit    int
	at       time.Time // of the last measurement
	bytes    int64
	settling bool    // the number of connections has just changed, so that the next measurement does not count
	trial    bool    // the last connection is on trial
	base     float64 // rate before the trial
	next     time.Time
}

func newLines(now time.Time, bytes int64) lines {
	return lines{limit: 1, at: now, bytes: bytes, settling: true, next: now}
}

// measure takes the bytes on disk at now, and sets the limit. running is the number of connections in use.
func (l *lines) measure(now time.Time, bytes int64, running int) {
	rate := float64(bytes-l.bytes) / now.Sub(l.at).Seconds()
	l.at, l.bytes = now, bytes
	switch {
	case running < l.limit:
		l.settling = true
	case l.settling:
		l.settling = false
	case l.trial && rate < l.base*linesGain:
		l.limit--
		l.trial, l.settling, l.next = false, true, now.Add(linesPause)
	case l.limit < maxLines && !now.Before(l.next):
		l.limit++
		l.trial, l.settling, l.base = true, true, rate
	default:
		l.trial = false
	}
}
