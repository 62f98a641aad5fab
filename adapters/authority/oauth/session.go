package oauth

import (
	"context"
	"fmt"
	"net/http"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"companion/adapters/authority/transport"
	"companion/messages"
)

// Skew is how long before its expiry an access token counts as expired (O8).
const Skew = 30 * time.Second

// clockBack is how far the clock may be behind the time of issue. If it is further behind, the clock was set back, and the
// expiry is unreliable.
const clockBack = 5 * time.Minute

// Decide returns the state of a session at now (O8): ReasonSessionValid, ReasonSessionRefresh or ReasonSignInNeeded. A session
// that is malformed, missing or of another issuer or client needs a sign-in.
func (c *Client) Decide(s messages.Session, now time.Time) messages.Reason {
	return decide(s, c.config.Issuer, c.config.ClientID, now.Round(0)) // without the monotonic reading: see parseTokens
}

// Issued reports whether s is a session of this hub. No token of another session may be sent to it.
func (c *Client) Issued(s messages.Session) bool { return s.Meta.Issuer == c.config.Issuer }

func decide(s messages.Session, issuer, clientID string, now time.Time) messages.Reason {
	switch {
	case s.Meta.Issuer != issuer || issuer == "",
		!printable(s.Meta.ClientID, 512, true),
		clientID != "" && s.Meta.ClientID != clientID,
		!printable(s.AccessToken.Reveal(), maxToken, false),
		s.Meta.AccessExpires.IsZero(),
		!s.RefreshToken.IsZero() && !printable(s.RefreshToken.Reveal(), maxToken, true):
		return messages.ReasonSignInNeeded
	case now.Add(Skew).Before(s.Meta.AccessExpires) && !now.Before(s.Meta.AccessIssued.Add(-clockBack)):
		return messages.ReasonSessionValid
	case !s.RefreshToken.IsZero():
		return messages.ReasonSessionRefresh
	}
	return messages.ReasonSignInNeeded
}

// WhoAmI asks the hub for the user of the access token. A refused token is ReasonSignInNeeded. A hub that does not answer is
// ReasonHubUnreachable, and one that sends an invalid response ReasonMetadataInvalid, both with RetryLater.
func (c *Client) WhoAmI(ctx context.Context, access messages.Secret) (messages.User, error) {
	const doing = "asking the hub who is signed in"
	failed := func(cause error) (messages.User, error) {
		return messages.User{}, &Error{Doing: doing, Reason: messages.ReasonMetadataInvalid, Retry: RetryLater, cause: cause}
	}
	unreachable := func(cause error) (messages.User, error) {
		return messages.User{}, &Error{Doing: doing, Reason: messages.ReasonHubUnreachable, Retry: RetryLater, cause: cause}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.config.SessionURL, nil)
	if err != nil {
		return failed(err)
	}
	req.Header.Set("Authorization", "Bearer "+access.Reveal())
	req.Header.Set("Accept", "application/json")
	resp, err := c.config.HTTP.Do(req)
	if err != nil {
		return unreachable(err)
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.StatusCode == http.StatusOK:
	case resp.StatusCode == http.StatusUnauthorized:
		return messages.User{}, &Error{Doing: doing, Reason: messages.ReasonSignInNeeded}
	case temporary(resp.StatusCode):
		return unreachable(fmt.Errorf("status %d", resp.StatusCode))
	default:
		return failed(fmt.Errorf("status %d", resp.StatusCode))
	}
	body, err := transport.ReadAll(resp.Body, maxAnswer)
	if err != nil {
		return failed(err)
	}
	user, ok := parseUser(body)
	if !ok {
		return failed(fmt.Errorf("the answer is malformed"))
	}
	return user, nil
}

// parseUser parses the response of the session endpoint. It refuses control characters, because terminals show the fields.
func parseUser(body []byte) (messages.User, bool) {
	var u messages.User
	if err := json.Unmarshal(body, &u); err != nil || u.Subject == "" {
		return messages.User{}, false
	}
	for _, s := range []string{u.Subject, u.Provider, u.ID, u.Name, u.Role} {
		if len(s) > 256 || !utf8.ValidString(s) {
			return messages.User{}, false
		}
		for _, r := range s {
			if !unicode.IsPrint(r) {
				return messages.User{}, false
			}
		}
	}
	return u, true
}
