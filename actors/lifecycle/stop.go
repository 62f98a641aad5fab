package lifecycle

import (
	"time"

	"go.uber.org/zap"

	"companion/fsm"
	"companion/messages"
)

// drainUnanswered replaces the count of running requests when the front door does not reply in time.
const drainUnanswered = -1

// exitPatience bounds the time from the first sign that the process dies to RuntimeExited. Freeing the
// memory of the largest model takes well under a second.
const exitPatience = 5 * time.Second

// reconcile does one step from the current state towards the wanted state. Serve calls it after every message
// and timer.
func (l *loop) reconcile() {
	now := time.Now()
	l.expire(now)
	if l.wanted {
		l.pursue(now)
	} else {
		l.stop()
	}
	l.readyNow()
}

// expire acts on the deadlines that have passed.
func (l *loop) expire(now time.Time) {
	if due(l.retryAt, now) {
		l.retryAt = time.Time{}
	}
	if c := l.current; c != nil {
		if due(c.drainBy, now) {
			l.drainEnded(drainUnanswered)
		}
		if due(c.exitBy, now) {
			c.exitBy = time.Time{}
			l.end(messages.ReasonProcessExited)
		}
	}
	if due(l.failures.HeldTill, now) || l.healed(now) {
		l.forgive(false)
	}
}

// healed reports whether the runtime has been ready long enough for its failures to be forgiven (A8).
func (l *loop) healed(now time.Time) bool {
	return l.machine.State() == messages.StateReady && len(l.failures.At) > 0 &&
		now.Sub(l.current.readyAt) >= fsm.HealthyAfter
}

// pursue starts, adopts or replaces a launch, because the runtime is wanted.
func (l *loop) pursue(now time.Time) {
	c, state := l.current, l.machine.State()
	switch {
	case c == nil:
		if l.mayStart() {
			l.start()
		}
	case l.restart:
		l.retire()
	case state == messages.StateStarting && due(c.startBy, now):
		l.end(messages.ReasonStartTimeout)
	case state == messages.StateStopped && !c.killed && l.facts.Verified:
		// Adopted: the runtime already runs; its health decides, as for any other start.
		c.startBy = now.Add(l.deps.StartDeadline)
		l.apply(messages.EventStart, messages.ReasonNotReady)
	}
}

// mayStart reports whether the conditions of a start hold (A3, A8).
func (l *loop) mayStart() bool {
	return l.confirmed && l.facts.Verified && !l.held() && l.retryAt.IsZero()
}

// stop drains and ends the current launch. Once nothing runs, it replies to StopRequested and continues
// a shutdown.
func (l *loop) stop() {
	switch {
	case l.current != nil:
		l.retire()
	case l.confirmed:
		l.retryAt = time.Time{}
		answer(&l.onStopped, messages.ReasonOK)
		l.clear()
	}
}

// retire ends the current launch because it is not wanted, which is not a crash: a ready launch
// after a drain, any other at once.
func (l *loop) retire() {
	switch c := l.current; {
	case c == nil:
	case l.machine.State() == messages.StateReady:
		c.noCrash = true
		l.retiredAt = time.Now()
		l.drain()
	case l.machine.State() != messages.StateDraining && !c.killed:
		c.noCrash = true
		l.end(messages.ReasonNotReady)
	}
}

// drain makes the gate refuse new requests, by the published state, and asks the front door to report
// when the running ones have ended.
func (l *loop) drain() {
	c := l.current
	reason := messages.ReasonNotReady
	if c.failure != "" {
		reason = c.failure
	}
	l.apply(messages.EventDrain, reason)
	c.drained = make(chan int, 1)
	l.frontDoor.Put(messages.Drain{Deadline: time.Now().Add(l.deps.DrainDeadline), Reply: c.drained})
	// A front door that does not reply must not keep the runtime running.
	c.drainBy = time.Now().Add(l.deps.DrainDeadline + time.Second)
}

// drainEnded kills the drained launch. left is the number of requests that still run.
func (l *loop) drainEnded(left int) {
	c := l.current
	c.drained, c.drainBy = nil, time.Time{}
	if left != 0 {
		l.log.Warn("drain ended early", zap.Int("inFlight", left))
	}
	if !c.killed {
		l.kill(c)
	}
}

// clear removes the loopback token from the front door and from the keychain at the end of a shutdown
// (K6), then replies to ShutdownRequested.
func (l *loop) clear() {
	now := time.Now()
	switch {
	case len(l.onEnd) == 0:
	case l.cleared == nil && l.clearedBy.IsZero():
		l.cleared = make(chan messages.Reason, 1)
		l.clearedBy = now.Add(clearDeadline)
		l.frontDoor.Put(messages.DropLoopbackToken{})
		l.custody.Put(messages.ClearLoopbackToken{Reply: l.cleared})
	case l.cleared != nil && due(l.clearedBy, now):
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

// want records that the user wants the runtime to run, which also ends a hold (A8). It returns ReasonOK
// if the artifacts are verified, ReasonNotReady if that is not known yet or under way, else why they are
// not; in the last case provision checks them again, because the user may have repaired them.
func (l *loop) want() messages.Reason {
	if l.facts.ShuttingDown {
		return messages.ReasonNotReady
	}
	l.wanted, l.rejected = true, nil
	answer(&l.onStopped, messages.ReasonInvalidTransition)
	l.forgive(true)
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

// unwant records that the runtime should stop, and answers pending RestartRequested messages with reason, because their
// start does not happen.
func (l *loop) unwant(reason messages.Reason) {
	l.wanted, l.restart, l.retiredAt = false, false, time.Time{}
	answer(&l.onStart, reason)
	l.switchesEnd(messages.ReasonInvalidTransition)
}

// restartRequested requests a launch that replaces the current one. After a restart of this actor the
// request also applies to the launch that it adopts.
func (l *loop) restartRequested(m messages.RestartRequested) {
	if reason := l.want(); reason != messages.ReasonOK {
		m.Reply <- reason
		return
	}
	l.restart = true
	l.onStart = append(l.onStart, m.Reply)
}

// answer sends reason to every waiting reply channel and empties the list.
func answer(waiting *[]chan<- messages.Reason, reason messages.Reason) {
	for _, reply := range *waiting {
		reply <- reason
	}
	*waiting = nil
}
