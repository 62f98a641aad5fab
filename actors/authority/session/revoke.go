package session

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/authority/oauth"
	"companion/adapters/authority/sessionnote"
	"companion/messages"
)

const (
	// revokeTimeout bounds one revocation: signing out does not wait for an unreachable hub.
	revokeTimeout = 5 * time.Second
	// maxUnrevoked bounds the list of sessions whose revocation is repeated.
	maxUnrevoked = 2 * messages.PendingRevocations
	// forgetAfter ends the repetition: a refresh token that was not used for so long has expired at most hubs (K8).
	forgetAfter = 30 * 24 * time.Hour
)

// unrevoked is an ended session that the hub has not revoked yet.
type unrevoked struct {
	session messages.Session
	since   time.Time
	held    bool // its access token is in use: it is revoked when the user signs out, or in again
	kept    bool // the keychain has its refresh token, and the note the rest
}

// revoke revokes s at the hub. later says that a repetition can succeed. ReasonIssuerMismatch is the answer for a session of
// another hub, which the keychain holds after hub.url or hub.issuer was changed: this hub must not see that session's token.
func (l *loop) revoke(ctx context.Context, s messages.Session) (reason messages.Reason, later bool) {
	if s.RefreshToken.IsZero() {
		return messages.ReasonOK, false
	}
	if !l.deps.Hub.Issued(s) {
		l.deps.Log.Warn("session of another hub not revoked", zap.String("reason", string(messages.ReasonIssuerMismatch)))
		return messages.ReasonIssuerMismatch, false
	}
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	if err := l.deps.Hub.Revoke(ctx, s.Meta.ClientID, s.RefreshToken); err != nil {
		e := oauth.AsError(err)
		l.deps.Log.Warn("session not revoked at the hub", zap.String("reason", string(e.Reason)), zap.String("detail", e.Detail))
		return e.Reason, e.Retry != oauth.RetryNever
	}
	return messages.ReasonOK, false
}

// keep stores the refresh token of s in the keychain, and the rest in the note, so that a later start of the daemon can revoke
// it (K8). The note comes first: no token is left behind that no start finds. keep never replaces another session's token. Only a
// task calls it.
func (l *loop) keep(ctx context.Context, s messages.Session, held bool) *unrevoked {
	u := &unrevoked{session: s, since: wall(), held: held}
	if !l.deps.Hub.Issued(s) || l.unread { // which places are taken is not known while the note cannot be read
		return u
	}
	digest := sessionnote.Digest(s.RefreshToken)
	place := l.note.Place(digest)
	if place >= 0 && l.note.Pending[place].Token == digest {
		u.since = time.Unix(l.note.Pending[place].Since, 0)
	}
	if place < 0 {
		l.deps.Log.Warn("revocation kept in memory only: too many are pending")
		return u
	}
	err := l.writeNote(func(n *sessionnote.Note) {
		n.Pending[place] = sessionnote.Pending{
			Token: digest, Issuer: s.Meta.Issuer, ClientID: s.Meta.ClientID, Since: u.since.Unix(), Held: held,
		}
	})
	if err != nil {
		return u
	}
	reason := l.askCustody(ctx, func(reply chan<- messages.Reason) messages.ToCustody {
		return messages.StoreRevocation{Place: place, Token: s.RefreshToken, Reply: reply}
	})
	if u.kept = reason == messages.ReasonOK; !u.kept { // the entry stays: a late write of a keychain that hangs is found again
		l.deps.Log.Warn("revocation kept in memory only", zap.String("reason", string(reason)))
	}
	return u
}

// keepNow keeps u again where that failed: the keychain may have been locked then.
func (l *loop) keepNow(ctx context.Context, u *unrevoked) *unrevoked {
	if u == nil || u.kept {
		return u
	}
	return l.keep(ctx, u.session, u.held)
}

// revokeOrKeep revokes s, or keeps it where a repetition can succeed. Only a task calls it.
func (l *loop) revokeOrKeep(ctx context.Context, s messages.Session) (messages.Reason, *unrevoked) {
	reason, later := l.revoke(ctx, s)
	if !later {
		return reason, nil
	}
	return reason, l.keep(ctx, s, false)
}

