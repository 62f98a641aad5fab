// Package session is the actor that knows who is signed in (contract O8, O9). It signs in and out,
// hands access tokens to the manifest actor, and refreshes them: at most one refresh at a time, never
// again after an answer was lost.
//
// Everything that changes what is stored — loading, refreshing, finishing a sign-in, signing out — is
// a task, and tasks run one after the other beside the loop, so that a late refresh can never write
// over a newer sign-in. Waiting for the browser is no task: it may take minutes and changes nothing.
package session

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/authority/oauth"
	"companion/messages"
)

// Hub is the authorization server: oauth.Client by way of HubOf, or a fault in its place.
type Hub interface {
	Begin(ctx context.Context) (Attempt, error)
	Refresh(ctx context.Context, clientID string, refresh messages.Secret, sending func() error) (oauth.Tokens, error)
	Revoke(ctx context.Context, clientID string, refresh messages.Secret) error
	WhoAmI(ctx context.Context, access messages.Secret) (messages.User, error)
	Decide(s messages.Session, now time.Time) messages.Reason
}

// Attempt is oauth.Attempt.
type Attempt interface {
	Page() messages.LoginPage
	Wait(ctx context.Context) (oauth.Grant, error)
	Close(signedIn bool)
}

// HubOf lets the actor use c.
func HubOf(c *oauth.Client) Hub { return hub{c} }

type hub struct{ *oauth.Client }

func (h hub) Begin(ctx context.Context) (Attempt, error) {
	a, err := h.Client.Begin(ctx)
	if err != nil {
		return nil, err // a nil *oauth.Attempt would be a non-nil Attempt
	}
	return a, nil
}

// Deps is what the actor is given.
type Deps struct {
	Inbox     <-chan messages.SessionCommand
	Tokens    <-chan messages.AccessTokenRequest // from the manifest actor, and nobody else
	Custody   chan<- messages.ToCustody
	Manifest  chan<- messages.ManifestCommand
	Lifecycle chan<- messages.ToLifecycle
	Hub       Hub
	View      *actorkit.Watch[messages.SessionView]
	Log       *zap.Logger
}

// Actor is the session actor.
type Actor struct{ deps Deps }

// New returns the actor; Serve runs it.
func New(deps Deps) *Actor { return &Actor{deps} }

func (a *Actor) String() string { return string(messages.ActorSession) }

// maxWaiting bounds who waits for an access token.
const maxWaiting = 64

// task is work that changes what is stored. It gets the session as it is when its turn comes. After it,
// then runs in the loop; drop runs instead when the actor ends first.
type task struct {
	work func(ctx context.Context, now messages.Session)
	then func()
	drop func()
}

// loop is the state of one Serve; only its goroutine touches it.
type loop struct {
	deps   Deps
	ctx    context.Context
	beside *actorkit.Group

	manifest  actorkit.Outbox[messages.ManifestCommand]
	lifecycle actorkit.Outbox[messages.ToLifecycle]

	known   bool // the keychain has answered
	session messages.Session
	reason  messages.Reason // why there is no session, or why the last refresh failed

	tasks      []task // the first one runs
	finished   chan struct{}
	inside     chan func() // what finished beside the loop and is no task
	refreshing bool
	waiting    []chan<- messages.AccessToken
	login      context.CancelFunc // of the attempt that runs, or nil

	retry    *time.Timer // loads again while the keychain fails, or brings it up to date
	unstored bool        // the keychain does not hold what memory does
	pauses   *backoff.ExponentialBackOff
	nextTry  time.Time // no refresh before
	hubPause *backoff.ExponentialBackOff
}

// Serve runs until ctx ends and returns when its work has ended.
func (a *Actor) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	l := &loop{
		deps: a.deps, ctx: ctx, beside: actorkit.NewGroup(),
		manifest:  actorkit.Outbox[messages.ManifestCommand]{Box: a.deps.Manifest},
		lifecycle: actorkit.Outbox[messages.ToLifecycle]{Box: a.deps.Lifecycle},
		finished:  make(chan struct{}, 1),
		inside:    make(chan func()),
		retry:     time.NewTimer(time.Hour),
		pauses:    pauses(2 * time.Minute),
		hubPause:  pauses(10 * time.Minute),
	}
	l.retry.Stop()
	defer l.end(cancel)
	l.lifecycle.Put(messages.ActorStarted{Actor: messages.ActorSession})
	l.deps.View.Set(messages.SessionView{State: messages.SessionUnknown, Reason: messages.ReasonOK})
	l.load()
	return l.run()
}

func pauses(most time.Duration) *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(backoff.WithInitialInterval(2*time.Second), backoff.WithMultiplier(2),
		backoff.WithMaxInterval(most), backoff.WithMaxElapsedTime(0))
}

func (l *loop) end(cancel context.CancelFunc) {
	cancel()
	l.beside.Wait()
	l.retry.Stop()
	l.answerWaiting(messages.AccessToken{Reason: messages.ReasonSignInNeeded})
	for _, t := range l.tasks {
		if t.drop != nil {
			t.drop()
		}
	}
}

