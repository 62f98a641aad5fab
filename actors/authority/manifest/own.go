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
	l.background.Go(func() {
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
// usable is false if the hub's manifest and its grace period have expired. Where the configuration names a binary, which
// provision uses instead of any runtime (M10), there is none.
func (l *loop) runtime(usable bool) (messages.Artifact, messages.Reason) {
	if l.deps.Unpinned {
		return messages.Artifact{}, messages.ReasonOK
	}
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
// hub's: then the pair lasts as long as the hub's manifest lets its runtime serve (M1). standing and usable are those of the
// hub's manifest.
func (l *loop) decideOwn(standing messages.Reason, usable, fresh bool) bool {
	model, ok := l.ownModel()
	if !ok {
		return false
	}
	if l.have && usable {
		l.hubEnded = false
	}
	runtime, reason := l.runtime(usable)
	if reason == messages.ReasonManifestExpired {
		l.lose(reason)
		return true
	}
	want := messages.Want{Model: model, Runtime: runtime}
	good, mayOffer := l.goodBeside(usable)
	if mayOffer {
		want.GoodModel, want.GoodRuntime = good.Model, good.Runtime
	}
	if l.have && !usable || !l.have && l.good.Model.Kind != "" && !mayOffer {
		l.endHubPart()
	}
	switch {
	case reason != messages.ReasonOK:
		if want.FetchRefused = reason; !l.have {
			want.FetchRefused = l.reason
		}
	case runtime.Own || l.deps.Unpinned:
		want.MayFetch = true
	default:
		want = l.mayFetch(want, standing)
	}
	l.lost = ""
	l.send(want, fresh)
	return true
}

// goodBeside returns the last known good pair, if it may be offered together with a model of the user. A part of the hub may while
// the hub's manifest is usable, or, where none is stored, until the metadata that names it has expired (M1, M13).
func (l *loop) goodBeside(usable bool) (tuf.Pair, bool) {
	switch {
	case l.good.Model.Kind == "":
		return tuf.Pair{}, false
	case l.goodIsOwn():
		return l.good, true
	case l.have:
		return l.good, usable
	}
	return l.good, !l.goodEnded(l.deps.Now().Round(0))
}

// goodEnded reports whether the metadata that names a part of the last known good pair has expired, and its grace period is
// over. It counts where no manifest is stored. Otherwise it sets the timer for that moment.
func (l *loop) goodEnded(now time.Time) bool {
	if l.good.Model.Kind == "" || l.goodIsOwn() {
		return false
	}
	end := l.good.Expires.Add(l.deps.Grace)
	if !now.After(end) {
		l.expiry.Set(end.Add(time.Second))
	}
	return now.After(end)
}

// goodIsOwn reports whether no part of the last known good pair is the hub's, so that it never expires.
func (l *loop) goodIsOwn() bool {
	return l.good.Model.Own && (l.good.Runtime.Own || l.good.Runtime.Kind == "" || l.deps.Unpinned)
}

// endHubPart ends what runs with an artifact of the hub, once, because the hub's manifest and its grace period have expired.
// What runs with artifacts of the user alone serves on.
func (l *loop) endHubPart() {
	runs := []messages.PairReady{l.ready}
	if l.ready == (messages.PairReady{}) {
		// An earlier incarnation may have started it, or it is about to become ready.
		runs = []messages.PairReady{{Model: l.good.Model.SHA256, Runtime: l.good.Runtime.SHA256}}
		if l.want != nil {
			runs = append(runs, messages.PairReady{Model: l.want.Model.SHA256, Runtime: l.want.Runtime.SHA256})
		}
	}
	if !l.hubEnded && slices.ContainsFunc(runs, l.hasHubPart) {
		l.hubEnded = true
		l.lose(messages.ReasonManifestExpired)
	}
}

func (l *loop) hasHubPart(p messages.PairReady) bool {
	isHub := func(digest [32]byte) bool { return digest != [32]byte{} && !l.own.Has(digest) }
	return isHub(p.Model) || isHub(p.Runtime) && !l.deps.Unpinned
}

// none handles the state without a manifest of the hub and without an artifact of the user that should be served: nothing is
// wanted, and a start is answered with the reason. The last known good pair is offered as long as it may serve.
func (l *loop) none(now time.Time) {
	ended := l.goodEnded(now)
	if ended && l.want != nil && l.want.GoodModel.Kind != "" {
		l.lost = ""
		l.lose(messages.ReasonManifestExpired)
		return
	}
	reason := l.reason
	if l.deps.NoHub && l.ownReason != messages.ReasonOK {
		reason = l.ownReason
	} else if l.deps.NoHub && l.model != "" && len(l.own.Digests()) > 0 {
		reason = messages.ReasonNoSuchTarget
	}
	want := messages.Want{FetchRefused: reason}
	if !ended {
		want.GoodModel, want.GoodRuntime = l.good.Model, l.good.Runtime
	}
	l.send(want, false)
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