// revokeHeld revokes the held sessions. It returns the revoked ones, and the reason of the last failure. Only a task calls it.
func (l *loop) revokeHeld(ctx context.Context) (done []*unrevoked, reason messages.Reason) {
	brief, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	reason = messages.ReasonOK
	for _, u := range l.unrevoked {
		if !u.held {
			continue
		}
		r, later := l.revoke(brief, u.session)
		later = later || r == messages.ReasonIssuerMismatch // kept, or removed by release
		if r != messages.ReasonOK {
			reason = r
		}
		if !later {
			l.forget(ctx, sessionnote.Digest(u.session.RefreshToken)) // not bounded by the hub's time
			done = append(done, u)
		}
	}
	return done, reason
}

// forget removes what keep has stored, first the token. Only a task calls it.
func (l *loop) forget(ctx context.Context, digest string) {
	place := l.note.Place(digest)
	if digest == "" || place < 0 || l.note.Pending[place].Token != digest {
		return
	}
	reason := l.askCustody(ctx, func(reply chan<- messages.Reason) messages.ToCustody {
		return messages.ClearRevocation{Place: place, Reply: reply}
	})
	if reason != messages.ReasonOK { // the next start removes it
		l.deps.Log.Warn("revoked token still in the keychain", zap.String("reason", string(reason)))
		return
	}
	_ = l.writeNote(func(n *sessionnote.Note) { n.Pending[place] = sessionnote.Pending{} })
}

// released changes the note after a sign-out or a new sign-in: no session is held.
func released(n *sessionnote.Note) {
	for i := range n.Pending {
		n.Pending[i].Held = false
	}
}

// add appends sessions that keep has returned, except nil. One that the list has takes the place of the former. Like every
// change of the list, it runs between two tasks.
func (l *loop) add(sessions ...*unrevoked) {
	for _, u := range sessions {
		if u == nil {
			continue
		}
		if known := l.find(sessionnote.Digest(u.session.RefreshToken)); known != nil {
			known.held, known.kept = known.held && u.held, known.kept || u.kept
		} else if len(l.unrevoked) < maxUnrevoked {
			l.unrevoked = append(l.unrevoked, u)
		}
	}
	l.publish(l.view)
	l.revokeNext()
}

// remove takes sessions from the list.
func (l *loop) remove(sessions ...*unrevoked) {
	l.unrevoked = slices.DeleteFunc(l.unrevoked, func(u *unrevoked) bool { return slices.Contains(sessions, u) })
}

// revokeAgain says for how long the revocation of the ended sessions is retried. reason says why the keychain still holds
// the session; the note on disk then records the sign-out.
func (l *loop) revokeAgain(reason messages.Reason) messages.RevokeAgain {
	if l.waitingForHub() == 0 {
		return messages.RevokeNotAgain
	}
	for _, u := range l.unrevoked {
		if !u.held && !u.kept && reason == messages.ReasonOK {
			return messages.RevokeWhileRunning
		}
	}
	return messages.RevokeUntilDone
}

// release lets the held sessions be revoked. The answer is ReasonIssuerMismatch if one is of another hub.
func (l *loop) release() messages.Reason {
	reason := messages.ReasonOK
	l.unrevoked = slices.DeleteFunc(l.unrevoked, func(u *unrevoked) bool {
		foreign := !l.deps.Hub.Issued(u.session)
		if u.held && foreign {
			reason = messages.ReasonIssuerMismatch
		}
		u.held = false
		return foreign && !u.kept
	})
	return reason
}

// keepRest tries again to store the sessions that are only in memory.
func (l *loop) keepRest() {
	var rest, kept []*unrevoked
	for _, u := range l.unrevoked {
		if !u.kept && l.deps.Hub.Issued(u.session) {
			rest = append(rest, u)
		}
	}
	if len(rest) == 0 {
		return
	}
	l.enqueue(task{work: func(ctx context.Context, _ messages.Session) {
		for _, u := range rest {
			if !slices.Contains(l.unrevoked, u) {
				continue
			}
			if !l.keep(ctx, u.session, u.held).kept {
				break // a keychain that hangs takes its whole time for each
			}
			kept = append(kept, u)
		}
	}, then: func() {
		for _, u := range kept {
			u.kept = true
		}
	}})
}

// revokeLater revokes s in the background, where a repetition can succeed.
func (l *loop) revokeLater(s messages.Session) {
	var u *unrevoked
	l.enqueue(task{
		work: func(ctx context.Context, _ messages.Session) { u = l.keep(ctx, s, false) },
		then: func() { l.add(u) },
	})
}

