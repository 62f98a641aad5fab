package manifest

import (
	"reflect"
	"slices"
	"time"

	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/artifact"
	"companion/messages"
)

// decide derives from the catalogue what should be on disk and whether it may be fetched, publishes the view, and sets
// the timer for the next change of the catalogue's standing. fresh means that the catalogue is new: provision then gets
// a Want even if it is unchanged, because it may have given up on the previous one.
func (l *loop) decide(fresh bool) {
	now := l.deps.Now().Round(0)
	view := messages.ManifestView{Reason: l.reason, Added: len(l.own.Digests()), AddedReason: l.ownReason}
	if l.reason != messages.ReasonOK && !l.deps.NoHub {
		view.RetryAt = l.next.At()
	}
	l.expiry.Stop()
	if !l.have {
		l.deps.View.Set(view)
		if l.decideOwn(messages.ReasonOK, false, fresh) {
			return
		}
		l.none(now)
		return
	}
	standing, grace := l.catalogue.Standing(now, l.deps.Grace)
	view.Version, view.Expires, view.CheckedAt, view.Grace = l.catalogue.Version, l.catalogue.Expires, l.catalogue.CheckedAt, grace
	if standing != messages.ReasonOK && (l.reason == messages.ReasonOK || !grace) {
		view.Reason = standing
	}
	l.deps.View.Set(view)
	usable := standing == messages.ReasonOK || grace
	switch {
	case standing == messages.ReasonOK:
		l.expiry.Set(l.catalogue.Expires.Add(time.Second))
	case grace:
		l.expiry.Set(l.catalogue.Expires.Add(l.deps.Grace + time.Second))
	default: // the clock may be wrong; when it is corrected, the catalogue can be used again
		l.expiry.Set(now.Add(time.Minute))
	}
	if l.decideOwn(standing, usable, fresh) {
		return
	}
	if !usable {
		l.lose(messages.ReasonManifestExpired)
		return
	}
	model, reason := l.catalogue.Model(l.model)
	switch {
	case reason == messages.ReasonOK:
	case reason != messages.ReasonNoSuchTarget && l.good.Model.Kind != "":
		// The model's entry is unusable. The pair that became ready before stays usable.
		l.deps.Log.Warn("manifest entry refused", zap.String("reason", string(reason)))
		l.lost = ""
		l.send(messages.Want{GoodModel: l.good.Model, GoodRuntime: l.good.Runtime, FetchRefused: reason}, fresh)
		return
	default:
		l.lose(reason)
		return
	}
	// A manifest without a runtime is not an error: the configuration may name an unpinned binary (M10), which only
	// provision knows.
	runtime, reason := l.runtime(usable)
	if reason != messages.ReasonOK {
		l.deps.Log.Warn("manifest offers no runtime", zap.String("reason", string(reason)))
	}
	l.lost = ""
	l.send(l.mayFetch(messages.Want{
		Model: model, Runtime: runtime, GoodModel: l.good.Model, GoodRuntime: l.good.Runtime,
	}, standing), fresh)
}

// mayFetch sets MayFetch if the user is signed in and the manifest has not expired, and otherwise FetchRefused (M1).
func (l *loop) mayFetch(w messages.Want, standing messages.Reason) messages.Want {
	switch {
	case standing != messages.ReasonOK:
		w.FetchRefused = standing
	case l.signedIn && (l.reason == messages.ReasonOK || l.want != nil && l.want.MayFetch):
		w.MayFetch = true
	default:
		w.FetchRefused = l.reason
	}
	return w
}

// send sends w to provision, unless it equals the last Want and fresh is false.
func (l *loop) send(w messages.Want, fresh bool) {
	if !fresh && l.want != nil && reflect.DeepEqual(*l.want, w) {
		return
	}
	l.want = &w
	l.provision.Put(w)
}

// lose reports that the manifest allows no model. The serving model must stop, and must not start again after a restart
// of provision (M1).
func (l *loop) lose(reason messages.Reason) {
	if l.lost == reason {
		return
	}
	l.lost = reason
	l.deps.Log.Warn("manifest allows no model", zap.String("reason", string(reason)))
	l.send(messages.Want{FetchRefused: reason}, true)
	l.lifecycle.Put(messages.IntegrityLost{Artifact: l.model, Reason: reason})
}

// pull waits for a refresh and then fetches artifacts.
type pull struct {
	find  func() ([]messages.Artifact, messages.Reason) // in the refreshed catalogue
	reply chan<- messages.Reason
}

