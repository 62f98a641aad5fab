package session

import (
	"context"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"companion/adapters/authority/oauth"
	"companion/adapters/authority/sessionnote"
	"companion/messages"
)

// lastWords is how long a refresh may go on after the actor's context has ended. Its answer contains the only valid refresh
// token; without it the user must sign in again.
const lastWords = 3 * time.Second

// accessToken answers with a valid token, after a refresh if needed (O8). All requests that arrive during a refresh wait for
// it.
func (l *loop) accessToken(reply chan<- messages.AccessToken) {
	if !l.known && l.reason != "" {
		reply <- messages.AccessToken{Reason: l.reason}
		return
	}
	if !l.known {
		l.waiting = append(l.waiting, reply)
		return
	}
	switch l.deps.Hub.Decide(l.session, time.Now()) {
	case messages.ReasonSessionValid:
		reply <- messages.AccessToken{Token: l.session.AccessToken, Reason: messages.ReasonOK}
	case messages.ReasonSessionRefresh:
		if wall().Before(l.nextTry) {
			reply <- messages.AccessToken{Reason: l.reason}
			return
		}
		l.waiting = append(l.waiting, reply)
		l.refresh()
	default:
		reply <- messages.AccessToken{Reason: messages.ReasonSignInNeeded}
		l.ranOut()
	}
}

// ranOut handles the expiry of an access token that cannot be refreshed.
func (l *loop) ranOut() {
	if l.session.AccessToken.IsZero() {
		return
	}
	l.becomeWith(messages.Session{}, l.view.Trouble)
}

func (l *loop) answerWaiting(answer messages.AccessToken) {
	for _, reply := range l.waiting {
		reply <- answer
	}
	l.waiting = nil
}

// dueOf returns when s is refreshed: a random time with a tenth to a fifth of its life left, so that companions that were
// started at the same time do not reach the hub at the same time.
func dueOf(s messages.Session) time.Time {
	if s.RefreshToken.IsZero() {
		return time.Time{}
	}
	expires, issued := s.Meta.AccessExpires, s.Meta.AccessIssued
	if issued.IsZero() {
		return expires.Add(-oauth.Skew - rand.N(oauth.Skew))
	}
	life := expires.Sub(issued)
	return expires.Add(-min(oauth.Skew+life/10+rand.N(life/10+1), life/2))
}

// lookAtClock runs at every beat. It starts a due refresh and detects an expired access token. If the wall clock has moved
// further than the beat, the machine has slept or the clock was set; the pause of the backoff then ends.
func (l *loop) lookAtClock() {
	now := wall()
	if moved := now.Sub(l.lastBeat); moved < 0 || moved > 2*beatEvery {
		l.nextTry = time.Time{}
		l.hubPause.Reset()
	}
	l.lastBeat = now
	l.clearNote()
	if !l.known || l.session.AccessToken.IsZero() {
		return
	}
	if l.deps.Hub.Decide(l.session, now) == messages.ReasonSignInNeeded {
		l.ranOut()
		return
	}
	l.refreshIfDue(now)
}

// refreshIfDue starts a refresh if it is due, or if the access token has expired.
func (l *loop) refreshIfDue(now time.Time) {
	if l.session.RefreshToken.IsZero() || now.Before(l.nextTry) {
		return
	}
	if !now.Before(l.due) || l.deps.Hub.Decide(l.session, now) == messages.ReasonSessionRefresh {
		l.refresh()
	}
}

