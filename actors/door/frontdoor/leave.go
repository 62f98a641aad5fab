package frontdoor

import (
	"context"

	"companion/messages"
)

// leave gives the slots of a request back. After a client that left in mid-answer they stay taken until settle: the
// next request would wait inside the runtime, which has no bound for it.
func (v *visit) leave(n need) {
	if v.ending != nil {
		v.owed = n
		return
	}
	v.d.admission.leave(n)
}

// settle waits until the runtime has ended its work for a client that left, and gives its slots back. It runs after the
// request is logged.
func (v *visit) settle() {
	if v.ending == nil {
		return
	}
	defer v.d.admission.leave(v.owed)
	ctx, cancel := context.WithTimeout(v.d.closing, v.d.bounds.EndTime)
	defer cancel()
	v.watched.settled(v.ending.Wait(ctx))
}

// left notes that the client of an admitted request has left, which is not a failure of the runtime or of the queue.
// If no response was started, the status in the log is 0 and the request is not counted.
func (v *visit) left(gone, begun bool) {
	switch v.gone = gone; {
	case gone && begun:
		v.reason = messages.ReasonOK
	case gone:
		v.reason, v.status = messages.ReasonBadRequest, 0
	}
}