// pull continues p after its refresh: a fetch needs a manifest that is verified, unexpired and fresh (M1). What the user
// added needs none (M16).
func (l *loop) pull(p pull, refreshed messages.Reason) {
	artifacts, reason := p.find()
	if refreshed != messages.ReasonOK && !allOwn(artifacts) {
		if !l.deps.NoHub || reason == messages.ReasonOK {
			reason = refreshed
		}
		p.reply <- reason
		return
	}
	if reason != messages.ReasonOK {
		p.reply <- reason
		return
	}
	l.background.Go(func() {
		for _, a := range artifacts {
			reason, err := actorkit.Ask(l.ctx, l.deps.Provision, func(reply chan<- messages.Reason) messages.ToProvision {
				return messages.Fetch{Artifact: a, Reply: reply}
			})
			if err != nil {
				reason = messages.ReasonTransferFailed
			}
			if reason != messages.ReasonOK {
				p.reply <- reason
				return
			}
		}
		p.reply <- messages.ReasonOK
	})
}

// wanted returns the artifacts that a pull of name fetches: one artifact, or, for an empty name, the served model and
// its runtime.
func (l *loop) wanted(name string) ([]messages.Artifact, messages.Reason) {
	if name == "" {
		return l.pairOf(l.model)
	}
	for _, find := range []func(string) (messages.Artifact, messages.Reason){
		l.catalogue.Model, l.catalogue.Runtime, l.own.Model, l.own.Runtime,
	} {
		a, reason := find(name)
		if reason != messages.ReasonNoSuchTarget {
			return []messages.Artifact{a}, reason
		}
	}
	return nil, messages.ReasonNoSuchTarget
}

// pairOf returns the runtime, unless the configuration names a binary, and the model of that name, or the default model for an
// empty name.
func (l *loop) pairOf(name string) ([]messages.Artifact, messages.Reason) {
	model, reason := l.modelNamed(name)
	if reason != messages.ReasonOK {
		return nil, reason
	}
	if l.deps.Unpinned {
		return []messages.Artifact{model}, messages.ReasonOK
	}
	runtime, reason := l.runtime(true)
	return []messages.Artifact{runtime, model}, reason
}

// list answers ListModels: the models that the manifest offers and those that the user added, and which are on disk.
func (l *loop) list(m messages.ListModels) {
	models, main := l.models()
	if !l.have && len(models) == 0 {
		m.Reply <- messages.ModelList{Reason: l.reason}
		return
	}
	good, offered := l.good.Model, len(models)
	if good.Kind != "" && !slices.ContainsFunc(models, func(a messages.Artifact) bool { return a.SHA256 == good.SHA256 }) {
		models = append(models, good) // the manifest no longer offers this version
	}
	selected := main
	if l.model != "" {
		selected = l.model
	}
	l.background.Go(func() {
		held, err := actorkit.Ask(l.ctx, l.deps.Provision, func(reply chan<- []messages.HeldArtifact) messages.ToProvision {
			return messages.Held{Artifacts: models, Reply: reply}
		})
		if err != nil || len(held) != len(models) {
			m.Reply <- messages.ModelList{Reason: messages.ReasonNotReady}
			return
		}
		list := messages.ModelList{Models: make([]messages.ModelRow, 0, len(models)), Reason: messages.ReasonOK}
		for i, a := range models {
			list.Models = append(list.Models, messages.ModelRow{
				Name: a.Name, Version: a.Version, Size: a.Size, Default: i < offered && a.Name == main, Selected: i < offered && a.Name == selected, LastGood: a.SHA256 == good.SHA256,
				Here: held[i].Here, Verified: held[i].Verified, PartialBytes: held[i].PartialBytes,
				Yours: a.Own,
			})
		}
		m.Reply <- list
	})
}

// prune asks provision to remove unused files (M15). Without a manifest it is refused, because the used files are not
// known.
func (l *loop) prune(m messages.PruneUnused) {
	if !l.allKnown() {
		m.Reply <- messages.PruneResult{Reason: l.reason}
		return
	}
	l.provision.Put(messages.Prune{Keep: l.inUse(), DryRun: m.DryRun, Reply: m.Reply})
}

// inUse returns the digests that must stay on disk: what the manifest offers, what the user added, and the last known good
// pair even if the manifest does not contain it.
func (l *loop) inUse() [][32]byte {
	digests := append(l.catalogue.FileDigests(), l.own.FileDigests()...)
	for _, a := range []messages.Artifact{l.good.Model, l.good.Runtime} {
		for _, f := range artifact.Members(a) {
			digests = append(digests, f.SHA256)
		}
	}
	return digests
}
