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
