package fsm

import (
	"time"

	"companion/messages"
)

// Causes say why a fact does not hold, as reported by the actor that withdrew it. The zero Reason means that
// no actor has reported the fact yet.
type Causes struct {
	Verified, Bound, Token, Ready messages.Reason
}

// Available decides companionAvailable (A5): all facts hold, and the last health success is no older than
// recency. The reason belongs to the first fact that does not hold.
func Available(facts messages.Facts, causes Causes, now time.Time, recency time.Duration) (bool, messages.Reason) {
	switch {
	case facts.ShuttingDown:
		return false, messages.ReasonNotReady
	case !facts.Verified:
		return false, because(causes.Verified)
	case !facts.Bound:
		return false, because(causes.Bound)
	case !facts.Token:
		return false, because(causes.Token)
	case !facts.Ready:
		return false, because(causes.Ready)
	case !HealthRecent(facts.LastHealth, now, recency):
		return false, messages.ReasonRuntimeUnavailable
	default:
		return true, messages.ReasonOK
	}
}

func because(cause messages.Reason) messages.Reason {
	if cause == "" || cause == messages.ReasonOK {
		return messages.ReasonNotReady
	}
	return cause
}

// HealthRecent reports whether a health success at last still counts at now. A success in the future, from
// before the clock was set back, does not count.
func HealthRecent(last, now time.Time, recency time.Duration) bool {
	return !last.IsZero() && recent(last, now, recency)
}

// recent reports whether at is at most bound ago by both clocks. The monotonic clock stops while the machine
// sleeps; the wall clock does not. A wall clock that was set back extends nothing; one that was set ahead makes
// the result false, which is the safe side.
func recent(at, now time.Time, bound time.Duration) bool {
	age := now.Sub(at)
	return age >= 0 && max(age, now.Round(0).Sub(at.Round(0))) <= bound
}
