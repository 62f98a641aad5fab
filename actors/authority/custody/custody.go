// Package custody is the actor that keeps the user's secrets: the loopback token of this start of the
// daemon, and the stored session (contract K). It alone calls the keychain's write operations.
//
// The loopback token is made once, by New, and stored by Serve; the front door hears it only after it
// was stored and read back. Where the keychain fails, the token is lost and not kept in another place
// (K3): custody says why and tries again, because a person may unlock it. A restart of this actor
// stores the same token again.
//
// That it was stored once proves nothing later (A4): it is read again at a slow beat and whenever the
// lifecycle actor asks. A token that is gone or another one is lost (A5), and stored again. One that
// cannot be read counts as lost for as long as that lasts, because nobody can be given it (K3), though
// nothing is deleted (K7). Only the first store of a Serve may raise an unlock dialog.
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
	Inbox     <-chan messages.ToCustody       // from session, and nobody else
	Loopback  <-chan messages.LoopbackRequest // from lifecycle and front door
	Lifecycle chan<- messages.ToLifecycle
	FrontDoor chan<- messages.ToFrontDoor
	Keychain  Keychain
	// Beat is how often the stored token is read again; zero: only when the lifecycle actor asks.
	Beat time.Duration
	// Fatal hears, at most once, that there is no keychain service to begin with: the daemon cannot do its
	// work and ends with exit code 7. It must not block. Nil means that nobody wants to know.
	Fatal func(messages.Reason)
	Log   *zap.Logger
}

// Actor is the custody actor.
type Actor struct {
	deps  Deps
	token messages.Secret
	fatal chan struct{} // holds one element until Fatal was called
}

// New makes the loopback token of this start (K6).
func New(deps Deps) *Actor {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand crashes the program instead
	a := &Actor{deps: deps, token: messages.NewSecret(base64.RawURLEncoding.EncodeToString(b)), fatal: make(chan struct{}, 1)}
	a.fatal <- struct{}{}
	return a
}

func (a *Actor) String() string { return string(messages.ActorCustody) }

// maxJobs bounds what waits for the keychain; whoever comes then is told that it is busy.
const maxJobs = 32

// job is one piece of keychain work; after it, done runs in the loop.
type job struct {
	work func(ctx context.Context) messages.Reason
	done func(messages.Reason)
}

// loop is the state of one Serve; only its goroutine touches it.
type loop struct {
	deps  Deps
	token messages.Secret
	fatal chan struct{}

	beside    *actorkit.Group
	lifecycle actorkit.Outbox[messages.ToLifecycle]
	frontDoor actorkit.Outbox[messages.ToFrontDoor]

	queue    []job // the first one runs
	finished chan messages.Reason

	stored  bool
	cleared bool            // at shutdown: nothing stores the token again
	lost    messages.Reason // why it is not stored, once that is known
	asked   bool            // the user was, by the first store
	retry   *time.Timer
	beat    *time.Timer // stopped while the token is not stored: retry does the work then
	pauses  *backoff.ExponentialBackOff
}

// Serve runs until ctx ends and returns when its work has ended.
func (a *Actor) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	l := &loop{
		deps: a.deps, token: a.token, fatal: a.fatal,
		beside:    actorkit.NewGroup(),
		lifecycle: actorkit.Outbox[messages.ToLifecycle]{Box: a.deps.Lifecycle},
		frontDoor: actorkit.Outbox[messages.ToFrontDoor]{Box: a.deps.FrontDoor},
		finished:  make(chan messages.Reason, 1),
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
	return l.run(ctx)
}

// end waits for the work and answers those who wait for it, so that nobody waits for an actor that is
// gone.
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
			// It leaves the line only now, so that work which done puts in line does not begin twice.
			l.queue[0].done(reason)
			l.queue = l.queue[1:]
			l.begin(ctx)
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
		l.enqueue(ctx, func(ctx context.Context) messages.Reason { return storeSession(ctx, l.deps.Keychain, m.Session) },
			func(r messages.Reason) { m.Reply <- r })
	case messages.ClearSession:
		l.enqueue(ctx, func(ctx context.Context) messages.Reason { return clearSession(ctx, l.deps.Keychain) },
			func(r messages.Reason) { m.Reply <- r })
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
	l.enqueue(ctx, func(ctx context.Context) messages.Reason {
		loaded = loadSession(ctx, l.deps.Keychain)
		return loaded.Reason
	}, func(r messages.Reason) {
		loaded.Reason = r
		m.Reply <- loaded
	})
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
	quietly := l.asked
	l.asked = true
	l.enqueue(ctx, func(ctx context.Context) messages.Reason {
		if quietly {
			ctx = keychain.Quiet(ctx)
		}
		return keychain.ReasonOf(l.deps.Keychain.Set(ctx, keychain.LoopbackToken, l.token))
	}, func(reason messages.Reason) {
		switch {
		case l.cleared:
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
	})
}

// confirm reads the stored token again; confirmed runs when it is still there (A4, A5).
func (l *loop) confirm(ctx context.Context, confirmed func()) {
	l.enqueue(ctx, func(ctx context.Context) messages.Reason {
		return readBack(keychain.Quiet(ctx), l.deps.Keychain, l.token)
	}, func(reason messages.Reason) {
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
	})
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

// clearToken removes the token at clean shutdown (K6). What is queued before it ends first, so that no
// late store brings the token back.
func (l *loop) clearToken(ctx context.Context, m messages.ClearLoopbackToken) {
	l.cleared, l.stored, l.lost = true, false, messages.ReasonMissingToken
	l.retry.Stop()
	l.beat.Stop()
	l.frontDoor.Put(messages.DropLoopbackToken{})
	l.enqueue(ctx, func(ctx context.Context) messages.Reason {
		return keychain.ReasonOf(l.deps.Keychain.Delete(ctx, keychain.LoopbackToken))
	}, func(r messages.Reason) { m.Reply <- r })
}

// enqueue puts keychain work in line. One runs at a time, in order (K5).
func (l *loop) enqueue(ctx context.Context, work func(context.Context) messages.Reason, done func(messages.Reason)) {
	if len(l.queue) >= maxJobs {
		done(messages.ReasonKeychainTimeout)
		return
	}
	l.queue = append(l.queue, job{work, done})
	if len(l.queue) == 1 {
		l.begin(ctx)
	}
}

func (l *loop) begin(ctx context.Context) {
	if len(l.queue) == 0 {
		return
	}
	work := l.queue[0].work
	l.beside.Go(func() { l.finished <- work(ctx) })
}
