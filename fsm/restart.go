package fsm

import (
	"slices"
	"time"
)

// The numbers of A8: five failures in five minutes are a crash loop, and a healthy minute forgives.
const (
	CrashLoopFailures = 5
	CrashLoopWindow   = 5 * time.Minute
	HealthyAfter      = time.Minute
)

// CrashLoop adds a failure at now to the earlier ones, forgets those that have left the window,
// and reports whether what remains is a crash loop. The given slice is not changed.
func CrashLoop(failures []time.Time, now time.Time) (recent []time.Time, loop bool) {
	recent = slices.DeleteFunc(slices.Clone(failures), func(t time.Time) bool {
		return now.Sub(t) >= CrashLoopWindow
	})
	recent = append(recent, now)
	return recent, len(recent) >= CrashLoopFailures
}
