package fsm

import (
	"math"
	"time"

	"companion/messages"
)

// Reuse is how long an observation may be used (P2).
const Reuse = 500 * time.Millisecond

// Resources decides at now whether the runtime's load permits one more request (P3). It checks memory, GPU
// memory and CPU, in this order; a load equal to its limit is permitted. Negative and non-finite values deny,
// and so does a failed probe: it never means that there is no load. If a limit is set, a missing observation
// denies as well, and one older than Reuse counts as a failed probe.
func Resources(limits messages.ResourceLimits, seen messages.Observation, now time.Time) messages.Reason {
	limited := limits != messages.ResourceLimits{}
	switch {
	case limits.ResidentBytes < 0 || limits.GPUBytes < 0 || badShare(limits.CPUPercent) || limits.CPUPercent > 100:
		return messages.ReasonMalformedLimits
	case seen.Failed:
		return messages.ReasonProbeFailed
	case seen.ResidentBytes < 0 || seen.GPUBytes < 0 || badShare(seen.CPUPercent),
		seen.At.IsZero() && limited:
		return messages.ReasonMalformedObservation
	case limited && !recent(seen.At, now, Reuse):
		return messages.ReasonProbeFailed
	case limits.ResidentBytes > 0 && seen.ResidentBytes > limits.ResidentBytes:
		return messages.ReasonRAMOverLimit
	case limits.GPUBytes > 0 && seen.GPUBytes > limits.GPUBytes:
		return messages.ReasonVRAMOverLimit
	case limits.CPUPercent > 0 && seen.CPUPercent > limits.CPUPercent:
		return messages.ReasonCPUOverLimit
	}
	return messages.ReasonOK
}

func badShare(percent float64) bool {
	return math.IsNaN(percent) || math.IsInf(percent, 0) || percent < 0
}
