// Package manifest is the actor that keeps the signed manifest fresh and turns it into what provision
// may fetch (contract M1–M3).
//
// It begins with the manifest that was verified last, so that a verified model serves without network
// or sign-in; then it refreshes, while somebody is signed in, every hour, with backoff after a failure.
// The access token comes from the session actor, is used in one refresh, and is forgotten. Provision
// hears plain values only: name, URLs, allowed origins, digest, size.
package manifest

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/authority/tuf"
	"companion/messages"
)

// Repository is tuf.Client, or a fault in its place.
type Repository interface {
	Refresh(ctx context.Context, access messages.Secret) (tuf.Catalogue, error)
	Load() (tuf.Catalogue, error)
}

// Deps is what the actor is given.
type Deps struct {
	Inbox      <-chan messages.ManifestCommand
	Session    chan<- messages.AccessTokenRequest
	Provision  chan<- messages.ToProvision
	Lifecycle  chan<- messages.ToLifecycle
	Repository Repository
	View       *actorkit.Watch[messages.ManifestView]
	Model      string        // configured; empty means the manifest's default
	Grace      time.Duration // how long a verified model serves after the manifest has expired
	Log        *zap.Logger
}

// Actor is the manifest actor.
type Actor struct{ deps Deps }

// New returns the actor; Serve runs it.
func New(deps Deps) *Actor { return &Actor{deps} }

func (a *Actor) String() string { return string(messages.ActorManifest) }

const (
	// interval between refreshes, give or take a tenth, so that not all companions come at once.
	interval = time.Hour
	// refreshTimeout bounds one refresh; the files are small.
	refreshTimeout = 2 * time.Minute
)

// loop is the state of one Serve; only its goroutine touches it.
type loop struct {
	deps   Deps
	ctx    context.Context
	beside *actorkit.Group

	provision actorkit.Outbox[messages.ToProvision]
	lifecycle actorkit.Outbox[messages.ToLifecycle]

	catalogue  tuf.Catalogue
	have       bool // catalogue holds a verified manifest
	signedIn   bool // the last access token request gave one
	reason     messages.Reason
	want       *messages.Want  // the last one sent
	lost       messages.Reason // why the manifest vouches for no model; empty while it does
	refreshing bool
	again      bool // somebody signed in or out while a refresh ran
	pulls      []messages.Pull

	inside chan func() // what finished beside the loop
	next   *time.Timer // the next refresh
	expiry *time.Timer // the next change of what the catalogue is good for
	pauses *backoff.ExponentialBackOff
}

// Serve runs until ctx ends and returns when its work has ended.
func (a *Actor) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	l := &loop{
		deps: a.deps, ctx: ctx, beside: actorkit.NewGroup(),
		provision: actorkit.Outbox[messages.ToProvision]{Box: a.deps.Provision},
		lifecycle: actorkit.Outbox[messages.ToLifecycle]{Box: a.deps.Lifecycle},
		reason:    messages.ReasonManifestUnreachable,
		inside:    make(chan func()),
		next:      time.NewTimer(time.Hour), expiry: time.NewTimer(time.Hour),
		pauses: backoff.NewExponentialBackOff(backoff.WithInitialInterval(5*time.Second), backoff.WithMultiplier(2),
			backoff.WithMaxInterval(10*time.Minute), backoff.WithMaxElapsedTime(0)),
	}
	l.next.Stop()
	l.expiry.Stop()
	defer l.end(cancel)
	l.lifecycle.Put(messages.ActorStarted{Actor: messages.ActorManifest})
	l.load()
	return l.run()
}

// end waits for the work and answers those who wait for it.
func (l *loop) end(cancel context.CancelFunc) {
	cancel()
	l.beside.Wait()
	l.next.Stop()
	l.expiry.Stop()
	for _, p := range l.pulls {
		p.Reply <- messages.ReasonManifestUnreachable
	}
}

func (l *loop) run() error {
	for {
		select {
		case <-l.ctx.Done():
			return l.ctx.Err()
		case l.provision.Out() <- l.provision.Head():
			l.provision.Sent()
		case l.lifecycle.Out() <- l.lifecycle.Head():
			l.lifecycle.Sent()
		case m := <-l.deps.Inbox:
			l.handle(m)
		case f := <-l.inside:
			f()
		case <-l.next.C:
			l.refresh()
		case <-l.expiry.C:
			l.decide(false)
		case p := <-l.beside.Panicked():
			panic(p)
		}
	}
}

