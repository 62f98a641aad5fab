// Package custody is the actor that keeps the user's secrets: the loopback token of this start of the daemon, and the stored
// session (contract K). It alone calls the keychain's write operations.
//
// New makes the loopback token, and Serve stores it. The front door gets the token only after it was stored and read back.
// When the keychain fails, custody reports TokenLost with the reason and keeps the token in no other place (K3). It tries
// again with a backoff, and at once when the keychain signals a change. A restart of this actor stores the same token again.
//
// Custody reads the token back at a slow interval and whenever the lifecycle actor asks (A4). A missing or different token is
// reported lost (A5) and stored again. A token that cannot be read is reported lost until it can be read, because no program
// can get it (K3); nothing is deleted (K7).
//
// The first store of the daemon and each user action of the session actor may raise one dialog of the keychain. No other call
// raises one.
package custody

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/authority/keychain"
	"companion/messages"
)

// Keychain is implemented by keychain.Keychain; tests inject faults. Calls return when their context ends.
type Keychain interface {
	Get(ctx context.Context, account keychain.Account) (secret messages.Secret, found bool, err error)
	Set(ctx context.Context, account keychain.Account, secret messages.Secret) error
	Delete(ctx context.Context, account keychain.Account) error
}

// Deps are the dependencies of the actor.
type Deps struct {
	Inbox     <-chan messages.ToCustody       // from session only
	Loopback  <-chan messages.LoopbackRequest // from lifecycle and front door
	Lifecycle chan<- messages.ToLifecycle
	FrontDoor chan<- messages.ToFrontDoor
	Keychain  Keychain
	// Beat is the interval at which the stored token is read back. Zero means only when the lifecycle actor asks.
	Beat time.Duration
	// Watch calls changed when the state of the keychain may have changed, until ctx ends. Nil means that it has no signals.
	Watch func(ctx context.Context, changed func())
	// Changed counts the calls of changed, for the session actor. It may be nil.
	Changed *actorkit.Watch[int]
	// Fatal, if not nil, is called at most once, if there is no keychain service when the daemon starts. The daemon then ends
	// with exit code 7. Fatal must not block.
	Fatal func(messages.Reason)
	Log   *zap.Logger
}

// Actor is the custody actor.
type Actor struct {
	deps  Deps
	token messages.Secret
	fatal chan struct{} // holds one element until Fatal was called
	ask   chan struct{} // holds one element until the first store, which may raise a dialog
}

// New makes the loopback token of this start (K6).
func New(deps Deps) *Actor {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand crashes the program instead
	a := &Actor{deps: deps, token: messages.NewSecret(base64.RawURLEncoding.EncodeToString(b)), fatal: make(chan struct{}, 1), ask: make(chan struct{}, 1)}
	a.fatal <- struct{}{}
	a.ask <- struct{}{}
	return a
}

func (a *Actor) String() string { return string(messages.ActorCustody) }

// maxJobs bounds the queue of keychain jobs; further ones are answered keychain_timeout.
const maxJobs = 32

// Time limits for the removal of the loopback token at shutdown. A working keychain needs milliseconds. The shorter limit
// applies if the last call hangs or has timed out, and to a service that does not react.
const (
	clearWithin     = time.Second
	clearWithinHung = 100 * time.Millisecond
	// hungAfter is the time after which a running call counts as hung or waiting for a dialog.
	hungAfter = 250 * time.Millisecond
)

// job is one piece of keychain work. It runs in its own goroutine; then done runs in the loop.
type job struct {
	work func(ctx context.Context) messages.Reason
	done func(messages.Reason)
	// loopback marks a job about the loopback token, which shutdown may cancel.
	loopback bool
}

// loop is the state of one Serve; only its goroutine touches it.
type loop struct {
	deps  Deps
	token messages.Secret
	fatal chan struct{}
	ask   chan struct{}

	background *actorkit.Group
	lifecycle  actorkit.Outbox[messages.ToLifecycle]
	frontDoor  actorkit.Outbox[messages.ToFrontDoor]

	queue    []job // queue[0] is running
	began    time.Time
	cancel   context.CancelFunc // of the running job
	finished chan messages.Reason
	changed  chan struct{} // capacity one: the keychain's state may have changed

	stored  bool
	hung    bool            // the last call timed out
	cleared bool            // shutdown has removed the token; it is not stored again
	lost    messages.Reason // why the token is not stored; empty until that is known
	retry   *time.Timer
	beat    *time.Timer // stopped while the token is not stored: retry runs then
	pauses  *backoff.ExponentialBackOff
}

