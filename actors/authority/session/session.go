// Package session is the actor that owns the sign-in (contract O8, O9). It signs in and out, gives access tokens to the
// manifest actor, and refreshes them before they expire. At most one refresh runs at a time, and a refresh token that may
// have been sent is never sent again.
//
// Loading, refreshing, finishing a sign-in and signing out change the stored session. Each is a task, and tasks run one after
// the other in the background, so that a late refresh cannot overwrite a newer sign-in. Waiting for the browser is not a
// task: it may take minutes and changes nothing.
//
// Expiry and refresh follow the wall clock. Timers stop while the machine sleeps, so the loop reads the wall clock at a fixed
// interval.
package session

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/authority/oauth"
	"companion/adapters/authority/sessionnote"
	"companion/messages"
)

// Hub is the authorization server. HubOf returns one for an oauth.Client; tests inject faults.
type Hub interface {
	Begin(ctx context.Context) (Attempt, error)
	BeginDevice(ctx context.Context) (Attempt, error)
	Refresh(ctx context.Context, clientID string, refresh messages.Secret, sending func() error) (oauth.Tokens, error)
	Revoke(ctx context.Context, clientID string, refresh messages.Secret) error
	WhoAmI(ctx context.Context, access messages.Secret) (messages.User, error)
	Decide(s messages.Session, now time.Time) messages.Reason
	Issued(s messages.Session) bool
}

// Attempt is one sign-in, implemented by oauth.Attempt and oauth.DeviceAttempt.
type Attempt interface {
	Page() messages.LoginPage
	Wait(ctx context.Context) (oauth.Grant, error)
	Close(signedIn bool)
}

// HubOf returns c as a Hub.
func HubOf(c *oauth.Client) Hub { return hub{c} }

type hub struct{ *oauth.Client }

func (h hub) Begin(ctx context.Context) (Attempt, error) {
	a, err := h.Client.Begin(ctx)
	if err != nil {
		return nil, err // a nil *oauth.Attempt would be a non-nil Attempt
	}
	return a, nil
}

func (h hub) BeginDevice(ctx context.Context) (Attempt, error) {
	a, err := h.Client.BeginDevice(ctx)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Notes stores what must survive a restart although the keychain may be locked. sessionnote.File implements it.
type Notes interface {
	Read() (sessionnote.Note, error)
	Write(sessionnote.Note) error
}

// Deps are the dependencies of the actor.
type Deps struct {
	Inbox     <-chan messages.SessionCommand
	Tokens    <-chan messages.AccessTokenRequest // from the manifest actor only
	Custody   chan<- messages.ToCustody
	Manifest  chan<- messages.ManifestCommand
	Lifecycle chan<- messages.ToLifecycle
	Hub       Hub
	Notes     Notes
	// KeychainChanged changes when the state of the keychain may have changed.
	KeychainChanged *actorkit.Watch[int]
	View            *actorkit.Watch[messages.SessionView]
	Log             *zap.Logger
}

// Actor is the session actor.
type Actor struct{ deps Deps }

// New returns the actor; Serve runs it.
func New(deps Deps) *Actor { return &Actor{deps} }

func (a *Actor) String() string { return string(messages.ActorSession) }

// beatEvery is the interval at which the loop reads the wall clock.
const beatEvery = 20 * time.Second

// task is work that changes the stored session. It gets the session that is current when it starts. When it has ended, then
// runs in the loop; if the actor ends first, drop runs instead.
type task struct {
	work func(ctx context.Context, now messages.Session)
	then func()
	drop func()
}

// loop is the state of one Serve; only its goroutine accesses it, except note and unread, which only the running task accesses.
type loop struct {
	deps       Deps
	ctx        context.Context
	background *actorkit.Group

	manifest  actorkit.Outbox[messages.ManifestCommand]
	lifecycle actorkit.Outbox[messages.ToLifecycle]

	known   bool // the keychain has answered
	session messages.Session
	reason  messages.Reason // why there is no session, or why the last refresh failed
	view    messages.SessionView
	note    sessionnote.Note
	unread  bool // the note on disk could not be read: note does not say what it says

	tasks      []task // tasks[0] is running
	finished   chan struct{}
	inside     chan func() // results of background work other than tasks
	refreshing bool
	waiting    []chan<- messages.AccessToken
	login      context.CancelFunc // of the running sign-in, or nil

	retry         *time.Timer  // after a keychain failure: load or store again
	unstored      bool         // the keychain does not hold the session in memory
	signOut       bool         // the session in the keychain must be revoked and removed
	byUser        bool         // the user has signed out; otherwise a session that is gone was lost
	unrevoked     []*unrevoked // changes only between two tasks, so that a task can read it
	revoking      bool
	pendingUnread bool                        // the keychain has revocations that could not be read yet
	pauses        *backoff.ExponentialBackOff // of the keychain

	beat     *time.Ticker
	lastBeat time.Time // by the wall clock, like the times below
	due      time.Time // of the next refresh
	nextTry  time.Time // no refresh before this time
	hubPause *backoff.ExponentialBackOff
}

// Serve runs until ctx ends. It returns when all goroutines that it started have ended.
func (a *Actor) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	l := &loop{
		deps: a.deps, ctx: ctx, background: actorkit.NewGroup(),
		manifest:  actorkit.Outbox[messages.ManifestCommand]{Box: a.deps.Manifest},
		lifecycle: actorkit.Outbox[messages.ToLifecycle]{Box: a.deps.Lifecycle},
		view:      messages.SessionView{State: messages.SessionUnknown, Reason: messages.ReasonOK},
		finished:  make(chan struct{}, 1),
		inside:    make(chan func()),
		retry:     time.NewTimer(time.Hour),
		pauses:    pauses(2 * time.Minute),
		beat:      time.NewTicker(beatEvery),
		lastBeat:  wall(),
		hubPause:  pauses(longestHubPause),
	}
	l.retry.Stop()
	defer l.end(cancel)
	l.lifecycle.Put(messages.ActorStarted{Actor: messages.ActorSession})
	l.deps.View.Set(l.view)
	l.load()
	return l.run()
}

