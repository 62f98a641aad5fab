package lifecycle

import (
	"time"

	"go.uber.org/zap"

	"companion/fsm"
	"companion/messages"
)

// actorStarted drops what the actor's predecessor had vouched for, if that did not say that it ended,
// and goes on with the new one.
func (l *loop) actorStarted(actor messages.Actor) {
	l.forget(actor)
	switch actor {
	case messages.ActorProvision:
		l.manifest.Put(messages.RepeatWant{})
	case messages.ActorProcess:
		l.confirmed = true // it has ended whatever its predecessor ran
	}
}

// forget drops every fact that the actor had vouched for (A9).
func (l *loop) forget(actor messages.Actor) {
	switch actor {
	case messages.ActorProvision:
		l.facts.Verified, l.causes.Verified, l.offered = false, "", nil
	case messages.ActorCustody:
		l.facts.Token, l.causes.Token = false, ""
	case messages.ActorFrontDoor:
		// What was seen through the old front door says nothing about the new one.
		l.facts.Bound, l.causes.Bound, l.base = false, "", ""
		l.facts.LastHealth = time.Time{}
	case messages.ActorHealth:
		l.facts.LastHealth = time.Time{}
	case messages.ActorProcess:
		// Its end is the end of what it ran, and nobody reports an exit for that. A runtime that was
		// ready is not to blame; during a start a fault that comes back at every attempt must lead to
		// a hold. Nothing is started until a new process actor is there.
		l.excused = l.excused || l.machine.State() == messages.StateReady
		l.confirmed = false
		l.runtimeGone()
	}
}

// offer takes what provision vouches for. A newer pair replaces the running one by a restart.
func (l *loop) offer(p *pair) {
	l.facts.Verified, l.causes.Verified = true, ""
	l.offered = p
	if l.backEnd == (messages.BackEnd{}) {
		// What will serve has a name before it serves; the process actor adds what only it knows.
		l.model = messages.Model{Name: p.model.Name, Version: p.model.Version, Embedding: p.model.Embedding}
	}
	switch {
	case !l.alive:
	case l.running == nil:
		// An adopted launch: it was started from what its process actor had been given.
		l.running = p
	case !p.same(l.running) && l.machine.State() == messages.StateReady:
		l.retire()
	}
}

// integrityLost takes the word of provision or process. A failed fetch of something newer does not
// end what serves; bytes that are wrong do at once (M6, A5), and so does, after a drain, the end of
// what the manifest allows.
func (l *loop) integrityLost(m messages.IntegrityLost) {
	l.log.Warn("artifact not available", zap.String("artifact", m.Artifact), zap.String("reason", string(m.Reason)))
	switch {
	case wrongBytes(m.Reason):
		l.unverified(m.Reason)
		l.endWrong()
	case m.Reason == messages.ReasonManifestExpired || m.Reason == messages.ReasonNoSuchTarget:
		// Nobody vouches for it any more: the grace period is over, or the manifest has withdrawn it (M1).
		l.unverified(m.Reason)
		l.retire()
	default:
		if l.machine.State() != messages.StateReady {
			l.unverified(m.Reason)
		}
	}
}

func wrongBytes(reason messages.Reason) bool {
	switch reason {
	case messages.ReasonDigestMismatch, messages.ReasonSizeMismatch, messages.ReasonBinaryUntrusted:
		return true
	}
	return false
}

// endWrong ends what runs if the last word of its bytes is that they are wrong.
func (l *loop) endWrong() {
	if l.alive && wrongBytes(l.causes.Verified) {
		l.excused = true
		l.end(l.causes.Verified)
	}
}

func (l *loop) unverified(reason messages.Reason) {
	l.facts.Verified, l.causes.Verified, l.offered = false, reason, nil
	answer(&l.onStart, reason)
}

// next is the pair to start: what is offered, or what was ready before when the offered one did
// not become ready (M12).
func (l *loop) next() *pair {
	if l.offered.same(l.rejected) {
		return l.proven
	}
	return l.offered
}

// start begins a launch, if everything that A3 asks for is there.
func (l *loop) start() {
	p := l.next()
	l.launch++
	l.running, l.alive, l.ending, l.excused, l.again, l.blame = p, true, false, false, false, ""
	l.retryAt = time.Time{}
	l.startedBy = time.Now().Add(l.deps.StartDeadline)
	l.apply(messages.EventStart, messages.ReasonNotReady)
	l.process.Put(messages.Spawn{Launch: l.launch, Model: p.model, Runtime: p.runtime})
	answer(&l.onStart, messages.ReasonOK)
}

// runtimeStarted is the answer to a Spawn, or to ConfirmProcess from a runtime that outlived the
// last incarnation of this actor: that one is adopted. What runs on the word of an earlier incarnation
// alone is ended.
func (l *loop) runtimeStarted(m messages.RuntimeStarted) {
	switch {
	case l.confirmed:
		if !l.alive || m.Launch != l.launch {
			l.process.Put(messages.Kill{Launch: m.Launch})
		}
	case m.Launch < l.launch:
		// A newer one was asked for: it follows, or its Spawn was lost.
		l.process.Put(messages.Kill{Launch: m.Launch})
		l.process.Put(messages.ConfirmProcess{})
	default:
		l.confirmed, l.alive, l.launch = true, true, m.Launch
		l.running = l.offered
		l.log.Info("runtime adopted", zap.Int("pid", m.PID))
		l.endWrong() // provision may have spoken before the process actor
	}
}

