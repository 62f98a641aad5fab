package manifest

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"companion/adapters/authority/tuf"
	"companion/messages"
)

// takeOwn makes the user's own catalogue the current one (M16). One that does not verify counts as empty.
func (l *loop) takeOwn(own tuf.Catalogue, err error) {
	l.own, l.ownReason = own, tuf.ReasonOf(err)
	for _, digest := range own.Digests() {
		l.wasOwn[digest] = true
	}
	if err != nil {
		l.deps.Log.Warn("what the user added cannot be used", zap.String("reason", string(l.ownReason)), zap.Error(err))
	}
}

// reload reads the user's own catalogue again, because a command has changed it.
func (l *loop) reload(m messages.ReloadOwn) {
	l.beside.Go(func() {
		own, err := l.deps.Repository.LoadOwn()
		good, _ := l.deps.Repository.LastGood()
		l.later(func() {
			l.takeOwn(own, err)
			l.good = good
			if l.removed() {
				l.lose(messages.ReasonNoSuchTarget)
			}
			l.decide(true)
			l.tidy()
			m.Reply <- l.ownReason
		})
	})
}

// removed reports whether neither catalogue names what runs, or what is about to, because the user removed it. Then it must
// end at once.
func (l *loop) removed() bool {
	runs := [][32]byte{l.ready.Model, l.ready.Runtime}
	if l.ready == (messages.PairReady{}) && l.want != nil {
		runs = [][32]byte{l.want.Model.SHA256, l.want.Runtime.SHA256}
	}
	return slices.ContainsFunc(runs, func(digest [32]byte) bool {
		return digest != [32]byte{} && l.wasOwn[digest] && !l.own.Has(digest) && !l.catalogue.Has(digest)
	})
}

// allKnown reports whether every used artifact is known, so that the others can be removed.
func (l *loop) allKnown() bool { return (l.have || l.deps.NoHub) && l.ownReason == messages.ReasonOK }

// tidy removes what nothing uses (M15).
func (l *loop) tidy() {
	if l.allKnown() {
		l.provision.Put(messages.Prune{Keep: l.inUse()})
	}
}

// ownModel returns the model of the user's own catalogue that should be served. false: the hub's manifest decides. A name of
// the hub's manifest wins. Without a configured name the default that the user set wins, and where no hub is configured
// also the only model.
func (l *loop) ownModel() (messages.Artifact, bool) { return l.ownNamed(l.model) }

func (l *loop) ownNamed(name string) (messages.Artifact, bool) {
	if name != "" {
		if l.have && l.catalogue.Names(messages.KindModel, name) {
			return messages.Artifact{}, false
		}
		a, reason := l.own.Model(name)
		return a, reason == messages.ReasonOK
	}
	if a, ok := l.own.Default(messages.KindModel); ok {
		return a, true
	}
	if !l.deps.NoHub {
		return messages.Artifact{}, false
	}
	a, reason := l.own.Model("")
	return a, reason == messages.ReasonOK
}

// modelNamed returns the model of that name in either catalogue, or the default model for an empty name.
func (l *loop) modelNamed(name string) (messages.Artifact, messages.Reason) {
	if a, ok := l.ownNamed(name); ok {
		return a, messages.ReasonOK
	}
	return l.catalogue.Model(name)
}

// runtime returns the runtime to use: the default that the user set, else the hub's, else the only one that the user added.
// usable is false if the hub's manifest and its grace period have expired.
func (l *loop) runtime(usable bool) (messages.Artifact, messages.Reason) {
	if a, ok := l.own.Default(messages.KindRuntime); ok {
		return a, messages.ReasonOK
	}
	reason := messages.ReasonNoSuchTarget
	if l.have {
		var a messages.Artifact
		if a, reason = l.catalogue.Runtime(""); reason == messages.ReasonOK && usable {
			return a, reason
		}
		if reason == messages.ReasonOK {
			reason = messages.ReasonManifestExpired
		}
	}
	if a, own := l.own.Runtime(""); own == messages.ReasonOK {
		return a, own
	}
	return messages.Artifact{}, reason
}

// decideOwn sends a Want for the user's own model, if that should be served, and reports whether it did. The runtime may be the
// hub's. standing and usable are those of the hub's manifest.
func (l *loop) decideOwn(standing messages.Reason, usable, fresh bool) bool {
	model, ok := l.ownModel()
	if !ok {
		return false
	}
	runtime, reason := l.runtime(usable)
	want := messages.Want{Model: model, Runtime: runtime, GoodModel: l.good.Model, GoodRuntime: l.good.Runtime}
	switch {
	case reason == messages.ReasonManifestExpired:
		l.lose(reason)
		return true
	case reason != messages.ReasonOK:
		// Provision may have an unpinned binary (M10), which only it knows.
		if want.FetchRefused = reason; !l.have {
			want.FetchRefused = l.reason
		}
	case runtime.Own:
		want.MayFetch = true
	default:
		want = l.mayFetch(want, standing)
	}
	l.lost = ""
	l.send(want, fresh)
	return true
}

// none handles the state without a manifest of the hub and without an artifact of the user that should be served: nothing is
// wanted, and a start is answered with the reason.
func (l *loop) none(now time.Time) {
	reason := l.reason
	if l.deps.NoHub && l.ownReason != messages.ReasonOK {
		reason = l.ownReason
	} else if l.deps.NoHub && l.model != "" && len(l.own.Digests()) > 0 {
		reason = messages.ReasonNoSuchTarget
	}
	l.send(l.withGood(messages.Want{FetchRefused: reason}, now), false)
}

// models returns the models of both catalogues, and which one is the default. A name of the hub's manifest hides the
// user's own.
func (l *loop) models() (models []messages.Artifact, main string) {
	models, main = l.catalogue.Models()
	own, ownMain := l.own.Models()
	for _, a := range own {
		if !slices.ContainsFunc(models, func(b messages.Artifact) bool { return b.Name == a.Name }) {
			models = append(models, a)
		}
	}
	if a, ok := l.own.Default(messages.KindModel); ok {
		main = a.Name
	} else if l.deps.NoHub {
		main = ownMain
	}
	return models, main
}

func allOwn(artifacts []messages.Artifact) bool {
	return len(artifacts) > 0 && !slices.ContainsFunc(artifacts, func(a messages.Artifact) bool { return !a.Own })
}