// Serve runs until ctx ends. It returns when all goroutines that it started have ended.
func (a *Actor) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	l := &loop{
		deps: a.deps, token: a.token, fatal: a.fatal, ask: a.ask,
		background: actorkit.NewGroup(),
		lifecycle:  actorkit.Outbox[messages.ToLifecycle]{Box: a.deps.Lifecycle},
		frontDoor:  actorkit.Outbox[messages.ToFrontDoor]{Box: a.deps.FrontDoor},
		finished:   make(chan messages.Reason, 1),
		changed:    make(chan struct{}, 1),
		retry:      time.NewTimer(time.Hour),
		beat:       time.NewTimer(time.Hour),
		pauses:     actorkit.NewBackOff(time.Second, 2*time.Minute),
	}
	l.retry.Stop()
	l.beat.Stop()
	defer l.end(cancel)
	l.lifecycle.Put(messages.ActorStarted{Actor: messages.ActorCustody})
	l.storeToken(ctx)
	if l.deps.Watch != nil {
		l.background.Go(func() { l.deps.Watch(ctx, l.notice) })
	}
	return l.run(ctx)
}

// notice tells the loop that the keychain has changed. The goroutine of Watch calls it.
func (l *loop) notice() {
	select {
	case l.changed <- struct{}{}:
	default: // a signal is already pending
	}
}

// keychainChanged handles a signal of the keychain: it reads a stored token back, and stores a lost one at once.
func (l *loop) keychainChanged(ctx context.Context) {
	if l.deps.Changed != nil {
		l.deps.Changed.Set(l.deps.Changed.Get() + 1)
	}
	switch {
	case l.cleared:
	case l.stored:
		l.confirm(ctx, func() {})
	default:
		l.pauses.Reset()
		l.storeToken(ctx)
	}
}

// end waits for the running job and answers every pending request, so that no caller waits for a stopped actor.
func (l *loop) end(cancel context.CancelFunc) {
	cancel()
	l.background.Wait()
	for _, j := range l.queue {
		j.done(messages.ReasonKeychainTimeout)
	}
	l.retry.Stop()
	l.beat.Stop()
}

func (l *loop) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case l.lifecycle.Out() <- l.lifecycle.Head():
			l.lifecycle.Sent()
		case l.frontDoor.Out() <- l.frontDoor.Head():
			l.frontDoor.Sent()
		case m := <-l.deps.Inbox:
			l.handleSession(ctx, m)
		case m := <-l.deps.Loopback:
			l.handleLoopback(ctx, m)
		case reason := <-l.finished:
			l.hung = reason == messages.ReasonKeychainTimeout
			l.cancel()
			// Dequeue after done, so that a job that done enqueues is not started twice.
			l.queue[0].done(reason)
			l.queue = l.queue[1:]
			l.begin(ctx)
		case <-l.changed:
			l.keychainChanged(ctx)
		case <-l.retry.C:
			l.storeToken(ctx)
		case <-l.beat.C:
			l.confirm(ctx, func() {})
		case p := <-l.background.Panicked():
			panic(p)
		}
	}
}

func (l *loop) handleSession(ctx context.Context, m messages.ToCustody) {
	switch m := m.(type) {
	case messages.LoadSession:
		l.load(ctx, m)
	case messages.StoreSession:
		l.enqueue(ctx, job{
			work: func(ctx context.Context) messages.Reason {
				return storeSession(asking(ctx, m.Ask), l.deps.Keychain, m.Session)
			},
			done: func(r messages.Reason) { m.Reply <- r },
		})
	case messages.ClearSession:
		l.enqueue(ctx, job{
			work: func(ctx context.Context) messages.Reason { return clearSession(asking(ctx, m.Ask), l.deps.Keychain) },
			done: func(r messages.Reason) { m.Reply <- r },
		})
	default:
		l.handleRevocation(ctx, m)
	}
}

func (l *loop) handleLoopback(ctx context.Context, m messages.LoopbackRequest) {
	switch m := m.(type) {
	case messages.DeliverLoopbackToken:
		if l.stored {
			l.frontDoor.Put(messages.UseLoopbackToken{Token: l.token})
		}
	case messages.ConfirmCustody:
		if !l.stored {
			l.report()
			return
		}
		l.confirm(ctx, l.report)
	case messages.ClearLoopbackToken:
		l.clearToken(ctx, m)
	}
}

func (l *loop) load(ctx context.Context, m messages.LoadSession) {
	var loaded messages.LoadedSession
	l.enqueue(ctx, job{work: func(ctx context.Context) messages.Reason {
		loaded = loadSession(asking(ctx, m.Ask), l.deps.Keychain)
		return loaded.Reason
	}, done: func(r messages.Reason) {
		loaded.Reason = r
		m.Reply <- loaded
	}})
}

// asking allows one dialog where ask is set.
func asking(ctx context.Context, ask bool) context.Context {
	if ask {
		return keychain.Ask(ctx)
	}
	return ctx
}

// report tells lifecycle whether the token is stored. Before the first store has ended it sends nothing: the end of that
// store reports.
func (l *loop) report() {
	switch {
	case l.stored:
		l.lifecycle.Put(messages.TokenStored{})
	case l.lost != "":
		l.lifecycle.Put(messages.TokenLost{Reason: l.lost})
	}
}

