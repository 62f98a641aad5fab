package session

import (
	"context"
	"time"

	"go.uber.org/zap"

	"companion/adapters/authority/oauth"
	"companion/adapters/authority/sessionnote"
	"companion/messages"
)

const (
	// revokeTimeout bounds one try: signing out does not wait for a hub that cannot be reached.
	revokeTimeout = 5 * time.Second
	// maxUnrevoked bounds the sessions whose revocation is tried again.
	maxUnrevoked = 8
)

// logout ends a running sign-in, revokes the session at the hub, and clears it (O9). What the keychain does not give now is
// revoked and removed as soon as it does, also after a restart: the note on the disk says so.
func (l *loop) logout(m messages.Logout) {
	if l.login != nil {
		l.login()
	}
	var reason, hub messages.Reason
	var failed messages.Session // could not be revoked
	known := l.known && !l.signOut
	l.enqueue(task{work: func(ctx context.Context, now messages.Session) {
		// First of all, so that a crash from here on does not undo the sign-out.
		_ = l.writeNote(func(n *sessionnote.Note) { n.SignedOut = true })
		reason = messages.ReasonOK
		if !known {
			loaded := l.askLoad(ctx, true)
			now, reason = loaded.Session, loaded.Reason
		}
		if hub = l.revoke(ctx, now); hub != messages.ReasonOK {
			failed = now
		}
		if reason == messages.ReasonOK {
			reason = l.askClear(ctx, known)
		}
		if reason == messages.ReasonOK {
			l.noteStored()
		}
	}, then: func() {
		l.revokeLater(failed, l.doubtful)
		l.doubtful = messages.Session{}
		l.signedOut(reason)
		if hub != messages.ReasonOK {
			l.trouble(hub)
		}
		m.Reply <- messages.LogoutResult{Reason: reason, Hub: hub}
	}, drop: func() {
		m.Reply <- messages.LogoutResult{Reason: messages.ReasonInternalError, Hub: messages.ReasonInternalError}
	}})
}

// finishSignOut revokes and removes what the keychain still holds after a sign-out.
func (l *loop) finishSignOut() {
	var reason messages.Reason
	var failed messages.Session
	l.enqueue(task{work: func(ctx context.Context, now messages.Session) {
		if !now.AccessToken.IsZero() { // a sign-in was faster
			reason = messages.ReasonOK
			return
		}
		loaded := l.askLoad(ctx, false)
		if reason = loaded.Reason; reason != messages.ReasonOK {
			return
		}
		if l.revoke(ctx, loaded.Session) != messages.ReasonOK {
			failed = loaded.Session
		}
		if reason = l.askClear(ctx, false); reason == messages.ReasonOK {
			l.noteStored()
		}
	}, then: func() {
		if !l.signOut {
			return
		}
		l.revokeLater(failed)
		l.signedOut(reason)
	}})
}

// signedOut follows a sign-out; reason says why the keychain still holds a session, if it does.
func (l *loop) signedOut(reason messages.Reason) {
	if !l.known || !l.session.AccessToken.IsZero() {
		l.become(messages.Session{})
	}
	l.signOut = reason != messages.ReasonOK
	l.stored(reason)
	if l.signOut {
		l.trouble(reason)
		return
	}
	l.mended()
}

// mended takes the trouble of a sign-out out of the view once the keychain is clear and the hub was told.
func (l *loop) mended() {
	if l.view.State == messages.SessionSignedOut && !l.signOut && len(l.unrevoked) == 0 {
		l.publish(messages.SessionView{State: messages.SessionSignedOut, Reason: messages.ReasonSignInNeeded})
	}
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

// revokeLater revokes sessions in the background, and tries again with a backoff while the daemon runs.
func (l *loop) revokeLater(sessions ...messages.Session) {
	for _, s := range sessions {
		if !s.RefreshToken.IsZero() && len(l.unrevoked) < maxUnrevoked {
			l.unrevoked = append(l.unrevoked, s)
		}
	}
	l.revokeNext()
}

func (l *loop) revokeNext() {
	if l.revoking || len(l.unrevoked) == 0 {
		return
	}
	l.revoking = true
	first := l.unrevoked[0]
	pause := pauses(longestHubPause)
	l.beside.Go(func() {
		for l.revoke(l.ctx, first) != messages.ReasonOK {
			wait := time.NewTimer(pause.NextBackOff())
			select {
			case <-wait.C:
			case <-l.ctx.Done():
				wait.Stop()
				return
			}
		}
		l.later(func() {
			l.revoking = false
			l.unrevoked = l.unrevoked[1:]
			l.revokeNext()
			l.mended()
		})
	})
}
