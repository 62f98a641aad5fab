package lifecycle

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"companion/messages"
)

// awaitReady handles a switch to another model that the user has requested. Like a requested start it ends a hold, and
// lets a model try again that has failed before.
func (l *loop) awaitReady(m messages.AwaitReady) {
	if !l.wanted || l.facts.ShuttingDown {
		m.Reply <- messages.ReasonOK
		return
	}
	l.rejected = nil
	l.forgive(true)
	l.onReady = append(l.onReady, m)
	if c := l.current; c != nil && l.offered != nil && !l.next().same(c.pair) && l.machine.State() == messages.StateReady {
		l.retire()
	}
}

// readyNow answers the switches to the model that is ready, if no other is to replace it.
func (l *loop) readyNow() {
	if c := l.current; c != nil && c.pair != nil && l.machine.State() == messages.StateReady && l.next().same(c.pair) {
		l.switched(c.pair.model.SHA256, messages.ReasonOK)
	}
}

// switched answers the switches to a model.
func (l *loop) switched(model [32]byte, reason messages.Reason) {
	l.onReady = slices.DeleteFunc(l.onReady, func(m messages.AwaitReady) bool {
		if m.Model == model {
			m.Reply <- reason
		}
		return m.Model == model
	})
}

// switchesEnd answers all switches, because the runtime is no longer wanted.
func (l *loop) switchesEnd(reason messages.Reason) {
	for _, m := range l.onReady {
		m.Reply <- reason
	}
	l.onReady = nil
}

// replacing reports whether a ready launch was retired for the next one, which follows at once.
func (l *loop) replacing() bool {
	return !l.retiredAt.IsZero() && l.wanted && l.facts.Verified && !l.held()
}

// replaced ends a replacement: the next launch is ready. The log has the length of the gap.
func (l *loop) replaced() {
	if !l.retiredAt.IsZero() {
		l.log.Info("runtime replaced", zap.Duration("gap", time.Since(l.retiredAt)))
		l.retiredAt = time.Time{}
	}
}
