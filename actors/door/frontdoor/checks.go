package frontdoor

import (
	"context"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// smallChecks bounds the small bodies that are checked at once. A check of one allocates at most 8 times the body and
	// 1 MiB.
	smallChecks = 64
	// checkWithin bounds the wait for a check. One of the largest body takes about 0.2 s.
	checkWithin = 10 * time.Second
)

// checks bounds what the checks of bodies allocate at once (L6a). Large bodies share room for one of the largest size; small
// ones do not wait for them.
type checks struct {
	small, large *semaphore.Weighted
	most         int64
}

func newChecks(largest int64) checks {
	return checks{semaphore.NewWeighted(smallChecks), semaphore.NewWeighted(largest), largest}
}

// begin waits until a body of size bytes may be checked. The caller must call end. An error means that the request has ended,
// or that the wait was too long.
func (c *checks) begin(ctx context.Context, size int) (end func(), err error) {
	room, weight := c.small, int64(1)
	if size > freeBody {
		room, weight = c.large, min(int64(size), c.most)
	}
	if !room.TryAcquire(weight) {
		ctx, cancel := context.WithTimeout(ctx, checkWithin)
		defer cancel()
		if err := room.Acquire(ctx, weight); err != nil {
			return nil, err
		}
	}
	return func() { room.Release(weight) }, nil
}
