package lifecycle

import (
	"time"

	"go.uber.org/zap"

	"companion/fsm"
	"companion/messages"
)

// launch is one execution of the runtime: from its Spawn, or its adoption by a new incarnation of this
// actor, until its end has been handled. The loop then drops the value as a whole, so that no flag or
// deadline of one launch reaches the next. While the machine is not in stopped, there is a launch.
type launch struct {
	number  messages.Launch
	pair    *pair            // nil for an adopted launch until provision offers its pair
	adopted digests          // what an adopted launch runs; zero when that is not known
	backEnd messages.BackEnd // zero until the process actor has checked it

	speculates bool // it uses speculative decoding (R12)
	sleeps     bool // its model gives its memory back when it is idle (R14)
	asleep     bool // it has done so

	failure messages.Reason // why this actor ends the launch, when that is a failure of the launch
	noCrash bool            // the end is not a crash: something else is wanted, or artifacts are wrong
	killed  bool            // Kill has been sent
	dying   bool            // its process had begun to die before that
	taken   bool            // the process actor has ended, and the runtime with it
	used    bool            // it may have had requests: it has been ready, or is adopted

	readyAt time.Time // the last transition to ready
	drained chan int  // the reply to Drain, nil when none is awaited

	// Deadlines; zero means none.
	startBy time.Time // for the first health success, while starting
	exitBy  time.Time // for the exit of a process that has begun to die
	drainBy time.Time // for the reply to Drain
}

// crashed reports whether an exit of the launch counts as a crash (A8): it was not requested, or this actor requested it
// because of a failure.
func (c *launch) crashed(requested bool) bool {
	return !c.noCrash && (!requested || c.failure != "")
}

// running returns the current launch if it has that number, else nil: a report about another launch
// changes nothing (A9).
func (l *loop) running(number messages.Launch) *launch {
	if l.current == nil || l.current.number != number {
		return nil
	}
	return l.current
}

func (l *loop) backEnd() messages.BackEnd {
	if l.current == nil {
		return messages.BackEnd{}
	}
	return l.current.backEnd
}

// drainReply is the channel of the awaited reply to Drain, or nil.
func (l *loop) drainReply() <-chan int {
	if l.current == nil {
		return nil
	}
	return l.current.drained
}

// actorStarted drops the facts of the actor's previous incarnation, whose ActorEnded may have been
// lost, and asks the new one to report.
func (l *loop) actorStarted(actor messages.Actor) {
	l.forget(actor)
	switch actor {
	case messages.ActorProvision:
		l.manifest.Put(messages.RepeatWant{})
	case messages.ActorProcess:
		// The process actor ends what its previous incarnation ran before it reports its start.
		l.confirmed = true
	}
}

// forget drops every fact that the actor has reported (A9).
func (l *loop) forget(actor messages.Actor) {
	switch actor {
	case messages.ActorProvision:
		l.facts.Verified, l.causes.Verified, l.offered = false, "", nil
	case messages.ActorCustody:
		l.facts.Token, l.causes.Token = false, ""
	case messages.ActorFrontDoor:
		// Health successes through the old front door prove nothing about the new one.
		l.facts.Bound, l.causes.Bound, l.base = false, "", ""
		l.facts.LastHealth = time.Time{}
	case messages.ActorHealth:
		l.facts.LastHealth = time.Time{}
	case messages.ActorProcess:
		// The runtime ends with the process actor, and no RuntimeExited follows. That is not a crash of
		// a ready runtime. During a start it counts, so that a process actor that fails at every start
		// leads to a hold. Nothing is started before the next process actor reports.
		if c := l.current; c != nil {
			c.taken = true
			c.noCrash = c.noCrash || l.machine.State() == messages.StateReady
		}
		l.confirmed = false
		l.runtimeGone()
	}
}

