package session

import (
	"time"

	"companion/messages"
)

// tokenRefused treats an access token that the hub refused as expired, although it is not: the hub may have revoked
// it early. The next request for a token then refreshes the session first. A session without a refresh token stays
// unchanged.
func (l *loop) tokenRefused(token messages.Secret) {
	if token.IsZero() || token.Reveal() != l.session.AccessToken.Reveal() || l.session.RefreshToken.IsZero() {
		return
	}
	l.session.Meta.AccessExpires = time.Now().Add(-time.Hour)
}
