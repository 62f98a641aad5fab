package frontdoor

import (
	"context"
	"sync/atomic"
	"time"

	"companion/messages"
)

// held counts the requests that wait until the runtime is replaced (M12). They are outside the queue, which a runtime that
// stops dismisses.
type held struct{ count atomic.Int64 }

// received asks the gate, unless the runtime is being replaced, and reads the body. A request that comes while the runtime is
// replaced waits, and is then judged by the new runtime's state and model.
func (v *visit) received() (s messages.Snapshot, raw *bodyBuffer, p *problem) {
	s = v.d.snapshot.Get()
	if !s.Replacing {
		if p := v.allows(s); p != nil {
			return s, nil, p
		}
	}
	if raw, p = v.readBody(); p != nil || !s.Replacing {
		return s, raw, p
	}
	if reason := v.awaitReplaced(); reason != messages.ReasonOK {
		raw.release()
		return s, nil, refusal(reason)
	}
	s = v.d.snapshot.Get()
	if p := v.allows(s); p != nil {
		raw.release()
		return s, nil, p
	}
	return s, raw, nil
}

// allows asks the gate, and whether the model has the route.
func (v *visit) allows(s messages.Snapshot) *problem {
	switch p := v.gate(s); {
	case p != nil:
		return p
	case v.route == routeEmbeddings && !s.Model.Embedding:
		return &problem{reason: messages.ReasonBadRequest, param: "model", text: textNoEmbeddings}
	case v.route == routeInfill && !s.Model.Infill.Known:
		return &problem{reason: messages.ReasonBadRequest, param: "model", text: textNoInfill}
	}
	return nil
}

// awaitReplaced waits until the runtime is not being replaced: the next one is ready, or does not come. The body has been read.
// It takes no slot, so that a drain does not wait for it.
func (v *visit) awaitReplaced() messages.Reason {
	if v.d.held.count.Add(1) > int64(v.d.bounds.QueueBound) {
		v.d.held.count.Add(-1)
		return messages.ReasonQueueFull
	}
	defer v.d.held.count.Add(-1)
	ctx, cancel := context.WithTimeout(v.r.Context(), v.d.bounds.QueueTimeout)
	defer cancel()
	look := time.NewTicker(lookAfterClient)
	defer look.Stop()
	for {
		s, changed := v.d.snapshot.Next()
		if !s.Replacing {
			return messages.ReasonOK
		}
		select {
		case <-changed:
		case <-look.C:
			v.gone = v.conn.Gone() // ends ctx
		case <-ctx.Done():
			if v.revoked() {
				return messages.ReasonInvalidToken
			}
			return messages.ReasonQueueTimeout
		}
	}
}

// inference takes the slots of a request in the runtime, asks the gate again, and calls f with them. A request that waited
// for a slot when the runtime began to be replaced waits for the next one. f refuses it if that has another model.
func (v *visit) inference(n need, f func(messages.Snapshot)) {
	for {
		reason, again := v.inSlots(n, f)
		if again && v.d.snapshot.Get().Replacing {
			if reason = v.awaitReplaced(); reason == messages.ReasonOK {
				continue
			}
		}
		if reason != messages.ReasonOK {
			if v.revoked() {
				reason = messages.ReasonInvalidToken
			}
			v.refuse(refusal(reason))
			v.left(v.gone, false)
		}
		return
	}
}

// inSlots calls f with the slots. again reports that the runtime is not ready, so that f was not called.
func (v *visit) inSlots(n need, f func(messages.Snapshot)) (reason messages.Reason, again bool) {
	if reason := v.enter(v.r.Context(), n); reason != messages.ReasonOK {
		return reason, reason == messages.ReasonNotReady
	}
	defer v.leave(n)
	// The slot is counted before the state is read. So a drain that begins now refuses this request or waits
	// for it (A6, A7).
	s := v.d.snapshot.Get()
	if reason := v.mayRun(s); reason != messages.ReasonOK {
		return reason, reason == messages.ReasonNotReady
	}
	f(s)
	return messages.ReasonOK, false
}