// identityChanged handles an artifact that was replaced or changed after its verification (M9, M10): the process actor has
// refused to start from it, and it must be hashed again. That is not a crash. A second time in a row it is: provision found
// the bytes right, and the process actor still refuses them, so the next check waits for the backoff or the hold.
func (l *loop) identityChanged(m messages.IdentityChanged) {
	if m.Launch != l.number {
		return
	}
	if c := l.current; c != nil {
		c.noCrash = !l.rechecked
	}
	l.rechecked = true
	l.facts.Verified, l.causes.Verified = false, messages.ReasonNotReady
	l.offered = nil
	l.provision.Put(messages.Reverify{})
}

// start begins a launch. The caller has checked the conditions of A3.
func (l *loop) start() {
	l.number++
	l.current = &launch{number: l.number, pair: l.next(), startBy: time.Now().Add(l.deps.StartDeadline)}
	l.restart = false
	l.retryAt = time.Time{}
	l.apply(messages.EventStart, messages.ReasonNotReady)
	p := l.current.pair
	l.name(p)
	l.process.Put(messages.Spawn{Launch: l.number, Model: p.model, Runtime: p.runtime, Plain: p.same(l.plain)})
	answer(&l.onStart, messages.ReasonOK)
}

// runtimeStarted handles the answer to Spawn, or to ConfirmProcess after a restart of this actor. In the
// second case the launch is adopted, unless a newer one was requested: then it is ended.
func (l *loop) runtimeStarted(m messages.RuntimeStarted) {
	switch {
	case l.confirmed:
		if l.running(m.Launch) == nil {
			l.process.Put(messages.Kill{Launch: m.Launch})
		}
	case m.Launch < l.number:
		// The newer launch follows this one, or its Spawn was lost: ask again.
		l.process.Put(messages.Kill{Launch: m.Launch})
		l.process.Put(messages.ConfirmProcess{})
	default:
		l.confirmed, l.number = true, m.Launch
		l.current = &launch{number: m.Launch, adopted: digests{m.Model, m.Runtime}, used: true}
		l.log.Info("runtime adopted", zap.Int("pid", m.PID))
		l.recognise(l.proven, l.offered)
		l.endWrong() // provision may have reported before the process actor
	}
}

// runtimeAbsent handles the answer to ConfirmProcess or Kill. It ends a launch only if it answers the
// Kill of that launch: a ConfirmProcess may have been sent before the Spawn that is under way.
func (l *loop) runtimeAbsent(m messages.RuntimeAbsent) {
	l.confirmed = true
	if c := l.running(m.Launch); c != nil && c.killed {
		l.runtimeGone()
	}
}

// runtimeGone ends the current launch, if any, without a report of its exit.
func (l *loop) runtimeGone() {
	if l.current == nil {
		return
	}
	l.runtimeExited(messages.RuntimeExited{
		Launch: l.current.number, Requested: l.current.killed,
		Exit: messages.ExitReport{At: time.Now(), Code: -1, Reason: messages.ReasonProcessExited},
	})
}

// runtimeExited drops the launch and moves the machine to stopped along the table. A crash is counted
// and leads to a retry or a hold.
func (l *loop) runtimeExited(m messages.RuntimeExited) {
	ended := l.running(m.Launch)
	if ended == nil {
		return
	}
	l.current = nil
	reason := m.Exit.Reason
	switch {
	case ended.failure != "":
		reason = ended.failure
	case m.Requested: // an orderly stop or replacement is not a failure
		reason = messages.ReasonNotReady
	}
	switch l.machine.State() {
	case messages.StateStarting:
		l.apply(messages.EventHealthFail, reason)
	case messages.StateReady:
		l.apply(messages.EventDrain, reason)
		l.apply(messages.EventStopped, reason)
	case messages.StateDraining:
		l.apply(messages.EventStopped, reason)
	}
	// A runtime that dies while it is drained may die of a request as well, although that is not a crash. One that
	// this actor ends, such as a hung one, does not: the requests in it are not noted, and keep the end from counting
	// as a crash.
	byItself := !ended.taken && (!m.Requested || ended.dying)
	withRequests := l.deps.RequestsEnded(m.Launch, byItself)
	if ended.crashed(m.Requested) {
		l.crashed(ended.pair, m.Exit, reason, withRequests)
	}
}