// longestHubPause bounds the backoff of refreshes and revocations.
const longestHubPause = 10 * time.Minute

func pauses(most time.Duration) *backoff.ExponentialBackOff {
	return actorkit.NewBackOff(2*time.Second, most)
}

// wall returns the current time without its monotonic reading.
func wall() time.Time { return time.Now().Round(0) }

func (l *loop) end(cancel context.CancelFunc) {
	cancel()
	l.background.Wait()
	l.retry.Stop()
	l.beat.Stop()
	l.answerWaiting(messages.AccessToken{Reason: messages.ReasonSignInNeeded})
	for _, t := range l.tasks {
		if t.drop != nil {
			t.drop()
		}
	}
}

func (l *loop) run() error {
	_, keychainChanged := l.deps.KeychainChanged.Next()
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
			// Dequeue after then, so that a task that then enqueues is not started twice.
			l.tasks[0].then()
			l.tasks = l.tasks[1:]
			l.begin()
		case <-keychainChanged:
			_, keychainChanged = l.deps.KeychainChanged.Next()
			l.pauses.Reset()
			l.tryAgain()
		case <-l.retry.C:
			l.tryAgain()
		case <-l.beat.C:
			l.lookAtClock()
		case p := <-l.background.Panicked():
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

// enqueue appends a task to the queue.
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
	l.background.Go(func() {
		work(l.ctx, now)
		l.finished <- struct{}{}
	})
}

// later queues f, which the loop then calls. It reports false if the actor ends instead.
func (l *loop) later(f func()) bool {
	select {
	case l.inside <- f:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// become makes s the current session, publishes it, and answers the waiting requests. The zero session means signed out.
func (l *loop) become(s messages.Session) { l.becomeWith(s, "") }

// becomeWith is become with a last trouble, in one change of the view.
func (l *loop) becomeWith(s messages.Session, trouble messages.Reason) {
	l.known, l.session, l.nextTry, l.due, l.byUser = true, s, time.Time{}, dueOf(s), false
	l.hubPause.Reset()
	view := messages.SessionView{State: messages.SessionSignedIn, User: s.Meta.User, Reason: messages.ReasonOK, Expires: s.Meta.AccessExpires}
	if l.deps.Hub.Decide(s, time.Now()) == messages.ReasonSignInNeeded {
		l.session = messages.Session{}
		view = messages.SessionView{State: messages.SessionSignedOut, Reason: messages.ReasonSignInNeeded}
	}
	if trouble != "" {
		view.Trouble, view.TroubleAt = trouble, wall()
	}
	l.deps.Log.Info("session "+string(view.State), zap.String("reason", string(view.Reason)))
	l.publish(view)
	l.manifest.Put(messages.SessionChanged{})
	waiting := l.waiting
	l.waiting = nil
	for _, reply := range waiting {
		l.accessToken(reply)
	}
	l.refreshIfDue(wall())
}

// publish publishes view without trouble.
func (l *loop) publish(view messages.SessionView) {
	view.Unrevoked = l.waitingForHub()
	l.view = view
	l.deps.View.Set(view)
}

// trouble adds reason to the view as the last trouble.
func (l *loop) trouble(reason messages.Reason) {
	l.view.Trouble, l.view.TroubleAt = reason, wall()
	l.deps.View.Set(l.view)
}