func (l *loop) storeToken(ctx context.Context) {
	if l.cleared || l.stored {
		return
	}
	ask := false
	select {
	case <-l.ask:
		ask = true
	default:
	}
	l.enqueue(ctx, job{loopback: true, work: func(ctx context.Context) messages.Reason {
		return keychain.ReasonOf(l.deps.Keychain.Set(asking(ctx, ask), keychain.LoopbackToken, l.token))
	}, done: func(reason messages.Reason) {
		switch {
		case l.cleared, l.stored: // an earlier job in the queue has stored the token
		case reason == messages.ReasonOK:
			l.stored, l.lost = true, ""
			l.pauses.Reset()
			l.nextBeat()
			select {
			case <-l.fatal: // the keychain service exists: a later failure is not fatal
			default:
			}
			l.deps.Log.Info("loopback token stored")
			l.frontDoor.Put(messages.UseLoopbackToken{Token: l.token})
			l.report()
		default:
			l.tokenLost(reason)
		}
	}})
}

// confirm reads the stored token back and calls confirmed if it is unchanged (A4, A5).
func (l *loop) confirm(ctx context.Context, confirmed func()) {
	l.enqueue(ctx, job{loopback: true, work: func(ctx context.Context) messages.Reason {
		return readBack(ctx, l.deps.Keychain, l.token)
	}, done: func(reason messages.Reason) {
		switch {
		case !l.stored: // cleared, or an earlier job found it lost
		case reason == messages.ReasonOK:
			l.nextBeat()
			confirmed()
		default:
			l.stored = false
			l.beat.Stop()
			l.tokenLost(reason)
			if reason == messages.ReasonMissingToken || reason == messages.ReasonInvalidToken {
				l.storeToken(ctx)
			}
		}
	}})
}

// readBack reports whether the keychain holds token: missing_token if it holds none, invalid_token if it holds another
// one, and otherwise the reason why it cannot be read.
func readBack(ctx context.Context, k Keychain, token messages.Secret) messages.Reason {
	got, found, err := k.Get(ctx, keychain.LoopbackToken)
	reason := keychain.ReasonOf(err)
	switch {
	case reason == messages.ReasonInvalidSecret: // a value that custody never stores
		return messages.ReasonInvalidToken
	case reason != messages.ReasonOK:
		return reason
	case !found:
		return messages.ReasonMissingToken
	case subtle.ConstantTimeCompare([]byte(got.Reveal()), []byte(token.Reveal())) != 1:
		return messages.ReasonInvalidToken
	}
	return messages.ReasonOK
}

func (l *loop) nextBeat() {
	if l.deps.Beat > 0 {
		l.beat.Reset(l.deps.Beat)
	}
}

func (l *loop) tokenLost(reason messages.Reason) {
	l.lost = reason
	l.deps.Log.Warn("loopback token not stored", zap.String("reason", string(reason)))
	l.report()
	l.retry.Reset(l.pauses.NextBackOff())
	if reason != messages.ReasonKeychainUnavailable || l.deps.Fatal == nil {
		return
	}
	select {
	case <-l.fatal:
		l.deps.Fatal(reason)
	default:
	}
}

// clearToken removes the token at clean shutdown (K6). Queued session jobs finish first. A running job about the loopback
// token is cancelled. The removal is queued last, so that no late store brings the token back. A keychain that hangs does not
// delay the shutdown: after a restart of the daemon the old token is useless.
func (l *loop) clearToken(ctx context.Context, m messages.ClearLoopbackToken) {
	l.cleared, l.stored, l.lost = true, false, messages.ReasonMissingToken
	l.retry.Stop()
	l.beat.Stop()
	l.frontDoor.Put(messages.DropLoopbackToken{})
	within, busy := clearWithin, len(l.queue) > 0
	hung := busy && time.Since(l.began) > hungAfter || !busy && l.hung
	if hung {
		within = clearWithinHung
	}
	if busy && (hung || l.queue[0].loopback) {
		l.cancel()
	}
	l.enqueue(ctx, job{loopback: true, work: func(ctx context.Context) messages.Reason {
		ctx, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		return keychain.ReasonOf(l.deps.Keychain.Delete(keychain.Brief(ctx), keychain.LoopbackToken))
	}, done: func(r messages.Reason) { m.Reply <- r }})
}

// enqueue appends a keychain job to the queue. Jobs run one at a time, in order (K5).
func (l *loop) enqueue(ctx context.Context, j job) {
	if len(l.queue) >= maxJobs {
		j.done(messages.ReasonKeychainTimeout)
		return
	}
	l.queue = append(l.queue, j)
	if len(l.queue) == 1 {
		l.begin(ctx)
	}
}

func (l *loop) begin(ctx context.Context) {
	if len(l.queue) == 0 {
		return
	}
	work := l.queue[0].work
	l.began = time.Now()
	ctx, l.cancel = context.WithCancel(ctx)
	l.background.Go(func() { l.finished <- work(ctx) })
}