// crashed counts a crash of a launch of p and schedules the retry, or holds launches back after a crash
// loop (A8). A crash with requests in the runtime does not count towards the loop (R11).
func (l *loop) crashed(p *pair, exit messages.ExitReport, reason messages.Reason, byRequests bool) {
	now := time.Now()
	exit.Reason = reason
	l.lastExit = &exit
	if p != nil {
		l.switched(p.model.SHA256, reason)
	}
	l.restarts++
	if l.proven != nil && !p.same(l.proven) {
		l.rejected = p
		l.log.Warn("newer artifacts did not become ready, going back", zap.String("reason", string(reason)))
	}
	if byRequests {
		// The front door refuses these requests from now on. Other clients must not lose the runtime
		// because of them, so there is no hold, and the pause grows only after many of them.
		with, pause := fsm.RequestDeath(l.failures.WithRequests, now)
		l.failures = &messages.Failures{At: l.failures.At, WithRequests: with}
		pause = max(pause, firstRetry)
		l.retryAt = now.Add(pause)
		l.log.Warn("runtime ended while requests were in it", zap.String("reason", string(reason)), zap.Int("code", exit.Code),
			zap.String("signal", exit.Signal), zap.Int("lastHour", len(with)), zap.Duration("retryIn", pause))
		return
	}
	with := l.failures.WithRequests
	recent, isLoop := fsm.CrashLoop(l.failures.At, now)
	if reason == messages.ReasonLibraryMissing && l.next().same(p) {
		// Every further start fails in the same way until the user installs the library.
		l.failures = &messages.Failures{At: recent, WithRequests: with, HeldTill: now.Add(fsm.CrashLoopWindow)}
		l.causes.Ready = reason
		l.log.Error("runtime held", zap.String("reason", string(reason)), zap.Time("until", l.failures.HeldTill))
		return
	}
	if isLoop {
		l.failures = &messages.Failures{At: recent, WithRequests: with, HeldTill: now.Add(fsm.CrashLoopWindow)}
		l.causes.Ready = heldReason(l.lastExit)
		l.log.Error("runtime held after repeated failures", zap.String("reason", string(l.causes.Ready)),
			zap.String("last", string(reason)), zap.Time("until", l.failures.HeldTill))
		return
	}
	l.failures = &messages.Failures{At: recent, WithRequests: with}
	wait := l.backoff.NextBackOff()
	l.retryAt = now.Add(wait)
	l.log.Warn("runtime failed", zap.String("reason", string(reason)), zap.Int("code", exit.Code),
		zap.String("signal", exit.Signal), zap.Duration("retryIn", wait))
}

// heldReason is the reason that status shows while launches are held back. A failure that has one cause, which the user can
// remove, is named; the others are a crash loop.
func heldReason(last *messages.ExitReport) messages.Reason {
	if last != nil {
		switch last.Reason {
		case messages.ReasonRAMOverLimit, messages.ReasonNoSpace, messages.ReasonLibraryMissing:
			return last.Reason
		}
	}
	return messages.ReasonCrashLoop
}

// forgive clears the crash history, the hold and the backoff. The crashes with requests in the runtime are counted
// for an hour, however healthy the runtime is between them, unless the user asks for a start.
func (l *loop) forgive(user bool) {
	kept := l.failures.WithRequests
	if user {
		kept = nil
	}
	l.failures, l.retryAt = &messages.Failures{WithRequests: kept}, time.Time{}
	l.backoff.Reset()
}

