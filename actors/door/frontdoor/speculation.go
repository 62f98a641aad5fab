package frontdoor

import (
	"context"
	"sync"
	"time"

	"companion/adapters/door/relay"
	"companion/fsm"
	"companion/messages"
)

// speculation judges the speed of a launch with speculative decoding (R12).
type speculation struct {
	mu     sync.Mutex
	launch messages.Launch
	seen   fsm.Speculation
}

// loses adds an answer of the launch and reports whether speculative decoding makes it slower.
func (g *speculation) loses(launch messages.Launch, speed messages.Speed, alone bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.launch != launch {
		g.launch, g.seen = launch, fsm.Speculation{}
	}
	return g.seen.Observe(speed, alone)
}

// judgeSpeculation tells the lifecycle actor when speculative decoding makes the runtime slower. It waits until no other
// request is there, because the runtime is then replaced.
func (v *visit) judgeSpeculation(s messages.Snapshot, result relay.Result) {
	if !s.Speculates || !result.Whole {
		return
	}
	counts := v.d.admission.now()
	if v.d.speculation.loses(s.Launch, result.Speed, counts.InFlight == 1) && counts.InFlight+counts.Queued == 1 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(v.r.Context()), unfitTime)
		defer cancel()
		v.d.unfit(ctx, s.Launch, "it loses more than 2 % of the speed")
	}
}

// unfitTime bounds a send to the lifecycle actor. A request that waits repeats the message at this interval, because
// an actor that restarts loses it.
const unfitTime = time.Second

// awaitPlain waits for a runtime without speculative decoding, which gives no probabilities of the draft tokens that
// it accepts. The runtime is replaced once for that, and the request waits like one in the queue.
func (v *visit) awaitPlain() messages.Reason {
	ctx, cancel := context.WithTimeout(v.r.Context(), v.d.bounds.QueueTimeout)
	defer cancel()
	look := time.NewTicker(lookAfterClient)
	defer look.Stop()
	var told time.Time
	for {
		now, changed := v.d.snapshot.Next()
		if now.Speculates && time.Since(told) >= unfitTime {
			told = time.Now()
			v.d.unfit(ctx, now.Launch, "a request asks for probabilities of tokens")
		}
		if now.State == messages.StateReady && !now.Speculates {
			return messages.ReasonOK
		}
		select {
		case <-changed:
		case <-look.C:
			if v.gone = v.conn.Gone(); v.gone {
				return messages.ReasonQueueTimeout
			}
		case <-ctx.Done():
			return messages.ReasonQueueTimeout
		}
	}
}
