package lifecycle

import (
	"time"

	"go.uber.org/zap"

	"companion/fsm"
	"companion/messages"
)

// drainUnanswered stands for the count that a front door did not give in time.
const drainUnanswered = -1

// exitPatience is how long a runtime that dies may take until its exit is told: freeing the memory of
// the largest model takes well under a second.
const exitPatience = 5 * time.Second

// reconcile brings what is nearer to what is wanted, one step at a time.
func (l *loop) reconcile() {
	now := time.Now()
	if !now.Before(l.retryAt) {
		l.retryAt = time.Time{}
	}
	if !l.drainBy.IsZero() && !now.Before(l.drainBy) {
		l.drainEnded(drainUnanswered)
	}
	if !l.exitBy.IsZero() && !now.Before(l.exitBy) {
		l.exitBy = time.Time{}
		l.end(messages.ReasonProcessExited)
	}
	if l.held() && !now.Before(l.failures.HeldTill) {
		l.forgive()
	}
	if l.machine.State() == messages.StateReady && len(l.failures.At) > 0 && now.Sub(l.readyAt) >= fsm.HealthyAfter {
		l.forgive()
	}
	if !l.wanted {
		l.stop()
		return
	}
	switch {
	case l.again && l.runs():
		l.retire()
	case l.machine.State() == messages.StateStarting && !l.startedBy.IsZero() && !now.Before(l.startedBy):
		l.end(messages.ReasonStartTimeout)
	case l.machine.State() == messages.StateStopped && l.alive && !l.ending && l.facts.Verified:
		// Adopted: the runtime runs already, and its health decides as for any other start.
		l.startedBy = now.Add(l.deps.StartDeadline)
		l.apply(messages.EventStart, messages.ReasonNotReady)
	case l.machine.State() == messages.StateStopped && !l.alive && l.confirmed && l.facts.Verified &&
		!l.held() && l.retryAt.IsZero():
		l.start()
	}
}

// stop drains and ends what runs, answers those who waited for that, and goes on to the end of a
// shutdown.
func (l *loop) stop() {
	switch {
	case l.runs():
		l.retire()
	case l.confirmed:
		l.retryAt = time.Time{}
		answer(&l.onStopped, messages.ReasonOK)
		l.clear()
	}
}

func (l *loop) runs() bool { return l.alive || l.machine.State() != messages.StateStopped }

// retire ends what runs because something else is wanted, which is no crash: a ready runtime after a drain,
// another one at once.
func (l *loop) retire() {
	switch {
	case l.machine.State() == messages.StateReady:
		l.excused = true
		l.drain()
	case l.machine.State() != messages.StateDraining && l.alive && !l.ending:
		l.excused = true
		l.end(messages.ReasonNotReady)
	}
}

// drain refuses new requests by the snapshot, and waits for the running ones until the deadline.
func (l *loop) drain() {
	reason := messages.ReasonNotReady
	if l.blame != "" {
		reason = l.blame
	}
	l.apply(messages.EventDrain, reason)
	l.drained = make(chan int, 1)
	l.frontDoor.Put(messages.Drain{Deadline: time.Now().Add(l.deps.DrainDeadline), Reply: l.drained})
	// A front door that does not answer must not keep the runtime alive.
	l.drainBy = time.Now().Add(l.deps.DrainDeadline + time.Second)
}

func (l *loop) drainEnded(left int) {
	l.drained, l.drainBy = nil, time.Time{}
	if left != 0 {
		l.log.Warn("drain ended early", zap.Int("inFlight", left))
	}
	if l.alive && !l.ending {
		l.kill()
	}
}

// clear takes the loopback token away from the front door and the keychain at the end of a
// shutdown (K6), and then tells those who asked for it.
func (l *loop) clear() {
	now := time.Now()
	switch {
	case len(l.onEnd) == 0:
	case l.cleared == nil && l.clearedBy.IsZero():
		l.cleared = make(chan messages.Reason, 1)
		l.clearedBy = now.Add(clearDeadline)
		l.frontDoor.Put(messages.DropLoopbackToken{})
		l.custody.Put(messages.ClearLoopbackToken{Reply: l.cleared})
	case l.cleared != nil && !now.Before(l.clearedBy):
		l.tokenCleared(messages.ReasonKeychainTimeout)
	}
}

func (l *loop) tokenCleared(reason messages.Reason) {
	if reason != messages.ReasonOK {
		l.log.Warn("loopback token left in the keychain", zap.String("reason", string(reason)))
	}
	l.cleared, l.clearedBy = nil, time.Time{}
	l.facts.Token = false
	for _, reply := range l.onEnd {
		reply <- struct{}{}
	}
	l.onEnd = nil
}

// want records the user's wish to run, which also ends a hold (A8). It answers ReasonOK, or why there
// is nothing to start yet: ReasonNotReady while that is not known or on its way, else the cause; then
// the artifacts are looked at once more, since the user may have mended them.
func (l *loop) want() messages.Reason {
	if l.facts.ShuttingDown {
		return messages.ReasonNotReady
	}
	l.wanted, l.rejected = true, nil
	answer(&l.onStopped, messages.ReasonInvalidTransition)
	l.forgive()
	switch cause := l.causes.Verified; {
	case l.facts.Verified:
		return messages.ReasonOK
	case cause == "" || cause == messages.ReasonNotReady:
		return messages.ReasonNotReady
	default:
		l.provision.Put(messages.Reverify{})
		return cause
	}
}

// unwant records that the runtime is to stop, and tells those who wait for a restart that it will not come.
func (l *loop) unwant(reason messages.Reason) {
	l.wanted, l.again = false, false
	answer(&l.onStart, reason)
}

// restartRequested asks for another launch than the one that runs, also when a new incarnation of this
// actor has not heard yet which one that is.
func (l *loop) restartRequested(m messages.RestartRequested) {
	if reason := l.want(); reason != messages.ReasonOK {
		m.Reply <- reason
		return
	}
	l.again = true
	l.onStart = append(l.onStart, m.Reply)
}

// answer gives those who wait their reply.
func answer(waiting *[]chan<- messages.Reason, reason messages.Reason) {
	for _, reply := range *waiting {
		reply <- reason
	}
	*waiting = nil
}