// refresh exchanges the refresh token for a new session and stores it before use: a rotated token that is only in memory is
// lost with the process. Before the token is sent, a note on disk records its digest. The note is removed when the hub's answer
// is stored. After a crash in between, the token is not sent again.
func (l *loop) refresh() {
	if l.refreshing {
		return
	}
	l.refreshing = true
	var next messages.Session
	var failed *oauth.Error
	var stored messages.Reason
	var ended *unrevoked
	l.enqueue(task{work: func(ctx context.Context, old messages.Session) {
		if old.RefreshToken.IsZero() {
			failed = &oauth.Error{Doing: "refreshing the session", Reason: messages.ReasonSignInNeeded}
			return
		}
		// A sign-in that was not stored may have left it. The former token of a session in use must not be revoked.
		l.forget(ctx, sessionnote.Digest(old.RefreshToken))
		before := l.note
		outliving, cancel := outlive(ctx, lastWords)
		defer cancel()
		tokens, err := l.deps.Hub.Refresh(outliving, old.Meta.ClientID, old.RefreshToken, func() error {
			return l.noteSending(sessionnote.Digest(old.RefreshToken))
		})
		next = old
		if err == nil {
			next.AccessToken, next.RefreshToken = tokens.Access, tokens.Refresh
			next.Meta.AccessIssued, next.Meta.AccessExpires = tokens.Issued, tokens.Expires
			if tokens.Scope != "" {
				next.Meta.Scope = tokens.Scope
			}
			stored = l.askStore(outliving, next, false)
		} else {
			failed = oauth.AsError(err)
			switch {
			case failed.SessionOver():
				stored = l.askClear(outliving, false)
			case failed.Retry == oauth.RetryUnsafe: // keep the note until the refresh token is removed from the keychain
				ended = l.keep(outliving, old, true)
				stored = l.storeWithoutRefresh(outliving, old)
			default: // the refresh token is unspent; the keychain may still hold an earlier one
				_ = l.writeNote(func(n *sessionnote.Note) { *n = before })
			}
		}
		if stored == messages.ReasonOK {
			l.noteStored()
		}
	}, then: func() {
		l.refreshing = false
		l.add(ended)
		l.refreshed(next, failed, stored)
	}})
}

func (l *loop) refreshed(next messages.Session, failed *oauth.Error, stored messages.Reason) {
	if failed == nil {
		l.deps.Log.Info("session refreshed")
		l.hubPause.Reset()
		l.session, l.nextTry, l.due = next, time.Time{}, dueOf(next)
		l.view.Trouble, l.view.TroubleAt, l.view.Expires = "", time.Time{}, next.Meta.AccessExpires
		l.publish(l.view)
		l.stored(stored)
		l.answerWaiting(messages.AccessToken{Token: next.AccessToken, Reason: messages.ReasonOK})
		return
	}
	l.deps.Log.Warn("session not refreshed", zap.String("reason", string(failed.Reason)), zap.String("detail", failed.Detail))
	switch {
	case failed.SessionOver():
		l.becomeWith(messages.Session{}, failed.Reason)
		l.stored(stored)
		return
	case failed.Retry == oauth.RetryUnsafe:
		l.interrupted(l.session)
		l.stored(stored)
		return
	case l.session.RefreshToken.IsZero(): // signed out before the task started
		l.answerWaiting(messages.AccessToken{Reason: messages.ReasonSignInNeeded})
		return
	}
	l.reason = failed.Reason
	l.nextTry = wall().Add(l.hubPause.NextBackOff())
	l.trouble(failed.Reason)
	waiting := l.waiting
	l.waiting = nil
	for _, reply := range waiting { // a failed early refresh leaves a token that still works
		l.accessToken(reply)
	}
}

// storeWithoutRefresh stores s without its refresh token, which may be spent. If the access token has expired, it clears the
// session.
func (l *loop) storeWithoutRefresh(ctx context.Context, s messages.Session) messages.Reason {
	s.RefreshToken = messages.Secret{}
	if l.deps.Hub.Decide(s, time.Now()) == messages.ReasonSignInNeeded {
		return l.askClear(ctx, false)
	}
	return l.askStore(ctx, s, false)
}

// outlive returns a context that ends d after ctx does.
func outlive(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		late := time.NewTimer(d)
		defer late.Stop()
		select {
		case <-late.C:
			cancel()
		case <-longer.Done():
		}
	})
	return longer, func() { stop(); cancel() }
}
