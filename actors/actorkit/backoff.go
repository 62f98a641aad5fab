package actorkit

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

// NewBackOff returns pauses between retries that double from first to most, each changed at random by up to half.
func NewBackOff(first, most time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.Multiplier, b.MaxInterval = first, 2, most
	return b
}