func (l *loop) run() error {
	for {
		select {
		case <-l.ctx.Done():
			return l.ctx.Err()
		case l.manifest.Out() <- l.manifest.Head():
			l.manifest.Sent()
		case l.lifecycle.Out() <- l.lifecycle.Head():
			l.lifecycle.Sent()
		case request := <-l.deps.Tokens:
			l.tokenRefused(request.Refused)
			l.accessToken(request.Reply)
		case m := <-l.deps.Inbox:
			l.handle(m)
		case f := <-l.inside:
			f()
		case <-l.finished:
			// It leaves the line only now, so that a task which then puts in line does not begin twice.
			l.tasks[0].then()
			l.tasks = l.tasks[1:]
			l.begin()
		case <-l.retry.C:
			l.tryAgain()
		case p := <-l.beside.Panicked():
			panic(p)
		}
	}
}

func (l *loop) handle(m messages.SessionCommand) {
	switch m := m.(type) {
	case messages.Login:
		l.startLogin(m)
	case messages.Logout:
		l.logout(m)
	case messages.WhoAmI:
		l.whoAmI(m)
	}
}

// enqueue puts a task in line.
func (l *loop) enqueue(t task) {
	l.tasks = append(l.tasks, t)
	if len(l.tasks) == 1 {
		l.begin()
	}
}

func (l *loop) begin() {
	if len(l.tasks) == 0 {
		return
	}
	work, now := l.tasks[0].work, l.session
	l.beside.Go(func() {
		work(l.ctx, now)
		l.finished <- struct{}{}
	})
}

// later runs f in the loop.
func (l *loop) later(f func()) {
	select {
	case l.inside <- f:
	case <-l.ctx.Done():
	}
}

// load asks custody for the stored session.
func (l *loop) load() {
	var loaded messages.LoadedSession
	l.enqueue(task{work: func(ctx context.Context, _ messages.Session) {
		var err error
		loaded, err = actorkit.Ask(ctx, l.deps.Custody, func(reply chan<- messages.LoadedSession) messages.ToCustody {
			return messages.LoadSession{Reply: reply}
		})
		if err != nil {
			loaded = messages.LoadedSession{Reason: messages.ReasonKeychainTimeout}
		}
	}, then: func() {
		if loaded.Reason != messages.ReasonOK {
			l.reason = loaded.Reason
			l.deps.Log.Warn("session not readable", zap.String("reason", string(loaded.Reason)))
			l.deps.View.Set(messages.SessionView{State: messages.SessionUnknown, Reason: loaded.Reason})
			l.answerWaiting(messages.AccessToken{Reason: loaded.Reason})
			l.retry.Reset(l.pauses.NextBackOff())
			return
		}
		l.pauses.Reset()
		l.become(loaded.Session)
	}})
}

// tryAgain follows a keychain that failed.
func (l *loop) tryAgain() {
	switch {
	case !l.known:
		l.load()
	case l.unstored:
		l.store()
	}
}

// store brings the keychain to what memory holds.
func (l *loop) store() {
	var reason messages.Reason
	l.enqueue(task{
		work: func(ctx context.Context, now messages.Session) {
			if now.AccessToken.IsZero() {
				reason = l.askClear(ctx)
				return
			}
			reason = l.askStore(ctx, now)
		},
		then: func() { l.stored(reason) },
	})
}

// stored follows a store or a clear, and tries again later if it failed.
func (l *loop) stored(reason messages.Reason) {
	l.unstored = reason != messages.ReasonOK
	if !l.unstored {
		l.pauses.Reset()
		return
	}
	l.deps.Log.Warn("keychain not up to date", zap.String("reason", string(reason)))
	l.retry.Reset(l.pauses.NextBackOff())
}

func (l *loop) askStore(ctx context.Context, s messages.Session) messages.Reason {
	return l.askCustody(ctx, func(reply chan<- messages.Reason) messages.ToCustody {
		return messages.StoreSession{Session: s, Reply: reply}
	})
}

func (l *loop) askClear(ctx context.Context) messages.Reason {
	return l.askCustody(ctx, func(reply chan<- messages.Reason) messages.ToCustody {
		return messages.ClearSession{Reply: reply}
	})
}

func (l *loop) askCustody(ctx context.Context, build func(chan<- messages.Reason) messages.ToCustody) messages.Reason {
	reason, err := actorkit.Ask(ctx, l.deps.Custody, build)
	if err != nil {
		return messages.ReasonKeychainTimeout
	}
	return reason
}

// become takes s as the session, says so, and serves who waited. The zero session is nobody's.
func (l *loop) become(s messages.Session) {
	l.known, l.session, l.nextTry = true, s, time.Time{}
	l.hubPause.Reset()
	view := messages.SessionView{State: messages.SessionSignedIn, User: s.Meta.User, Reason: messages.ReasonOK}
	if l.deps.Hub.Decide(s, time.Now()) == messages.ReasonSignInNeeded {
		l.session = messages.Session{}
		view = messages.SessionView{State: messages.SessionSignedOut, Reason: messages.ReasonSignInNeeded}
	}
	l.deps.Log.Info("session "+string(view.State), zap.String("reason", string(view.Reason)))
	l.deps.View.Set(view)
	l.manifest.Put(messages.SessionChanged{})
	waiting := l.waiting
	l.waiting = nil
	for _, reply := range waiting {
		l.accessToken(reply)
	}
}