// next returns the first session that can be revoked now, or nil.
func (l *loop) next() *unrevoked {
	for _, u := range l.unrevoked {
		if !u.held && l.deps.Hub.Issued(u.session) {
			return u
		}
	}
	return nil
}

// waitingForHub counts the sessions that the hub has not revoked yet, without the held ones.
func (l *loop) waitingForHub() int {
	waiting := 0
	for _, u := range l.unrevoked {
		if !u.held && l.deps.Hub.Issued(u.session) {
			waiting++
		}
	}
	return waiting
}

// revokeNext revokes one session after the other in the background. It repeats failed revocations with a backoff.
func (l *loop) revokeNext() {
	u := l.next()
	if l.revoking || u == nil {
		return
	}
	l.revoking = true
	pause := pauses(longestHubPause)
	s, since := u.session, u.since
	l.background.Go(func() {
		for {
			reason, later := l.revoke(l.ctx, s)
			if reason == messages.ReasonOK {
				break
			}
			if !later || wall().Sub(since) > forgetAfter {
				l.deps.Log.Warn("revocation given up", zap.String("reason", string(reason)), zap.Time("since", since))
				break
			}
			l.later(func() {
				if l.view.State == messages.SessionSignedOut && l.view.Trouble == "" {
					l.trouble(reason)
				}
			})
			wait := time.NewTimer(pause.NextBackOff())
			select {
			case <-wait.C:
			case <-l.ctx.Done():
				wait.Stop()
				return
			}
		}
		l.later(func() {
			l.enqueue(task{
				work: func(ctx context.Context, _ messages.Session) { l.forget(ctx, sessionnote.Digest(s.RefreshToken)) },
				then: func() {
					l.revoking = false
					l.remove(u)
					l.publish(l.view)
					l.mended()
					l.revokeNext()
				},
			})
		})
	})
}

// loadPending reads the sessions that an earlier start of the daemon could not revoke. A token that the keychain cannot give now
// is read again later. A session that is in use is not among them: the daemon ended before a new sign-in was stored.
func (l *loop) loadPending() {
	var found []*unrevoked
	reason := messages.ReasonOK
	l.enqueue(task{work: func(ctx context.Context, now messages.Session) {
		inUse := sessionnote.Digest(now.RefreshToken)
		for place, p := range l.note.Pending {
			switch {
			case p.Token == "" || l.find(p.Token) != nil:
			case p.Token == inUse:
				l.forget(ctx, p.Token)
			case reason != messages.ReasonOK: // a keychain that hangs takes its whole time for each
			default:
				// A session that can be refreshed has replaced the held one.
				p.Held = p.Held && now.RefreshToken.IsZero()
				u, r := l.readPending(ctx, place, p)
				if r != messages.ReasonOK {
					reason = r
				} else if u == nil {
					l.forget(ctx, p.Token)
				} else {
					found = append(found, u)
				}
			}
		}
	}, then: func() {
		l.pendingUnread = reason != messages.ReasonOK
		if l.pendingUnread {
			l.retry.Reset(l.pauses.NextBackOff())
		}
		l.add(found...)
	}})
}

// readPending reads the token in place. It returns nil where the keychain has another one or none, and for a session that is too
// old and not being revoked.
func (l *loop) readPending(ctx context.Context, place int, p sessionnote.Pending) (*unrevoked, messages.Reason) {
	loaded, err := actorkit.Ask(ctx, l.deps.Custody, func(reply chan<- messages.LoadedRevocation) messages.ToCustody {
		return messages.LoadRevocation{Place: place, Reply: reply}
	})
	if err != nil {
		return nil, messages.ReasonKeychainTimeout
	}
	if loaded.Reason != messages.ReasonOK {
		return nil, loaded.Reason
	}
	u := &unrevoked{
		session: messages.Session{RefreshToken: loaded.Token, Meta: messages.SessionMeta{Issuer: p.Issuer, ClientID: p.ClientID}},
		since:   time.Unix(p.Since, 0), held: p.Held, kept: true,
	}
	idle := u.held || !l.deps.Hub.Issued(u.session)
	if sessionnote.Digest(loaded.Token) != p.Token || idle && wall().Sub(u.since) > forgetAfter {
		return nil, messages.ReasonOK
	}
	return u, messages.ReasonOK
}

// find returns the session of the list whose refresh token has this digest, or nil.
func (l *loop) find(digest string) *unrevoked {
	for _, u := range l.unrevoked {
		if sessionnote.Digest(u.session.RefreshToken) == digest {
			return u
		}
	}
	return nil
}
