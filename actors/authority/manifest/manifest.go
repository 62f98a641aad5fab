// Package manifest is the actor that refreshes the signed manifest and derives from it what provision may
// fetch (contract M1–M3, M13).
//
// It starts with the manifest that was verified last, so that a verified model serves without network or
// sign-in. While the user is signed in it refreshes every hour, and after a failure with backoff. The session
// actor supplies the access token, which is used for one refresh and not kept. Expiry and refresh follow the
// wall clock. Provision receives plain values only: name, URLs, allowed origins, digest, size.
package manifest

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/authority/tuf"
	"companion/messages"
)

// Repository is implemented by tuf.Sources; tests inject faults.
type Repository interface {
	LoadOwn() (tuf.Catalogue, error) // the user's own catalogue (M16)

	Refresh(ctx context.Context, access messages.Secret) (tuf.Catalogue, error)
	Load() (tuf.Catalogue, error)
	LastGood() (tuf.Pair, error)
	Remember(model, runtime [32]byte) error
}

// Choice is the record of the model that the user chose with Use. It is implemented by selection.File.
type Choice interface {
	// Load returns the chosen model, or an empty name if the configuration decides.
	Load() (string, error)
	// Store records a model; an empty name removes the record.
	Store(name string) error
}

// Deps are the dependencies of the actor.
type Deps struct {
	Inbox      <-chan messages.ManifestCommand
	Session    chan<- messages.AccessTokenRequest
	Provision  chan<- messages.ToProvision
	Lifecycle  chan<- messages.ToLifecycle
	Repository Repository
	View       *actorkit.Watch[messages.ManifestView]
	Model      string           // configured; empty means the manifest's default
	Choice     Choice           // what the user chose instead; nil: nothing is recorded
	NoHub      bool             // no hub is configured: only the user's own catalogue counts (M16)
	Unpinned   bool             // the configuration names a runtime binary, which replaces every runtime (M10)
	Grace      time.Duration    // how long a verified model serves after the manifest has expired
	Now        func() time.Time // the wall clock; nil means time.Now
	Log        *zap.Logger
}

// Actor is the manifest actor.
type Actor struct{ deps Deps }

// New returns the actor; Serve runs it.
func New(deps Deps) *Actor {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	return &Actor{deps}
}

func (a *Actor) String() string { return string(messages.ActorManifest) }

const (
	// interval between refreshes, plus or minus 10 %, so that the companions of many users do not refresh at the same time.
	interval = time.Hour
	// refreshTimeout bounds one refresh; the files are small.
	refreshTimeout = 2 * time.Minute
)

// loop is the state of one Serve; only its goroutine accesses it.
type loop struct {
	deps       Deps
	ctx        context.Context
	background *actorkit.Group

	provision actorkit.Outbox[messages.ToProvision]
	lifecycle actorkit.Outbox[messages.ToLifecycle]

	catalogue  tuf.Catalogue
	have       bool // catalogue holds a verified manifest
	own        tuf.Catalogue
	wasOwn     map[[32]byte]bool  // every artifact that own ever held
	ownReason  messages.Reason    // ReasonOK, or why own is empty although the user added something
	good       tuf.Pair           // the last known good pair; the zero Pair means none
	ready      messages.PairReady // what became ready last
	signedIn   bool               // the last access token request returned a token
	reason     messages.Reason
	want       *messages.Want  // the last one sent
	lost       messages.Reason // why the manifest allows no model; empty if it allows one
	hubEnded   bool            // endHubPart has ended what ran
	refreshing bool
	again      bool   // the session changed during a refresh
	model      string // to serve: the user's choice or the configured one; empty means the manifest's default
	pulls      []pull
	uses       []messages.Use // the first one is under way

	inside chan func()         // results from other goroutines
	next   *actorkit.WallTimer // the next refresh
	expiry *actorkit.WallTimer // the next change of the catalogue's standing: expiry, or the end of the grace period
	pauses *backoff.ExponentialBackOff
}

