package session

import (
	"context"

	"companion/adapters/authority/sessionnote"
	"companion/messages"
)

// logout cancels a running sign-in, revokes the session at the hub, and clears it (O9). If the keychain cannot be read, its
// session is revoked and removed when it can, also after a restart: the note on disk records that.
func (l *loop) logout(m messages.Logout) {
	if l.login != nil {
		l.login()
	}
	var reason, hub messages.Reason
	var failed *unrevoked // the session whose revocation failed
	var done []*unrevoked
	known := l.known && !l.signOut
	l.enqueue(task{work: func(ctx context.Context, now messages.Session) {
		// Write the note first, so that a later crash does not undo the sign-out.
		_ = l.writeNote(func(n *sessionnote.Note) { n.SignedOut = true; released(n) })
		reason = messages.ReasonOK
		if !known {
			loaded := l.askLoad(ctx, true)
			now, reason = loaded.Session, loaded.Reason
		}
		hub, failed = l.revokeOrKeep(ctx, now)
		held := messages.ReasonOK
		if done, held = l.revokeHeld(ctx); hub == messages.ReasonOK {
			hub = held
		}
		if reason == messages.ReasonOK {
			reason = l.askClear(ctx, known)
		}
		if reason == messages.ReasonOK {
			failed = l.keepNow(ctx, failed)
			l.noteStored()
		}
	}, then: func() {
		l.remove(done...)
		l.release()
		l.add(failed)
		l.signedOut(reason)
		l.lifecycle.Put(messages.ForgetPrompts{})
		if hub != messages.ReasonOK && l.waitingForHub() > 0 { // until the revocation is repeated
			l.trouble(hub)
		}
		m.Reply <- messages.LogoutResult{Reason: reason, Hub: hub, Again: l.revokeAgain(reason)}
	}, drop: func() {
		m.Reply <- messages.LogoutResult{Reason: messages.ReasonInternalError, Hub: messages.ReasonInternalError}
	}})
}

// finishSignOut revokes and removes the session that the keychain still holds after a sign-out.
func (l *loop) finishSignOut() {
	var reason messages.Reason
	var failed *unrevoked
	l.enqueue(task{work: func(ctx context.Context, now messages.Session) {
		if !now.AccessToken.IsZero() { // the user has signed in since
			reason = messages.ReasonOK
			return
		}
		loaded := l.askLoad(ctx, false)
		if reason = loaded.Reason; reason != messages.ReasonOK {
			return
		}
		_, failed = l.revokeOrKeep(ctx, loaded.Session)
		if reason = l.askClear(ctx, false); reason == messages.ReasonOK {
			failed = l.keepNow(ctx, failed)
			l.noteStored()
		}
	}, then: func() {
		l.add(failed)
		if !l.signOut {
			return
		}
		l.signedOut(reason)
	}})
}

// signedOut handles the end of a sign-out; reason says why the keychain still holds a session, or is ReasonOK.
func (l *loop) signedOut(reason messages.Reason) {
	if !l.known || !l.session.AccessToken.IsZero() {
		l.become(messages.Session{})
	}
	l.signOut, l.byUser = reason != messages.ReasonOK, true
	l.stored(reason)
	if l.signOut {
		l.trouble(reason)
		return
	}
	l.mended()
}

// mended removes the trouble of a sign-out from the view when the keychain is clear and the hub has revoked the session. Why
// a session was lost stays until the next sign-in or sign-out.
func (l *loop) mended() {
	if l.view.Trouble == messages.ReasonRefreshInterrupted && !l.byUser {
		return
	}
	if l.view.State == messages.SessionSignedOut && !l.signOut && l.waitingForHub() == 0 {
		l.publish(messages.SessionView{State: messages.SessionSignedOut, Reason: messages.ReasonSignInNeeded})
	}
}
