package session

import (
	"context"
	"time"

	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/authority/sessionnote"
	"companion/messages"
)

// load reads the note from the disk and the stored session from custody. While the note cannot be read, the session is not used:
// its refresh token may be spent, or the user may have signed out.
func (l *loop) load() {
	var loaded messages.LoadedSession
	l.enqueue(task{work: func(ctx context.Context, _ messages.Session) {
		if loaded.Reason = l.readNote(); loaded.Reason == messages.ReasonOK {
			loaded = l.askLoad(ctx, false)
		}
	}, then: func() {
		switch {
		case l.known: // a sign-in or sign-out ended first
		case loaded.Reason != messages.ReasonOK:
			l.reason = loaded.Reason
			l.deps.Log.Warn("session not readable", zap.String("reason", string(loaded.Reason)))
			l.publish(messages.SessionView{State: messages.SessionUnknown, Reason: loaded.Reason})
			l.answerWaiting(messages.AccessToken{Reason: loaded.Reason})
			l.retry.Reset(l.pauses.NextBackOff())
		case l.note.SignedOut:
			l.become(messages.Session{})
			l.signOut, l.byUser = true, true
			l.finishSignOut()
			l.loadPending()
		default:
			l.pauses.Reset()
			l.loaded(loaded.Session)
			l.loadPending()
		}
	}})
}

// loaded adopts a session from the keychain. If the daemon ended while the refresh token was being sent, the session cannot be
// refreshed: the hub may have spent the token, and a second use would revoke the whole token family (O8). The same holds for a
// session that was refreshed while the keychain could not be written.
func (l *loop) loaded(s messages.Session) {
	if l.note.Stale || l.note.InFlight != "" && l.note.InFlight == sessionnote.Digest(s.RefreshToken) {
		l.interrupted(s)
		l.hold(s)
		l.store()
		return
	}
	if !s.RefreshToken.IsZero() && l.deps.Hub.Decide(s, time.Now()) == messages.ReasonSignInNeeded {
		l.hold(s) // of another hub or client, or malformed: the hub may still accept its refresh token
	}
	if s.AccessToken.IsZero() && l.note.InFlight != "" { // the daemon ended while it stored the refreshed session
		l.becomeWith(s, messages.ReasonRefreshInterrupted)
		return
	}
	l.become(s)
}

// hold keeps the refresh token of a session that is no longer used. The next sign-out or sign-in revokes it.
func (l *loop) hold(s messages.Session) {
	var u *unrevoked
	l.enqueue(task{
		work: func(ctx context.Context, _ messages.Session) { u = l.keep(ctx, s, true) },
		then: func() { l.add(u) },
	})
}

// interrupted keeps using a session until its access token expires, and drops its refresh token, which may be spent.
func (l *loop) interrupted(s messages.Session) {
	s.RefreshToken = messages.Secret{}
	l.becomeWith(s, messages.ReasonRefreshInterrupted)
}

// readNote reads the note from the disk.
func (l *loop) readNote() messages.Reason {
	note, err := l.deps.Notes.Read()
	if err != nil {
		l.deps.Log.Error("session note not readable", zap.String("reason", string(messages.ReasonInternalError)), zap.Error(err))
		l.unread = true
		return messages.ReasonInternalError
	}
	l.note, l.unread = note, false
	return messages.ReasonOK
}

// writeNote changes the note in memory and on disk.
func (l *loop) writeNote(change func(*sessionnote.Note)) error {
	note := l.note
	if change(&note); note == l.note && !l.unread {
		return nil
	}
	if err := l.deps.Notes.Write(note); err != nil {
		l.deps.Log.Error("session note not written", zap.String("reason", string(messages.ReasonInternalError)), zap.Error(err))
		return err
	}
	l.note, l.unread = note, false
	return nil
}

// noteSending records that the refresh token with this digest is about to be sent.
func (l *loop) noteSending(digest string) error {
	return l.writeNote(func(n *sessionnote.Note) {
		n.Stale = n.Stale || n.InFlight != "" && n.InFlight != digest
		n.InFlight = digest
	})
}

// noteStored clears the note: the keychain holds the session in memory, whose refresh token was not sent.
func (l *loop) noteStored() {
	_ = l.writeNote(func(n *sessionnote.Note) { *n = sessionnote.Note{Pending: n.Pending} })
}

// clearNote clears a note that could not be cleared when the session was stored, such as on a full disk. Otherwise the next start
// would take a session that the keychain holds for one whose refresh token is spent.
func (l *loop) clearNote() {
	if !l.known || l.unstored || l.signOut || l.refreshing || len(l.tasks) > 0 {
		return
	}
	l.enqueue(task{work: func(context.Context, messages.Session) { l.noteStored() }, then: func() {}})
}

// tryAgain schedules the next attempt after a keychain failure.
func (l *loop) tryAgain() {
	if l.pendingUnread && l.known {
		l.loadPending()
	}
	l.keepRest()
	switch {
	case l.signOut:
		l.finishSignOut()
	case !l.known:
		l.load()
	case l.unstored:
		l.store()
	}
}

// store writes the session in memory to the keychain, or clears the keychain if there is none.
func (l *loop) store() {
	var reason messages.Reason
	l.enqueue(task{
		work: func(ctx context.Context, now messages.Session) {
			if now.AccessToken.IsZero() {
				reason = l.askClear(ctx, false)
			} else {
				reason = l.askStore(ctx, now, false)
			}
			if reason == messages.ReasonOK {
				l.noteStored()
			}
		},
		then: func() { l.stored(reason) },
	})
}

// stored handles the end of a store or clear, and tries again later if it failed.
func (l *loop) stored(reason messages.Reason) {
	l.unstored = reason != messages.ReasonOK
	if !l.unstored {
		l.pauses.Reset()
		return
	}
	l.deps.Log.Warn("keychain not up to date", zap.String("reason", string(reason)))
	l.retry.Reset(l.pauses.NextBackOff())
}

func (l *loop) askLoad(ctx context.Context, ask bool) messages.LoadedSession {
	loaded, err := actorkit.Ask(ctx, l.deps.Custody, func(reply chan<- messages.LoadedSession) messages.ToCustody {
		return messages.LoadSession{Ask: ask, Reply: reply}
	})
	if err != nil {
		return messages.LoadedSession{Reason: messages.ReasonKeychainTimeout}
	}
	return loaded
}

func (l *loop) askStore(ctx context.Context, s messages.Session, ask bool) messages.Reason {
	return l.askCustody(ctx, func(reply chan<- messages.Reason) messages.ToCustody {
		return messages.StoreSession{Session: s, Ask: ask, Reply: reply}
	})
}

func (l *loop) askClear(ctx context.Context, ask bool) messages.Reason {
	return l.askCustody(ctx, func(reply chan<- messages.Reason) messages.ToCustody {
		return messages.ClearSession{Ask: ask, Reply: reply}
	})
}

func (l *loop) askCustody(ctx context.Context, build func(chan<- messages.Reason) messages.ToCustody) messages.Reason {
	reason, err := actorkit.Ask(ctx, l.deps.Custody, build)
	if err != nil {
		return messages.ReasonKeychainTimeout
	}
	return reason
}