// Serve runs until ctx ends. It returns when all goroutines that it started have ended.
func (a *Actor) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	l := &loop{
		deps: a.deps, ctx: ctx, background: actorkit.NewGroup(),
		provision: actorkit.Outbox[messages.ToProvision]{Box: a.deps.Provision},
		lifecycle: actorkit.Outbox[messages.ToLifecycle]{Box: a.deps.Lifecycle},
		reason:    messages.ReasonManifestUnreachable, ownReason: messages.ReasonOK, wasOwn: map[[32]byte]bool{},
		model:  a.deps.Model,
		inside: make(chan func()),
		next:   actorkit.NewWallTimer(a.deps.Now), expiry: actorkit.NewWallTimer(a.deps.Now),
		pauses: actorkit.NewBackOff(5*time.Second, 10*time.Minute),
	}
	if l.deps.NoHub {
		l.reason = messages.ReasonNoHub
	}
	defer l.end(cancel)
	l.lifecycle.Put(messages.ActorStarted{Actor: messages.ActorManifest})
	l.load()
	return l.run()
}

// end waits for the other goroutines and answers the pending requests.
func (l *loop) end(cancel context.CancelFunc) {
	cancel()
	l.background.Wait()
	l.next.Stop()
	l.expiry.Stop()
	for _, p := range l.pulls {
		p.reply <- messages.ReasonManifestUnreachable
	}
	for _, u := range l.uses {
		u.Reply <- messages.ReasonNotReady
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
		case <-l.next.C():
			if l.next.Due() {
				l.refresh()
			}
		case <-l.expiry.C():
			if l.expiry.Due() {
				l.decide(false)
			}
		case p := <-l.background.Panicked():
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
	case messages.PairReady:
		l.remember(m)
	case messages.Pull:
		l.pulls = append(l.pulls, pull{func() ([]messages.Artifact, messages.Reason) { return l.wanted(m.Name) }, m.Reply})
		l.refresh()
	case messages.Use:
		l.uses = append(l.uses, m)
		if len(l.uses) == 1 {
			l.use()
		}
	case messages.PruneUnused:
		l.prune(m)
	case messages.ListModels:
		l.list(m)
	case messages.ReloadOwn:
		l.reload(m)
	}
}

// later queues f, which the loop then calls.
func (l *loop) later(f func()) {
	select {
	case l.inside <- f:
	case <-l.ctx.Done():
	}
}

// load reads the manifest that was verified last, the user's own catalogue and the last known good pair, then refreshes.
func (l *loop) load() {
	l.refreshing = true
	l.background.Go(func() {
		own, ownErr := l.deps.Repository.LoadOwn()
		catalogue, err := l.deps.Repository.Load()
		good, _ := l.deps.Repository.LastGood()
		chosen := l.chosen()
		l.later(func() {
			l.refreshing, l.good = false, good
			if chosen != "" {
				l.model = chosen
			}
			l.takeOwn(own, ownErr)
			if err == nil {
				l.take(catalogue)
			} else {
				if !l.deps.NoHub { // without a hub there is none to keep
					l.deps.Log.Info("no manifest kept", zap.String("reason", string(tuf.ReasonOf(err))))
				}
				if _, ok := l.ownModel(); ok || good.Model.Kind != "" {
					l.decide(false)
				}
			}
			l.refresh()
		})
	})
}

// remember records the pair that became ready, for the next start (M13).
func (l *loop) remember(m messages.PairReady) {
	l.ready = m
	if l.hasHubPart(m) { // it may have started before the hub's manifest ended, and become ready after that
		l.hubEnded = false
		l.decide(false)
	}
	l.background.Go(func() {
		if err := l.deps.Repository.Remember(m.Model, m.Runtime); err != nil {
			l.deps.Log.Warn("last known good pair not recorded", zap.Error(err))
			return
		}
		if good, err := l.deps.Repository.LastGood(); err == nil {
			l.later(func() {
				l.good = good
				if l.deps.NoHub { // otherwise a refresh does it
					l.tidy()
				}
			})
		}
	})
}