// runtimeAbsent answers ConfirmProcess or Kill. The first may have been asked before a Spawn that
// the process actor had not read yet: then it says nothing about that launch.
func (l *loop) runtimeAbsent(m messages.RuntimeAbsent) {
	l.confirmed = true
	if l.ending && m.Launch == l.launch {
		l.runtimeGone()
	}
}

// runtimeGone ends a launch whose exit nobody reports.
func (l *loop) runtimeGone() {
	l.runtimeExited(messages.RuntimeExited{
		Launch: l.launch, Requested: l.ending,
		Exit: messages.ExitReport{At: time.Now(), Code: -1, Reason: messages.ReasonProcessExited},
	})
}

// runtimeExited ends the launch: the machine goes to stopped by the only way there is, and a crash
// is counted and answered by a retry.
func (l *loop) runtimeExited(m messages.RuntimeExited) {
	if !l.alive || m.Launch != l.launch {
		return
	}
	reason := m.Exit.Reason
	if l.blame != "" {
		reason = l.blame
	}
	crash := !l.excused && (!m.Requested || l.blame != "")
	l.alive, l.ending, l.excused, l.blame = false, false, false, ""
	l.backEnd, l.drained = messages.BackEnd{}, nil
	l.startedBy, l.drainBy, l.exitBy = time.Time{}, time.Time{}, time.Time{}
	switch l.machine.State() {
	case messages.StateStarting:
		l.apply(messages.EventHealthFail, reason)
	case messages.StateReady:
		l.apply(messages.EventDrain, reason)
		l.apply(messages.EventStopped, reason)
	case messages.StateDraining:
		l.apply(messages.EventStopped, reason)
	}
	if crash {
		l.crashed(m.Exit, reason)
	}
}

// crashed counts a failure and decides when to try again (A8).
func (l *loop) crashed(exit messages.ExitReport, reason messages.Reason) {
	now := time.Now()
	exit.Reason = reason
	l.lastExit = &exit
	l.restarts++
	if l.proven != nil && !l.running.same(l.proven) {
		l.rejected = l.running
		l.log.Warn("newer artifacts did not become ready, going back", zap.String("reason", string(reason)))
	}
	recent, isLoop := fsm.CrashLoop(l.failures.At, now)
	if isLoop {
		l.failures = &messages.Failures{At: recent, HeldTill: now.Add(fsm.CrashLoopWindow)}
		l.causes.Ready = messages.ReasonCrashLoop
		l.log.Error("runtime held after repeated failures", zap.String("reason", string(messages.ReasonCrashLoop)),
			zap.String("last", string(reason)), zap.Time("until", l.failures.HeldTill))
		return
	}
	l.failures = &messages.Failures{At: recent}
	wait := l.backoff.NextBackOff()
	l.retryAt = now.Add(wait)
	l.log.Warn("runtime failed", zap.String("reason", string(reason)), zap.Int("code", exit.Code),
		zap.String("signal", exit.Signal), zap.Duration("retryIn", wait))
}

func (l *loop) forgive() {
	l.failures, l.retryAt = &messages.Failures{}, time.Time{}
	l.backoff.Reset()
}

func (l *loop) healthSucceeded(m messages.HealthSucceeded) {
	if !l.alive || l.ending || !l.exitBy.IsZero() || m.Launch != l.launch {
		return
	}
	switch l.machine.State() {
	case messages.StateStarting:
		l.startedBy = time.Time{}
		l.apply(messages.EventHealthOK, messages.ReasonOK)
		l.proven, l.lastReady = l.running, l.launch
		if l.facts.Verified && !l.next().same(l.running) {
			// Something newer was offered while this one started.
			l.retire()
			return
		}
	case messages.StateReady:
	default:
		return
	}
	l.facts.LastHealth = m.At
}

// healthFailed ends availability at once (A5). A start is allowed to fail probes until its
// deadline; a hung runtime is ended and replaced. The process actor sends one with
// ReasonProcessExited as soon as the runtime dies, tens of milliseconds before its memory is freed
// and the exit is told: a success from before that moment counts no more. When no exit follows, the
// sign was wrong or the runtime hangs in its death: then it is ended.
func (l *loop) healthFailed(m messages.HealthFailed) {
	if !l.alive || m.Launch != l.launch {
		return
	}
	l.facts.LastHealth = time.Time{}
	if m.Reason == messages.ReasonProcessExited && l.exitBy.IsZero() {
		l.exitBy = time.Now().Add(exitPatience)
	}
	if m.Hung {
		l.end(m.Reason)
	}
}

// memoryExceeded ends a runtime that stays over its memory limit (P4), whose requests are denied
// anyway: a ready one after a drain, a starting one at once.
func (l *loop) memoryExceeded(m messages.MemoryExceeded) {
	if m.Launch != l.launch {
		return
	}
	switch l.machine.State() {
	case messages.StateStarting:
		l.end(messages.ReasonRAMOverLimit)
	case messages.StateReady:
		l.blame = messages.ReasonRAMOverLimit
		l.drain()
	}
}

// end ends the launch without waiting for its requests, and counts as a failure for reason unless
// the launch is excused.
func (l *loop) end(reason messages.Reason) {
	if !l.alive || l.ending {
		return
	}
	l.blame = reason
	switch l.machine.State() {
	case messages.StateStarting:
		l.apply(messages.EventHealthFail, reason)
	case messages.StateReady:
		l.apply(messages.EventDrain, reason)
	}
	l.startedBy = time.Time{}
	l.kill()
}

func (l *loop) kill() {
	l.ending = true
	l.process.Put(messages.Kill{Launch: l.launch})
}
