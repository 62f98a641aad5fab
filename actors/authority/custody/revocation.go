package custody

import (
	"context"

	"companion/adapters/authority/keychain"
	"companion/messages"
)

// handleRevocation keeps the refresh tokens that the hub has not revoked yet (K8). None of these calls raises a dialog.
func (l *loop) handleRevocation(ctx context.Context, m messages.ToCustody) {
	switch m := m.(type) {
	case messages.LoadRevocation:
		var token messages.Secret
		l.enqueue(ctx, job{work: func(ctx context.Context) messages.Reason {
			var err error
			token, _, err = l.deps.Keychain.Get(ctx, keychain.Revocations[m.Place])
			if reason := keychain.ReasonOf(err); reason != messages.ReasonInvalidSecret { // a value that custody never stores
				return reason
			}
			return messages.ReasonOK
		}, done: func(r messages.Reason) {
			if r != messages.ReasonOK { // a call that has not ended may still write token
				m.Reply <- messages.LoadedRevocation{Reason: r}
				return
			}
			m.Reply <- messages.LoadedRevocation{Token: token, Reason: r}
		}})
	case messages.StoreRevocation:
		l.enqueue(ctx, job{work: func(ctx context.Context) messages.Reason {
			return keychain.ReasonOf(l.deps.Keychain.Set(ctx, keychain.Revocations[m.Place], m.Token))
		}, done: func(r messages.Reason) { m.Reply <- r }})
	case messages.ClearRevocation:
		l.enqueue(ctx, job{work: func(ctx context.Context) messages.Reason {
			return keychain.ReasonOf(l.deps.Keychain.Delete(ctx, keychain.Revocations[m.Place]))
		}, done: func(r messages.Reason) { m.Reply <- r }})
	}
}
