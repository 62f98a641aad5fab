// Package custody is the actor that keeps the user's secrets: the loopback token of this start of the daemon, and the stored
// session (contract K). It alone calls the keychain's write operations.
//
// New makes the loopback token, and Serve stores it; the front door gets it only after it was stored and read back. When the
// keychain fails, the token is lost and kept nowhere else (K3): custody says why and tries again, at once when the keychain
// signals a change, and otherwise with a backoff. A restart of this actor stores the same token again.
//
// The token is read again at a slow beat and whenever the lifecycle actor asks (A4). One that is missing or different is lost
// (A5), and stored again. One that cannot be read counts as lost for as long as that lasts, because no program can get it
// (K3), though nothing is deleted (K7).
//
// The first store of the daemon may raise one dialog, and each user action of the session actor one; nothing else does.
package custody

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/authority/keychain"
	"companion/messages"
)

// Keychain is keychain.Keychain, or a fault in its place. Calls end with their context.
type Keychain interface {
	Get(ctx context.Context, account keychain.Account) (secret messages.Secret, found bool, err error)
	Set(ctx context.Context, account keychain.Account, secret messages.Secret) error
	Delete(ctx context.Context, account keychain.Account) error
}

// Deps is what the actor is given.
type Deps struct {
	Inbox     <-chan messages.ToCustody       // from session only
	Loopback  <-chan messages.LoopbackRequest // from lifecycle and front door
	Lifecycle chan<- messages.ToLifecycle
	FrontDoor chan<- messages.ToFrontDoor
	Keychain  Keychain
	// Beat is how often the stored token is read again; zero: only when the lifecycle actor asks.
	Beat time.Duration
	// Watch calls changed when the keychain may answer differently than before, until ctx ends; nil: there are no such signals.
	Watch func(ctx context.Context, changed func())
	// Changed counts the calls of changed, for the session actor; nil: nothing watches.
	Changed *actorkit.Watch[int]
	// Fatal, if not nil, is called at most once: there is no keychain service to begin with. The daemon cannot do its work and
	// ends with exit code 7. Fatal must not block.
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

// maxJobs bounds what waits for the keychain; more is answered keychain_timeout.
const maxJobs = 32

// How long the removal of the loopback token may take at shutdown. A keychain that answers does it in milliseconds; one whose
// last call hangs or has timed out gets less.
const (
	clearWithin     = time.Second
	clearWithinHung = 100 * time.Millisecond
	// hungAfter is how long a call takes that does not wait for a dialog and does not hang.
	hungAfter = 250 * time.Millisecond
)

// job is one piece of keychain work; after it, done runs in the loop.
type job struct {
	work func(ctx context.Context) messages.Reason
	done func(messages.Reason)
	// loopback says that the job is about the loopback token, and need not be finished at shutdown.
	loopback bool
}

// loop is the state of one Serve; only its goroutine touches it.
type loop struct {
	deps  Deps
	token messages.Secret
	fatal chan struct{}
	ask   chan struct{}

	beside    *actorkit.Group
	lifecycle actorkit.Outbox[messages.ToLifecycle]
	frontDoor actorkit.Outbox[messages.ToFrontDoor]

	queue    []job // the first one runs
	began    time.Time
	cancel   context.CancelFunc // of the job that runs
	finished chan messages.Reason
	changed  chan struct{} // capacity one: the keychain may answer differently

	stored  bool
	hung    bool            // the last call timed out
	cleared bool            // at shutdown: nothing stores the token again
	lost    messages.Reason // why it is not stored, once that is known
	retry   *time.Timer
	beat    *time.Timer // stopped while the token is not stored: retry does the work then
	pauses  *backoff.ExponentialBackOff
}

// Serve runs until ctx ends and returns when its work has ended.
func (a *Actor) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	l := &loop{
		deps: a.deps, token: a.token, fatal: a.fatal, ask: a.ask,
		beside:    actorkit.NewGroup(),
		lifecycle: actorkit.Outbox[messages.ToLifecycle]{Box: a.deps.Lifecycle},
		frontDoor: actorkit.Outbox[messages.ToFrontDoor]{Box: a.deps.FrontDoor},
		finished:  make(chan messages.Reason, 1),
		changed:   make(chan struct{}, 1),
		retry:     time.NewTimer(time.Hour),
		beat:      time.NewTimer(time.Hour),
		pauses: backoff.NewExponentialBackOff(backoff.WithInitialInterval(time.Second), backoff.WithMultiplier(2),
			backoff.WithMaxInterval(2*time.Minute), backoff.WithMaxElapsedTime(0)),
	}
	l.retry.Stop()
	l.beat.Stop()
	defer l.end(cancel)
	l.lifecycle.Put(messages.ActorStarted{Actor: messages.ActorCustody})
	l.storeToken(ctx)
	if l.deps.Watch != nil {
		l.beside.Go(func() { l.deps.Watch(ctx, l.notice) })
	}
	return l.run(ctx)
}

// notice tells the loop that the keychain has changed; it runs in its own goroutine.
func (l *loop) notice() {
	select {
	case l.changed <- struct{}{}:
	default: // the loop has not looked yet
	}
}

// keychainChanged follows a signal of the keychain: what failed is tried again at once, what is stored is looked at.
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

// end waits for the work and answers every caller, so that none waits for an actor that is gone.
func (l *loop) end(cancel context.CancelFunc) {
	cancel()
	l.beside.Wait()
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
		case p := <-l.beside.Panicked():
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

// report says what is known of the token; while that is nothing, the end of the store will say it.
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
		case l.cleared, l.stored: // an earlier try of two in the queue has stored it
		case reason == messages.ReasonOK:
			l.stored, l.lost = true, ""
			l.pauses.Reset()
			l.nextBeat()
			select {
			case <-l.fatal: // there was a keychain to begin with
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

// confirm reads the stored token again; confirmed runs when it is still there (A4, A5).
func (l *loop) confirm(ctx context.Context, confirmed func()) {
	l.enqueue(ctx, job{loopback: true, work: func(ctx context.Context) messages.Reason {
		return readBack(ctx, l.deps.Keychain, l.token)
	}, done: func(reason messages.Reason) {
		switch {
		case !l.stored: // cleared, or found to be lost by the look before
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

// readBack says whether the keychain holds this token: missing_token and invalid_token say that it holds
// none or another one, any other reason why that cannot be told.
func readBack(ctx context.Context, k Keychain, token messages.Secret) messages.Reason {
	got, found, err := k.Get(ctx, keychain.LoopbackToken)
	reason := keychain.ReasonOf(err)
	switch {
	case reason == messages.ReasonInvalidSecret: // a value that custody would never store
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

// clearToken removes the token at clean shutdown (K6). Session work that is queued ends first; other work about the loopback
// token is cut short, and runs before the removal, so that no late store brings the token back. A keychain that hangs does not
// hold the shutdown: the token of an earlier start is worthless.
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
		return keychain.ReasonOf(l.deps.Keychain.Delete(ctx, keychain.LoopbackToken))
	}, done: func(r messages.Reason) { m.Reply <- r }})
}

// enqueue puts keychain work in line. One runs at a time, in order (K5).
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
	l.beside.Go(func() { l.finished <- work(ctx) })
}
