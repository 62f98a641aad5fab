package session

import (
	"context"
	"time"

	"go.uber.org/zap"

	"companion/adapters/authority/oauth"
	"companion/messages"
)

// lastWords is how long a refresh may go on after the actor was told to end. Its answer carries the
// only refresh token that is still good, so cutting it off would cost the user a sign-in.
const lastWords = 3 * time.Second

// accessToken answers with a token that is valid now, refreshing it first where that is needed (O8).
func (l *loop) accessToken(reply chan<- messages.AccessToken) {
	if !l.known && l.reason != "" {
		reply <- messages.AccessToken{Reason: l.reason}
		return
	}
	if !l.known {
		l.wait(reply)
		return
	}
	switch l.deps.Hub.Decide(l.session, time.Now()) {
	case messages.ReasonSessionValid:
		reply <- messages.AccessToken{Token: l.session.AccessToken, Reason: messages.ReasonOK}
	case messages.ReasonSessionRefresh:
		if time.Now().Before(l.nextTry) {
			reply <- messages.AccessToken{Reason: l.reason}
			return
		}
		l.wait(reply)
		l.refresh()
	default:
		reply <- messages.AccessToken{Reason: messages.ReasonSignInNeeded}
		if !l.session.AccessToken.IsZero() {
			l.become(messages.Session{}) // it ran out, and nothing can renew it
		}
	}
}

func (l *loop) wait(reply chan<- messages.AccessToken) {
	if len(l.waiting) >= maxWaiting {
		reply <- messages.AccessToken{Reason: messages.ReasonAtCapacity}
		return
	}
	l.waiting = append(l.waiting, reply)
}

func (l *loop) answerWaiting(answer messages.AccessToken) {
	for _, reply := range l.waiting {
		reply <- answer
	}
	l.waiting = nil
}

// refresh trades the refresh token for a new session and stores that before anybody uses it: a rotated
// token that only memory holds would be lost with the process.
func (l *loop) refresh() {
	if l.refreshing {
		return
	}
	l.refreshing = true
	var next messages.Session
	var failed *oauth.Error
	var stored messages.Reason
	l.enqueue(task{work: func(ctx context.Context, old messages.Session) {
		if old.RefreshToken.IsZero() {
			failed = &oauth.Error{Doing: "refreshing the session", Reason: messages.ReasonSignInNeeded}
			return
		}
		outliving, cancel := outlive(ctx, lastWords)
		defer cancel()
		tokens, err := l.deps.Hub.Refresh(outliving, old.Meta.ClientID, old.RefreshToken, nil)
		next = old
		switch {
		case err == nil:
			next.AccessToken, next.RefreshToken = tokens.Access, tokens.Refresh
			next.Meta.AccessIssued, next.Meta.AccessExpires = tokens.Issued, tokens.Expires
			if tokens.Scope != "" {
				next.Meta.Scope = tokens.Scope
			}
			stored = l.askStore(outliving, next)
		default:
			failed = oauth.AsError(err)
			if failed.SessionOver() || failed.Retry == oauth.RetryUnsafe {
				stored = l.askClear(outliving)
			}
		}
	}, then: func() {
		l.refreshing = false
		l.refreshed(next, failed, stored)
	}})
}

func (l *loop) refreshed(next messages.Session, failed *oauth.Error, stored messages.Reason) {
	if failed == nil {
		l.deps.Log.Info("session refreshed")
		l.hubPause.Reset()
		l.session, l.nextTry = next, time.Time{}
		l.stored(stored)
		l.answerWaiting(messages.AccessToken{Token: next.AccessToken, Reason: messages.ReasonOK})
		return
	}
	l.deps.Log.Warn("session not refreshed", zap.String("reason", string(failed.Reason)), zap.String("detail", failed.Detail))
	if failed.SessionOver() || failed.Retry == oauth.RetryUnsafe {
		// Over, or perhaps spent: a rotated token sent twice would end the whole family (O8).
		l.become(messages.Session{})
		l.stored(stored)
		return
	}
	l.reason = failed.Reason
	l.nextTry = time.Now().Add(l.hubPause.NextBackOff())
	l.answerWaiting(messages.AccessToken{Reason: failed.Reason})
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
