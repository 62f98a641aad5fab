package manifest

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/messages"
)

// switchTimeout bounds the switch to a model that is on disk: the drain of the old one, and its start. It only keeps a
// lifecycle actor that restarts meanwhile from blocking the caller; the actor has shorter deadlines.
const switchTimeout = 10 * time.Minute

// chosen reads the recorded choice.
func (l *loop) chosen() string {
	if l.deps.Choice == nil {
		return ""
	}
	name, err := l.deps.Choice.Load()
	if err != nil {
		l.deps.Log.Warn("the record of the chosen model cannot be read", zap.Error(err))
	}
	return name
}

// use begins the first of the queued UseModel commands. If the model and the runtime are on disk, neither the hub nor
// a session is needed. Otherwise they are fetched first, as by a pull, while the current model serves.
func (l *loop) use() {
	name := l.uses[0].Name
	if name == "" {
		name = l.deps.Model
	}
	find := func() ([]messages.Artifact, messages.Reason) { return l.pairOf(name) }
	pair, reason := find()
	present := reason == messages.ReasonOK && allOwn(pair)
	if reason == messages.ReasonOK && !present && l.have {
		standing, grace := l.catalogue.Standing(l.deps.Now().Round(0), l.deps.Grace)
		present = standing == messages.ReasonOK || grace
	}
	l.background.Go(func() {
		if present {
			held, err := actorkit.Ask(l.ctx, l.deps.Provision, func(reply chan<- []messages.HeldArtifact) messages.ToProvision {
				return messages.Held{Artifacts: pair, Reply: reply}
			})
			present = err == nil && !slices.ContainsFunc(held, func(h messages.HeldArtifact) bool { return !h.Verified })
		}
		if present {
			l.later(func() { l.switchTo(name) })
			return
		}
		fetched := make(chan messages.Reason, 1)
		l.later(func() {
			l.pulls = append(l.pulls, pull{find, fetched})
			l.refresh()
		})
		select {
		case reason := <-fetched:
			l.later(func() {
				if reason != messages.ReasonOK {
					l.used(reason)
					return
				}
				l.switchTo(name)
			})
		case <-l.ctx.Done():
		}
	})
}

// switchTo records the choice, tells provision to offer the model, and waits until it is ready. If it does not become
// ready, switchTo records the previous choice again; lifecycle has already restarted that model.
func (l *loop) switchTo(name string) {
	model, reason := l.modelNamed(name)
	if reason != messages.ReasonOK {
		l.used(reason)
		return
	}
	chosen, before := l.uses[0].Name, l.model
	previous := ""
	if before != l.deps.Model {
		previous = before
	}
	if err := l.store(chosen); err != nil {
		l.deps.Log.Error("the chosen model cannot be recorded", zap.Error(err))
		l.used(messages.ReasonInternalError)
		return
	}
	l.model = name
	ready := make(chan messages.Reason, 1)
	l.lifecycle.Put(messages.AwaitReady{Model: model.SHA256, Reply: ready})
	l.decide(true)
	l.background.Go(func() {
		ctx, cancel := context.WithTimeout(l.ctx, switchTimeout)
		defer cancel()
		reason := messages.ReasonNotReady
		select {
		case reason = <-ready:
		case <-ctx.Done():
		}
		l.later(func() {
			if reason != messages.ReasonOK {
				l.deps.Log.Warn("model not switched", zap.String("artifact", name), zap.String("reason", string(reason)))
				l.model = before
				if err := l.store(previous); err != nil {
					l.deps.Log.Error("the previous model cannot be recorded", zap.Error(err))
				}
				l.decide(true)
			}
			l.used(reason)
		})
	})
}

func (l *loop) store(name string) error {
	if l.deps.Choice == nil {
		return nil
	}
	return l.deps.Choice.Store(name)
}

// used answers the first queued command and begins the next.
func (l *loop) used(reason messages.Reason) {
	l.uses[0].Reply <- reason
	l.uses = l.uses[1:]
	if len(l.uses) > 0 {
		l.use()
	}
}
