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
	// revokeTimeout bounds one revocation: signing out does not wait for an unreachable hub.
	revokeTimeout = 5 * time.Second
	// maxUnrevoked bounds the list of sessions whose revocation is repeated.
	maxUnrevoked = 8
)

// logout cancels a running sign-in, revokes the session at the hub, and clears it (O9). If the keychain cannot be read, its
// session is revoked and removed when it can, also after a restart: the note on disk records that.
func (l *loop) logout(m messages.Logout) {
	if l.login != nil {
		l.login()
	}
	var reason, hub messages.Reason
	var failed messages.Session // the session whose revocation failed
	known := l.known && !l.signOut
	l.enqueue(task{work: func(ctx context.Context, now messages.Session) {
		// Write the note first, so that a later crash does not undo the sign-out.
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
		l.lifecycle.Put(messages.ForgetPrompts{})
		if hub != messages.ReasonOK && len(l.unrevoked) > 0 { // until the revocation is repeated
			l.trouble(hub)
		}
		m.Reply <- messages.LogoutResult{Reason: reason, Hub: hub}
	}, drop: func() {
		m.Reply <- messages.LogoutResult{Reason: messages.ReasonInternalError, Hub: messages.ReasonInternalError}
	}})
}

// finishSignOut revokes and removes the session that the keychain still holds after a sign-out.
func (l *loop) finishSignOut() {
	var reason messages.Reason
	var failed messages.Session
	l.enqueue(task{work: func(ctx context.Context, now messages.Session) {
		if !now.AccessToken.IsZero() { // the user has signed in since
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

// signedOut handles the end of a sign-out; reason says why the keychain still holds a session, or is ReasonOK.
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

// mended removes the trouble of a sign-out from the view when the keychain is clear and the hub has revoked the session.
func (l *loop) mended() {
	if l.view.State == messages.SessionSignedOut && !l.signOut && len(l.unrevoked) == 0 {
		l.publish(messages.SessionView{State: messages.SessionSignedOut, Reason: messages.ReasonSignInNeeded})
	}
}

// revoke revokes s at the hub. It returns ReasonOK or why that failed: ReasonIssuerMismatch for a session of another hub, which
// the keychain holds after hub.url or hub.issuer was changed. This hub must not see that session's token.
func (l *loop) revoke(ctx context.Context, s messages.Session) messages.Reason {
	if s.RefreshToken.IsZero() {
		return messages.ReasonOK
	}
	if !l.deps.Hub.Issued(s) {
		l.deps.Log.Warn("session of another hub not revoked", zap.String("reason", string(messages.ReasonIssuerMismatch)))
		return messages.ReasonIssuerMismatch
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

// revokeLater revokes sessions in the background, and repeats failed revocations with a backoff while the daemon runs.
func (l *loop) revokeLater(sessions ...messages.Session) {
	for _, s := range sessions {
		if !s.RefreshToken.IsZero() && l.deps.Hub.Issued(s) && len(l.unrevoked) < maxUnrevoked {
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
