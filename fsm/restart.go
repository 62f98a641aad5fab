package fsm

import (
	"slices"
	"time"
)

// The numbers of A8: five failures in five minutes are a crash loop; one healthy minute clears the history.
const (
	CrashLoopFailures = 5
	CrashLoopWindow   = 5 * time.Minute
	HealthyAfter      = time.Minute
)

// CrashLoop returns the failures within the window, with one at now added, and whether they are a crash loop.
// It does not change the given slice.
func CrashLoop(failures []time.Time, now time.Time) (recent []time.Time, loop bool) {
	recent = slices.DeleteFunc(slices.Clone(failures), func(t time.Time) bool {
		return now.Sub(t) >= CrashLoopWindow
	})
	recent = append(recent, now)
	return recent, len(recent) >= CrashLoopFailures
}

// The numbers of R11: that many ends of the runtime with requests in it are followed by a start at once, in any
// hour. After more of them the pause grows, so that a caller with endless deadly requests cannot keep the machine
// busy with starts.
const (
	RequestDeaths      = 10
	RequestDeathWindow = time.Hour
	longestPause       = 30 * time.Second
)

// RequestDeath returns the ends within the window, with one at now added, and the pause before the next start: none
// for the first RequestDeaths, then a second, which doubles with each up to half a minute. It does not change the
// given slice.
func RequestDeath(ends []time.Time, now time.Time) (recent []time.Time, pause time.Duration) {
	recent = slices.DeleteFunc(slices.Clone(ends), func(t time.Time) bool {
		return now.Sub(t) >= RequestDeathWindow
	})
	recent = append(recent, now)
	for n := RequestDeaths; n < len(recent) && pause < longestPause; n++ {
		pause = min(max(time.Second, 2*pause), longestPause)
	}
	return recent, pause
}
