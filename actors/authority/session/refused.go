package session

import (
	"time"

	"companion/messages"
)

// tokenRefused takes back the access token that the hub did not accept, although it has not expired: it may have been
// revoked early. The next request for a token then refreshes the session first. Without a refresh token nothing
// can be refreshed, and the session stays as it is.
func (l *loop) tokenRefused(token messages.Secret) {
	if token.IsZero() || token.Reveal() != l.session.AccessToken.Reveal() || l.session.RefreshToken.IsZero() {
		return
	}
	l.session.Meta.AccessExpires = time.Now().Add(-time.Hour)
}