func (l *loop) handle(m messages.ManifestCommand) {
	switch m := m.(type) {
	case messages.SessionChanged:
		l.pauses.Reset()
		l.again = l.refreshing
		l.refresh()
	case messages.RepeatWant:
		if l.want != nil {
			l.provision.Put(*l.want)
		}
	case messages.Pull:
		l.pulls = append(l.pulls, m)
		l.refresh()
	case messages.ListModels:
		l.list(m)
	}
}

// later runs f in the loop.
func (l *loop) later(f func()) {
	select {
	case l.inside <- f:
	case <-l.ctx.Done():
	}
}

// load begins with what was verified last, and refreshes after it.
func (l *loop) load() {
	l.refreshing = true
	l.beside.Go(func() {
		catalogue, err := l.deps.Repository.Load()
		l.later(func() {
			l.refreshing = false
			if err == nil {
				l.take(catalogue)
			} else {
				l.deps.Log.Info("no manifest kept", zap.String("reason", string(tuf.ReasonOf(err))))
			}
			l.refresh()
		})
	})
}

// refresh asks for an access token, uses it in one refresh, and forgets it (M3). One runs at a time;
// who comes meanwhile shares its result.
func (l *loop) refresh() {
	if l.refreshing {
		return
	}
	l.refreshing = true
	l.next.Stop()
	l.beside.Go(func() {
		ctx, cancel := context.WithTimeout(l.ctx, refreshTimeout)
		defer cancel()
		access := l.askToken(ctx)
		if access.Reason != messages.ReasonOK {
			l.later(func() { l.refreshed(tuf.Catalogue{}, access.Reason, l.signedIn) })
			return
		}
		catalogue, err := l.deps.Repository.Refresh(ctx, access.Token)
		l.later(func() { l.refreshed(catalogue, tuf.ReasonOf(err), true) })
	})
}

func (l *loop) askToken(ctx context.Context) messages.AccessToken {
	access, err := actorkit.Ask(ctx, l.deps.Session, func(reply chan<- messages.AccessToken) messages.AccessTokenRequest {
		return messages.AccessTokenRequest{Reply: reply}
	})
	if err != nil {
		return messages.AccessToken{Reason: messages.ReasonManifestUnreachable}
	}
	return access
}

// confirm finds out whether somebody is still signed in, after a refresh that worked: it may have
// overlapped with a sign-in, which needs no second refresh, or with a sign-out, after which nothing new
// is fetched.
func (l *loop) confirm() {
	l.refreshing = true
	l.beside.Go(func() {
		ctx, cancel := context.WithTimeout(l.ctx, refreshTimeout)
		defer cancel()
		access := l.askToken(ctx)
		l.later(func() {
			l.refreshing = false
			if access.Reason != messages.ReasonOK || l.again {
				l.again = false
				l.refresh()
				return
			}
			l.answer(messages.ReasonOK)
		})
	})
}

// refreshed takes the end of a refresh, plans the next, and goes on with the pulls that waited.
func (l *loop) refreshed(catalogue tuf.Catalogue, reason messages.Reason, signedIn bool) {
	l.refreshing, l.signedIn, l.reason = false, signedIn && reason != messages.ReasonSignInNeeded, reason
	switch reason {
	case messages.ReasonOK:
		l.pauses.Reset()
		l.deps.Log.Info("manifest refreshed", zap.Int64("version", catalogue.Version))
		l.next.Reset(time.Duration(float64(interval) * (0.9 + 0.2*rand.Float64())))
		l.take(catalogue)
	case messages.ReasonSignInNeeded:
		l.deps.Log.Info("manifest not refreshed", zap.String("reason", string(reason)))
		l.decide(false) // nothing to try until somebody signs in
	default:
		l.deps.Log.Warn("manifest not refreshed", zap.String("reason", string(reason)))
		l.next.Reset(l.pauses.NextBackOff())
		l.decide(false)
	}
	if !l.again {
		l.answer(reason)
		return
	}
	// The pulls wait for what is true of the session now.
	l.again = false
	if reason == messages.ReasonOK {
		l.confirm()
		return
	}
	l.refresh()
}

// answer goes on with the pulls that waited for the refresh.
func (l *loop) answer(reason messages.Reason) {
	pulls := l.pulls
	l.pulls = nil
	for _, p := range pulls {
		l.pull(p, reason)
	}
}

// take makes a verified manifest the current one.
func (l *loop) take(catalogue tuf.Catalogue) {
	l.catalogue, l.have = catalogue, true
	l.decide(true)
}
