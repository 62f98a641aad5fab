package session

import (
	"context"
	"time"

	"go.uber.org/zap"

	"companion/adapters/authority/oauth"
	"companion/adapters/authority/sessionnote"
	"companion/messages"
)

// startLogin starts a sign-in in its own goroutine. A second sign-in cancels the first, whose terminal may be closed.
func (l *loop) startLogin(m messages.Login) {
	if l.login != nil {
		l.login()
	}
	ctx, cancel := context.WithCancel(l.ctx)
	l.login = cancel
	l.background.Go(func() {
		stop := make(chan struct{})
		defer close(stop)
		l.background.Go(func() {
			select {
			case <-m.Cancelled:
				cancel()
			case <-stop:
			}
		})
		l.attempt(ctx, cancel, m)
	})
}

// attempt runs one sign-in up to the grant, which it passes to a task. In every case, also after a panic, the listener is
// closed and the command line gets an answer.
func (l *loop) attempt(ctx context.Context, cancel context.CancelFunc, m messages.Login) {
	var attempt Attempt
	defer func() {
		if p := recover(); p != nil {
			cancel()
			if attempt != nil {
				attempt.Close(false)
			}
			finish(m, messages.LoginResult{Reason: messages.ReasonInternalError})
			panic(p) // the group passes it to the loop
		}
	}()
	failed := func(err error) {
		e := oauth.AsError(err)
		if ctx.Err() != nil && l.ctx.Err() == nil && !closed(m.Cancelled) { // by startLogin or a sign-out
			e = &oauth.Error{Doing: e.Doing, Reason: messages.ReasonSignInReplaced}
		}
		cancel()
		l.deps.Log.Warn("sign-in failed", zap.String("reason", string(e.Reason)), zap.String("detail", e.Detail))
		finish(m, messages.LoginResult{Reason: e.Reason, Detail: e.Detail})
	}
	begin := l.deps.Hub.Begin
	if m.Device {
		begin = l.deps.Hub.BeginDevice
	}
	attempt, err := begin(ctx)
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
		// The tokens work without a user name; status shows none until the next sign-in.
		l.deps.Log.Warn("user not known", zap.String("reason", string(oauth.AsError(err).Reason)))
	}
	if ctx.Err() != nil { // cancelled, or replaced by another sign-in
		l.withdraw(attempt, sessionOf(grant, user))
		failed(&oauth.Error{Doing: "signing in", Reason: messages.ReasonCallbackTimeout})
		return
	}
	done := make(chan struct{})
	replaced := make(chan struct{})
	queued := l.later(func() {
		if ctx.Err() != nil { // a sign-out or another sign-in came first
			close(replaced)
			return
		}
		l.finishLogin(m, attempt, sessionOf(grant, user), cancel, done)
	})
	if !queued { // the daemon ends
		brief, stop := context.WithTimeout(context.WithoutCancel(l.ctx), lastRevocation)
		defer stop()
		l.revoke(brief, sessionOf(grant, user))
	}
	select {
	case <-replaced:
		l.withdraw(attempt, sessionOf(grant, user))
		failed(&oauth.Error{Doing: "signing in", Reason: messages.ReasonCallbackTimeout})
	case <-done:
	case <-l.ctx.Done():
		attempt.Close(false)
		finish(m, messages.LoginResult{Reason: messages.ReasonCallbackTimeout})
	}
}

// closed reports whether c is closed.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// lastRevocation bounds the revocation of a session that was granted while the daemon ends.
const lastRevocation = time.Second

// withdraw ends an attempt whose session is no longer wanted.
func (l *loop) withdraw(attempt Attempt, s messages.Session) {
	attempt.Close(false)
	if _, later := l.revoke(context.WithoutCancel(l.ctx), s); later {
		l.later(func() { l.revokeLater(s) })
	}
}