// healthSucceeded makes a starting launch ready and keeps a ready one available. It ignores a success of a launch that is
// being ended, or whose process has begun to die.
func (l *loop) healthSucceeded(m messages.HealthSucceeded) {
	c := l.running(m.Launch)
	if c == nil || c.killed || !c.exitBy.IsZero() {
		return
	}
	switch l.machine.State() {
	case messages.StateStarting:
		c.startBy, c.readyAt, c.used = time.Time{}, time.Now(), true
		l.rechecked = false
		l.apply(messages.EventHealthOK, messages.ReasonOK)
		l.lastReady = c.number
		l.replaced()
		l.prove(c)
		if l.facts.Verified && c.pair != nil && !l.next().same(c.pair) {
			// A newer pair was offered while this launch started.
			l.retire()
			return
		}
	case messages.StateReady:
	default:
		return
	}
	l.facts.LastHealth = m.At
	if c.asleep != m.Asleep {
		c.asleep = m.Asleep
		l.log.Info("model sleeps or wakes", zap.Bool("asleep", c.asleep))
	}
	if c.asleep {
		l.process.Put(messages.CheckModel{Launch: c.number})
	}
}

// healthFailed ends availability at once (A5). Before its start deadline a launch may fail probes; a
// launch that hangs is ended and replaced.
//
// ReasonProcessExited comes from the process actor as soon as the runtime begins to die, tens of
// milliseconds before its memory is freed and RuntimeExited is sent. If RuntimeExited does not follow
// by exitBy, the launch is ended: the report was wrong, or the runtime hangs while it exits.
func (l *loop) healthFailed(m messages.HealthFailed) {
	c := l.running(m.Launch)
	if c == nil {
		return
	}
	l.facts.LastHealth = time.Time{}
	if m.Reason == messages.ReasonProcessExited && c.exitBy.IsZero() {
		c.exitBy = time.Now().Add(exitPatience)
		c.dying = !c.killed
	}
	if m.Hung {
		l.end(m.Reason)
	}
}

// memoryExceeded ends a launch that stays over its memory limit (P4): a ready one after a drain, since
// its new requests are denied already, a starting one at once.
func (l *loop) memoryExceeded(m messages.MemoryExceeded) {
	c := l.running(m.Launch)
	if c == nil {
		return
	}
	switch l.machine.State() {
	case messages.StateStarting:
		l.end(messages.ReasonRAMOverLimit)
	case messages.StateReady:
		c.failure = messages.ReasonRAMOverLimit
		l.drain()
	}
}

// speculationUnfit replaces a launch with speculative decoding by one without, after a drain (R12). An adopted launch
// whose pair is not known yet is left as it is; the sender repeats the message.
func (l *loop) speculationUnfit(m messages.SpeculationUnfit) {
	c := l.running(m.Launch)
	if c == nil || !c.speculates || c.pair == nil || c.pair.same(l.plain) {
		return
	}
	l.plain = c.pair
	l.log.Info("runtime restarts without speculation", zap.String("why", m.Why))
	if l.wanted {
		l.restart = true
	}
}

// forgetPrompts replaces the current launch, a ready one after a drain, if it may have had requests. While the process
// actor has not said what runs, that is the launch it reports; if none runs, the next start ends the request.
func (l *loop) forgetPrompts() {
	if l.wanted && (!l.confirmed || l.current != nil && l.current.used) {
		l.restart = true
	}
}

// end kills the current launch without waiting for its requests. It counts as a failure for reason,
// unless noCrash is set.
func (l *loop) end(reason messages.Reason) {
	c := l.current
	if c == nil || c.killed {
		return
	}
	c.failure = reason
	switch l.machine.State() {
	case messages.StateStarting:
		l.apply(messages.EventHealthFail, reason)
	case messages.StateReady:
		l.apply(messages.EventDrain, reason)
	}
	c.startBy = time.Time{}
	l.kill(c)
}

func (l *loop) kill(c *launch) {
	c.killed = true
	l.process.Put(messages.Kill{Launch: c.number})
}
