package manifest

import (
	"reflect"
	"time"

	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/messages"
)

// decide says what should be here and whether bytes may be fetched for it, publishes the view, and sets
// the timer for the moment at which that changes by itself. fresh says that the catalogue is new: then
// provision hears of it in any case, because it may have given up on the last one.
func (l *loop) decide(fresh bool) {
	now := time.Now()
	view := messages.ManifestView{Reason: l.reason}
	if !l.have {
		l.deps.View.Set(view)
		// Nothing is wanted yet, and why is what a start is answered with.
		l.send(messages.Want{FetchRefused: l.reason}, false)
		return
	}
	standing, grace := l.catalogue.Standing(now, l.deps.Grace)
	view.Version, view.Expires, view.CheckedAt, view.Grace = l.catalogue.Version, l.catalogue.Expires, l.catalogue.CheckedAt, grace
	if standing != messages.ReasonOK && (l.reason == messages.ReasonOK || !grace) {
		view.Reason = standing
	}
	l.deps.View.Set(view)
	l.expiry.Stop()
	switch {
	case standing == messages.ReasonOK:
		l.expiry.Reset(l.catalogue.Expires.Sub(now) + time.Second)
	case grace:
		l.expiry.Reset(l.catalogue.Expires.Add(l.deps.Grace).Sub(now) + time.Second)
	default:
		l.lose(messages.ReasonManifestExpired)
		return
	}
	model, reason := l.catalogue.Model(l.deps.Model)
	if reason != messages.ReasonOK {
		l.lose(reason)
		return
	}
	// No runtime is no end: the configuration may allow a binary of the user's own (M10), and only
	// provision knows.
	runtime, reason := l.catalogue.Runtime("")
	if reason != messages.ReasonOK {
		l.deps.Log.Warn("manifest offers no runtime", zap.String("reason", string(reason)))
	}
	l.lost = ""
	l.send(l.mayFetch(messages.Want{Model: model, Runtime: runtime}, standing), fresh)
}

// mayFetch allows new bytes while signed in and before the manifest has expired, and says why not
// otherwise (M1).
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

// send tells provision, unless it knows.
func (l *loop) send(w messages.Want, fresh bool) {
	if !fresh && l.want != nil && reflect.DeepEqual(*l.want, w) {
		return
	}
	l.want = &w
	l.provision.Put(w)
}

// lose says that the manifest vouches for no model: the one that serves must stop, and must not come
// back after a restart of provision (M1).
func (l *loop) lose(reason messages.Reason) {
	if l.lost == reason {
		return
	}
	l.lost = reason
	l.deps.Log.Warn("manifest vouches for no model", zap.String("reason", string(reason)))
	l.send(messages.Want{FetchRefused: reason}, true)
	l.lifecycle.Put(messages.IntegrityLost{Artifact: l.deps.Model, Reason: reason})
}

// pull goes on with a Pull after the refresh that it asked for: M1, no new bytes without a manifest that
// is verified, unexpired and fresh.
func (l *loop) pull(p messages.Pull, refreshed messages.Reason) {
	if refreshed != messages.ReasonOK {
		p.Reply <- refreshed
		return
	}
	artifacts, reason := l.wanted(p.Name)
	if reason != messages.ReasonOK {
		p.Reply <- reason
		return
	}
	l.beside.Go(func() {
		for _, a := range artifacts {
			reason, err := actorkit.Ask(l.ctx, l.deps.Provision, func(reply chan<- messages.Reason) messages.ToProvision {
				return messages.Fetch{Artifact: a, Reply: reply}
			})
			if err != nil {
				reason = messages.ReasonTransferFailed
			}
			if reason != messages.ReasonOK {
				p.Reply <- reason
				return
			}
		}
		p.Reply <- messages.ReasonOK
	})
}

// wanted is what a pull of that name fetches: one artifact, or with no name the served model and its
// runtime.
func (l *loop) wanted(name string) ([]messages.Artifact, messages.Reason) {
	if name == "" {
		model, reason := l.catalogue.Model(l.deps.Model)
		if reason != messages.ReasonOK {
			return nil, reason
		}
		runtime, reason := l.catalogue.Runtime("")
		return []messages.Artifact{runtime, model}, reason
	}
	model, reason := l.catalogue.Model(name)
	if reason == messages.ReasonNoSuchTarget {
		model, reason = l.catalogue.Runtime(name)
	}
	return []messages.Artifact{model}, reason
}

// list answers what the manifest offers and what of it is here.
func (l *loop) list(m messages.ListModels) {
	if !l.have {
		m.Reply <- messages.ModelList{Reason: l.reason}
		return
	}
	models, main := l.catalogue.Models()
	selected := main
	if l.deps.Model != "" {
		selected = l.deps.Model
	}
	l.beside.Go(func() {
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
				Name: a.Name, Version: a.Version, Size: a.Size, Default: a.Name == main, Selected: a.Name == selected,
				Here: held[i].Here, Verified: held[i].Verified, PartialBytes: held[i].PartialBytes,
			})
		}
		m.Reply <- list
	})
}