// refresh asks for an access token and uses it for one refresh only (M3). If the hub refuses the token, refresh asks
// the session for a new one, once: the hub may have revoked it early. One refresh runs at a time; requests that arrive
// meanwhile share its result.
func (l *loop) refresh() {
	if l.refreshing {
		return
	}
	if l.deps.NoHub {
		l.reason = messages.ReasonNoHub
		l.decide(false)
		l.answer(l.reason)
		return
	}
	l.refreshing = true
	l.next.Stop()
	l.background.Go(func() {
		ctx, cancel := context.WithTimeout(l.ctx, refreshTimeout)
		defer cancel()
		access := l.askToken(ctx, messages.Secret{})
		for refused := false; ; refused = true {
			if access.Reason != messages.ReasonOK {
				l.later(func() {
					l.refreshed(tuf.Catalogue{}, &tuf.Error{Reason: access.Reason}, l.signedIn && access.Reason != messages.ReasonSignInNeeded)
				})
				return
			}
			catalogue, err := l.deps.Repository.Refresh(ctx, access.Token)
			if tuf.ReasonOf(err) == messages.ReasonSignInNeeded && !refused {
				access = l.askToken(ctx, access.Token)
				continue
			}
			l.later(func() { l.refreshed(catalogue, err, true) })
			return
		}
	})
}

// askToken asks the session actor for an access token. refused is one that the hub did not accept, or zero.
func (l *loop) askToken(ctx context.Context, refused messages.Secret) messages.AccessToken {
	access, err := actorkit.Ask(ctx, l.deps.Session, func(reply chan<- messages.AccessToken) messages.AccessTokenRequest {
		return messages.AccessTokenRequest{Reply: reply, Refused: refused}
	})
	if err != nil {
		return messages.AccessToken{Reason: messages.ReasonManifestUnreachable}
	}
	return access
}

// confirm asks whether the user is still signed in, after a successful refresh during which the session changed.
// After a sign-in no second refresh is needed; after a sign-out nothing new may be fetched.
func (l *loop) confirm() {
	l.refreshing = true
	l.background.Go(func() {
		ctx, cancel := context.WithTimeout(l.ctx, refreshTimeout)
		defer cancel()
		access := l.askToken(ctx, messages.Secret{})
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

// refreshed handles the end of a refresh: it schedules the next one and continues the waiting pulls. signedIn is
// false if the session has no access token. A hub that refuses every token is asked again with backoff, like an
// unreachable one, because no other event ends that state.
func (l *loop) refreshed(catalogue tuf.Catalogue, err error, signedIn bool) {
	reason := tuf.ReasonOf(err)
	l.refreshing, l.signedIn, l.reason = false, signedIn, reason
	now := l.deps.Now()
	switch {
	case reason == messages.ReasonOK:
		l.pauses.Reset()
		l.deps.Log.Info("manifest refreshed", zap.Int64("version", catalogue.Version))
		l.next.Set(now.Add(time.Duration(float64(interval) * (0.9 + 0.2*rand.Float64()))))
		l.take(catalogue)
		l.provision.Put(messages.Prune{Keep: l.inUse()})
	case reason == messages.ReasonSignInNeeded && !signedIn:
		l.deps.Log.Info("manifest not refreshed", zap.String("reason", string(reason)))
		l.decide(false) // SessionChanged follows a sign-in
	default:
		pause := l.pauses.NextBackOff()
		if known := (*tuf.Error)(nil); errors.As(err, &known) {
			pause = max(pause, known.RetryAfter)
		}
		l.deps.Log.Warn("manifest not refreshed", zap.String("reason", string(reason)), zap.Duration("pause", pause))
		l.next.Set(now.Add(pause))
		l.decide(false)
	}
	if !l.again {
		l.answer(reason)
		return
	}
	// The session changed during the refresh: the pulls wait for its new state.
	l.again = false
	if reason == messages.ReasonOK {
		l.confirm()
		return
	}
	l.refresh()
}

// answer continues the pulls that wait for the refresh.
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