// finish answers a Login; only the first answer counts.
func finish(m messages.Login, result messages.LoginResult) {
	select {
	case m.Done <- result:
	default: // already answered
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

// finishLogin stores the new session, and only then shows success in the browser. It revokes the replaced session at the
// hub, also if the keychain that holds it could not be read before.
func (l *loop) finishLogin(m messages.Login, attempt Attempt, s messages.Session, cancel context.CancelFunc, done chan<- struct{}) {
	var reason messages.Reason
	var old messages.Session
	var ended, unwanted *unrevoked
	known, foreign := l.known && !l.signOut, false
	l.enqueue(task{work: func(ctx context.Context, now messages.Session) {
		old, reason = now, messages.ReasonOK
		if !known {
			loaded := l.askLoad(ctx, true)
			old, reason = loaded.Session, loaded.Reason
		}
		// Keep the replaced session's token before the store removes it from the keychain. It is held until the new session
		// is stored: a start of the daemon in between goes on using the old one, and must not revoke it.
		if reason == messages.ReasonOK && !old.RefreshToken.IsZero() {
			if foreign = !l.deps.Hub.Issued(old); !foreign {
				ended = l.keep(ctx, old, true)
			}
		}
		if reason == messages.ReasonOK {
			reason = l.askStore(ctx, s, known)
		}
		if reason == messages.ReasonOK {
			if ended = l.keepNow(ctx, ended); ended != nil {
				ended.held = false
			}
			_ = l.writeNote(func(n *sessionnote.Note) { *n = sessionnote.Note{Pending: n.Pending}; released(n) })
		} else {
			l.forget(ctx, sessionnote.Digest(old.RefreshToken))
			brief, stop := outlive(ctx, lastRevocation)
			_, unwanted = l.revokeOrKeep(brief, s)
			stop()
		}
		attempt.Close(reason == messages.ReasonOK)
		close(done)
	}, then: func() {
		cancel()
		result := messages.LoginResult{Reason: reason, User: s.Meta.User}
		if reason != messages.ReasonOK {
			l.deps.Log.Warn("session not stored", zap.String("reason", string(reason)))
			result.User = messages.User{}
			l.add(unwanted)
			if !l.known && !foreign && !old.RefreshToken.IsZero() { // custody has removed it, and the user still has it
				l.become(old)
			}
			l.lostStore(reason)
		} else {
			l.unstored, l.signOut = false, false
			l.become(s)
			if result.Hub = l.release(); foreign && !known {
				result.Hub = messages.ReasonIssuerMismatch
			}
			l.add(ended)
		}
		finish(m, result)
	}})
}

// lostStore handles a failed store: custody has removed the metadata of the old session, so the session in memory is stored
// again.
func (l *loop) lostStore(reason messages.Reason) {
	if l.known && !l.session.AccessToken.IsZero() {
		l.stored(reason)
	}
}

// whoAmI asks the hub for the user, with a valid access token.
func (l *loop) whoAmI(m messages.WhoAmI) {
	reply := make(chan messages.AccessToken, 1)
	l.accessToken(reply)
	l.background.Go(func() {
		result := messages.WhoAmIResult{Reason: messages.ReasonInternalError}
		defer func() { m.Reply <- result }() // after a panic too
		var token messages.AccessToken
		select {
		case token = <-reply:
		case <-l.ctx.Done():
			token.Reason = messages.ReasonSignInNeeded
		}
		if token.Reason != messages.ReasonOK {
			result.Reason = token.Reason
			return
		}
		user, err := l.deps.Hub.WhoAmI(l.ctx, token.Token)
		if err != nil {
			result.Reason = oauth.AsError(err).Reason
			if result.Reason == messages.ReasonSignInNeeded {
				l.later(func() {
					l.tokenRefused(token.Token)
					l.refreshIfDue(wall())
				})
			}
			return
		}
		result = messages.WhoAmIResult{User: user, Reason: messages.ReasonOK}
	})
}
