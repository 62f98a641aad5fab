package session

import (
	"context"
	"time"

	"go.uber.org/zap"

	"companion/adapters/authority/oauth"
	"companion/messages"
)

// revokeTimeout bounds the best effort of O9: signing out must not wait for an unreachable hub.
const revokeTimeout = 5 * time.Second

// startLogin begins a sign-in beside the loop. A second one takes the place of the first, whose terminal
// may be gone.
func (l *loop) startLogin(m messages.Login) {
	if l.login != nil {
		l.login()
	}
	ctx, cancel := context.WithCancel(l.ctx)
	l.login = cancel
	l.beside.Go(func() {
		stop := make(chan struct{})
		defer close(stop)
		l.beside.Go(func() {
			select {
			case <-m.Cancelled:
				cancel()
			case <-stop:
			}
		})
		l.attempt(ctx, cancel, m)
	})
}

// attempt runs one sign-in as far as the grant, and hands that to a task.
func (l *loop) attempt(ctx context.Context, cancel context.CancelFunc, m messages.Login) {
	failed := func(err error) {
		cancel()
		e := oauth.AsError(err)
		l.deps.Log.Warn("sign-in failed", zap.String("reason", string(e.Reason)), zap.String("detail", e.Detail))
		finish(m, messages.LoginResult{Reason: e.Reason, Detail: e.Detail})
	}
	attempt, err := l.deps.Hub.Begin(ctx)
	if err != nil {
		failed(err)
		return
	}
	select {
	case m.Page <- attempt.Page():
	case <-ctx.Done():
	}
	grant, err := attempt.Wait(ctx)
	if err != nil {
		attempt.Close(false)
		failed(err)
		return
	}
	user, err := l.deps.Hub.WhoAmI(ctx, grant.Access)
	if err != nil {
		// The tokens are good whoever they belong to; status shows no name until the next sign-in.
		l.deps.Log.Warn("user not known", zap.String("reason", string(oauth.AsError(err).Reason)))
	}
	if ctx.Err() != nil { // cancelled, or replaced by another sign-in
		attempt.Close(false)
		l.revoke(l.ctx, sessionOf(grant, user))
		failed(&oauth.Error{Doing: "signing in", Reason: messages.ReasonCallbackTimeout})
		return
	}
	done := make(chan struct{})
	l.later(func() { l.finishLogin(m, attempt, sessionOf(grant, user), cancel, done) })
	select {
	case <-done:
	case <-l.ctx.Done():
		attempt.Close(false)
		finish(m, messages.LoginResult{Reason: messages.ReasonCallbackTimeout})
	}
}

// finish answers a Login once.
func finish(m messages.Login, result messages.LoginResult) {
	select {
	case m.Done <- result:
	default: // it has its answer
	}
}

func sessionOf(grant oauth.Grant, user messages.User) messages.Session {
	return messages.Session{
		AccessToken: grant.Access, RefreshToken: grant.Refresh,
		Meta: messages.SessionMeta{
			Issuer: grant.Issuer, ClientID: grant.ClientID, Scope: grant.Scope, User: user,
			AccessIssued: grant.Issued, AccessExpires: grant.Expires,
		},
	}
}

// finishLogin stores what a sign-in has brought; only then does the browser say that it worked.
func (l *loop) finishLogin(m messages.Login, attempt Attempt, s messages.Session, cancel context.CancelFunc, done chan<- struct{}) {
	var reason messages.Reason
	l.enqueue(task{work: func(ctx context.Context, _ messages.Session) {
		reason = l.askStore(ctx, s)
		if reason != messages.ReasonOK {
			l.revoke(ctx, s)
		}
		attempt.Close(reason == messages.ReasonOK)
		close(done)
	}, then: func() {
		cancel()
		result := messages.LoginResult{Reason: reason, User: s.Meta.User}
		if reason != messages.ReasonOK {
			l.deps.Log.Warn("session not stored", zap.String("reason", string(reason)))
			result.User = messages.User{}
			l.lostStore(reason)
		} else {
			l.unstored = false
			l.become(s)
		}
		finish(m, result)
	}})
}

// lostStore follows a store that failed: custody has removed the metadata of the session that was
// there, so what memory holds is stored again.
func (l *loop) lostStore(reason messages.Reason) {
	if l.known && !l.session.AccessToken.IsZero() {
		l.stored(reason)
	}
}

// logout ends a running sign-in, revokes at the hub, best effort, and clears the session (O9).
func (l *loop) logout(m messages.Logout) {
	if l.login != nil {
		l.login()
	}
	var reason, hub messages.Reason
	l.enqueue(task{work: func(ctx context.Context, now messages.Session) {
		hub = l.revoke(ctx, now)
		reason = l.askClear(ctx)
	}, then: func() {
		// Revoked is signed out, also while a locked keychain still holds what is worth nothing now.
		l.become(messages.Session{})
		l.stored(reason)
		m.Reply <- messages.LogoutResult{Reason: reason, Hub: hub}
	}, drop: func() {
		m.Reply <- messages.LogoutResult{Reason: messages.ReasonKeychainTimeout, Hub: messages.ReasonTokenExchangeFailed}
	}})
}

// revoke tells the hub, and returns ReasonOK or why it could not be told.
func (l *loop) revoke(ctx context.Context, s messages.Session) messages.Reason {
	if s.RefreshToken.IsZero() {
		return messages.ReasonOK
	}
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	if err := l.deps.Hub.Revoke(ctx, s.Meta.ClientID, s.RefreshToken); err != nil {
		reason := oauth.AsError(err).Reason
		l.deps.Log.Warn("session not revoked at the hub", zap.String("reason", string(reason)))
		return reason
	}
	return messages.ReasonOK
}

// whoAmI asks the hub, with a token that is valid now.
func (l *loop) whoAmI(m messages.WhoAmI) {
	reply := make(chan messages.AccessToken, 1)
	l.accessToken(reply)
	l.beside.Go(func() {
		var token messages.AccessToken
		select {
		case token = <-reply:
		case <-l.ctx.Done():
			token.Reason = messages.ReasonSignInNeeded
		}
		if token.Reason != messages.ReasonOK {
			m.Reply <- messages.WhoAmIResult{Reason: token.Reason}
			return
		}
		user, err := l.deps.Hub.WhoAmI(l.ctx, token.Token)
		if err != nil {
			reason := oauth.AsError(err).Reason
			if reason == messages.ReasonSignInNeeded {
				l.later(func() { l.refused(token.Token) })
			}
			m.Reply <- messages.WhoAmIResult{Reason: reason}
			return
		}
		m.Reply <- messages.WhoAmIResult{User: user, Reason: messages.ReasonOK}
	})
}

// refused follows a hub that no longer takes a token which should be valid: it counts as expired, and
// the next use of the session will refresh it or find that it is over.
func (l *loop) refused(token messages.Secret) {
	if l.session.AccessToken == token {
		l.session.Meta.AccessExpires = time.Now()
	}
}
