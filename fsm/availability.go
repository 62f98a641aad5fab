package fsm

import (
	"time"

	"companion/messages"
)

// Causes say why a fact does not hold, as the actor that took it away told; the zero Reason means
// that nobody has vouched for it yet.
type Causes struct {
	Verified, Bound, Token, Ready messages.Reason
}

// Available decides companionAvailable (A5): all facts hold at once, and the last health success
// is no older than recency. The reason names the first fact that does not hold.
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

// HealthRecent reports whether a health success at last still counts at now. A success from the
// future is a clock that was set back: it counts for nothing.
func HealthRecent(last, now time.Time, recency time.Duration) bool {
	return !last.IsZero() && recent(last, now, recency)
}

// recent reports whether at is no further back than bound. The monotonic clock stands still while the
// machine sleeps, so that the date counts as well; a date that was set back extends nothing, and one that
// was set ahead ends what is recent, which is the safe side.
func recent(at, now time.Time, bound time.Duration) bool {
	age := now.Sub(at)
	return age >= 0 && max(age, now.Round(0).Sub(at.Round(0))) <= bound
}
