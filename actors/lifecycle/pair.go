package lifecycle

import (
	"time"

	"go.uber.org/zap"

	"companion/messages"
)

// pair is a verified model and the verified runtime that serves it.
type pair struct {
	model   messages.VerifiedModel
	runtime messages.VerifiedRuntime
}

// digests identify a pair by the digests of its model and of its runtime's archive. The runtime's digest
// is zero for the unpinned binary.
type digests struct{ model, runtime [32]byte }

func (p *pair) digests() digests { return digests{p.model.SHA256, p.runtime.SHA256} }

func (p *pair) same(q *pair) bool {
	return p != nil && q != nil && p.digests() == q.digests() && p.runtime.Dir == q.runtime.Dir
}

// lostBy reports whether m concerns an artifact of p.
func (p *pair) lostBy(m messages.IntegrityLost) bool {
	switch {
	case p == nil:
		return false
	case m.SHA256 != [32]byte{}:
		return p.model.SHA256 == m.SHA256 || p.runtime.SHA256 == m.SHA256
	default:
		return m.Artifact == "" || m.Artifact == p.model.Name || m.Artifact == p.runtime.Name
	}
}

// next is the pair to start: the offered one, or, if that one has failed to become ready, the proven
// one (M12).
func (l *loop) next() *pair {
	if l.proven != nil && l.offered.same(l.rejected) {
		return l.proven
	}
	return l.offered
}

// prove records that the launch became ready (M13).
func (l *loop) prove(c *launch) {
	if c.pair == nil || c.pair.same(l.proven) && l.recorded == c.pair.digests() {
		return
	}
	l.proven, l.recorded = c.pair, c.pair.digests()
	ready := messages.PairReady{Model: l.recorded.model, Runtime: l.recorded.runtime}
	l.manifest.Put(ready)
	l.provision.Put(ready)
}

// offer records a pair that provision has verified. A pair that the manifest wants replaces the running
// one by a restart. The last known good pair does not replace another one: it is started only if no newer pair is offered, or
// as the fallback of a newer pair that fails (M13).
func (l *loop) offer(m messages.ArtifactsVerified) {
	p := &pair{m.Model, m.Runtime}
	delete(l.wrong, p.model.SHA256)
	delete(l.wrong, p.runtime.SHA256)
	delete(l.wrong, [32]byte{})
	if m.LastGood && l.proven == nil {
		l.proven = p
	}
	if !m.LastGood || l.offered == nil {
		l.offered = p
	}
	l.facts.Verified, l.causes.Verified = true, ""
	if l.backEnd() == (messages.BackEnd{}) {
		l.name(l.offered)
	}
	l.recognise(p)
	if c := l.current; c != nil && !m.LastGood && !l.next().same(c.pair) && l.machine.State() == messages.StateReady {
		l.retire()
	}
}

// name publishes the model of p before it serves; BackEndUp adds what only the process actor knows.
func (l *loop) name(p *pair) {
	l.model = messages.Model{Name: p.model.Name, Version: p.model.Version, Embedding: p.model.Embedding, Own: p.model.Own}
}

// recognise finds out which pair an adopted launch was started from.
func (l *loop) recognise(known ...*pair) {
	c := l.current
	if c == nil || c.pair != nil {
		return
	}
	for _, p := range known {
		if p != nil && (c.adopted == digests{} || c.adopted == p.digests()) {
			c.pair = p
			if l.lastReady == c.number && l.machine.State() == messages.StateReady {
				l.prove(c)
			}
			return
		}
	}
}

// integrityLost handles a report of provision, of the process actor or of the manifest actor. Wrong bytes
// end the launch that runs from them at once (M6, A5); a manifest that allows no pair ends any
// launch after a drain (M1). Any other report, such as a failed fetch of a newer artifact, concerns only the pairs with that
// artifact, and does not end a serving runtime (M13).
func (l *loop) integrityLost(m messages.IntegrityLost) {
	l.log.Warn("artifact not available", zap.String("artifact", m.Artifact), zap.String("reason", string(m.Reason)))
	if withdraws(m) {
		l.proven, l.rejected, l.recorded = nil, nil, digests{}
		l.unverified(m.Reason)
		l.retire()
		l.retiredAt = time.Time{} // no launch is known to follow
		return
	}
	l.switched(m.SHA256, m.Reason)
	wrong := wrongBytes(m.Reason)
	if !wrong && l.machine.State() == messages.StateReady {
		return // the running process has its files open
	}
	if wrong {
		l.noteWrong(m)
		if l.proven.lostBy(m) {
			l.proven = nil
		}
	}
	switch {
	case l.offered == nil:
		l.unverified(m.Reason)
	case l.offered.lostBy(m) && l.proven != nil && !l.proven.lostBy(m):
		l.offered = l.proven
	case l.offered.lostBy(m):
		l.unverified(m.Reason)
	}
	l.endWrong()
}

// withdraws reports whether m concerns every pair: the manifest and its grace period have expired, it does not contain
// the configured model, or there is no hub and the user removed what was added.
func withdraws(m messages.IntegrityLost) bool {
	switch m.Reason {
	case messages.ReasonManifestExpired, messages.ReasonNoSuchTarget, messages.ReasonNoHub:
		return m.SHA256 == [32]byte{}
	}
	return false
}

func wrongBytes(reason messages.Reason) bool {
	switch reason {
	case messages.ReasonDigestMismatch, messages.ReasonSizeMismatch, messages.ReasonBinaryUntrusted:
		return true
	}
	return false
}

// noteWrong records the artifacts that m reports as wrong, because a launch may be adopted after the report.
func (l *loop) noteWrong(m messages.IntegrityLost) {
	if m.SHA256 != [32]byte{} {
		l.wrong[m.SHA256] = m.Reason
		return
	}
	l.wrong[[32]byte{}] = m.Reason
	if c := l.current; c != nil && c.pair != nil && !c.pair.lostBy(m) {
		delete(l.wrong, [32]byte{})
	}
}

// endWrong ends the current launch if its bytes are known to be wrong.
func (l *loop) endWrong() {
	c := l.current
	if c == nil {
		return
	}
	runs := c.adopted
	if c.pair != nil {
		runs = c.pair.digests()
	}
	for _, digest := range [][32]byte{runs.model, runs.runtime, {}} {
		if reason, ok := l.wrong[digest]; ok {
			c.noCrash = true
			l.end(reason)
			return
		}
	}
}

func (l *loop) unverified(reason messages.Reason) {
	l.facts.Verified, l.causes.Verified, l.offered = false, reason, nil
	answer(&l.onStart, reason)
}
