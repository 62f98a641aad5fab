package oauth

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"companion/adapters/authority/transport"
	"companion/messages"
)

// maxToken bounds an access or refresh token, in bytes (O7); the keychain holds as much.
const maxToken = 8192

// maxTokenAnswer leaves room for two tokens of that size.
const maxTokenAnswer = 64 << 10

// Tokens is a checked token response (RFC 6749 section 5.1).
type Tokens struct {
	Access  messages.Secret
	Refresh messages.Secret // zero when the hub gave none
	Expires time.Time       // of the access token, counted from before the request
	Scope   string          // granted; what was asked for when the answer does not say
}

var positiveInteger = regexp.MustCompile(`^[1-9][0-9]{0,8}$`)

// parseTokens checks a token response before anything uses it (O7).
func parseTokens(body []byte, asked time.Time, scope string) (Tokens, bool) {
	var a struct {
		Error        jsontext.Value `json:"error"`
		TokenType    string         `json:"token_type"`
		AccessToken  string         `json:"access_token"`
		ExpiresIn    jsontext.Value `json:"expires_in"`
		RefreshToken *string        `json:"refresh_token"`
		Scope        *string        `json:"scope"`
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return Tokens{}, false
	}
	if a.Error != nil || !strings.EqualFold(a.TokenType, "bearer") || !printable(a.AccessToken, maxToken, false) {
		return Tokens{}, false
	}
	if !positiveInteger.Match(a.ExpiresIn) {
		return Tokens{}, false
	}
	seconds, err := strconv.Atoi(string(a.ExpiresIn))
	if err != nil {
		return Tokens{}, false
	}
	t := Tokens{
		Access:  messages.NewSecret(a.AccessToken),
		Expires: asked.Add(time.Duration(seconds) * time.Second).UTC(),
		Scope:   scope,
	}
	if a.RefreshToken != nil {
		if !printable(*a.RefreshToken, maxToken, true) {
			return Tokens{}, false
		}
		t.Refresh = messages.NewSecret(*a.RefreshToken)
	}
	if a.Scope != nil {
		if !printable(*a.Scope, 1024, true) {
			return Tokens{}, false
		}
		t.Scope = *a.Scope
	}
	return t, true
}

// exchange trades the code for tokens, once (O7).
func (c *Client) exchange(ctx context.Context, m metadata, clientID, redirectURI, code, verifier string) (Tokens, error) {
	return c.tokens(ctx, "exchanging the code", m.Token, url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {code},
		"redirect_uri":  {redirectURI},
		"client_id":     {clientID},
		"code_verifier": {verifier},
	})
}

// Refresh trades the refresh token for new tokens (RFC 6749 section 6). The *Error's Retry says
// whether it may be sent again (O8), SessionOver whether the hub has ended the session. Where the hub
// does not rotate, the answer carries the old refresh token on.
func (c *Client) Refresh(ctx context.Context, clientID string, refresh messages.Secret) (Tokens, error) {
	m, err := c.discover(ctx)
	if err != nil {
		return Tokens{}, err
	}
	t, err := c.tokens(ctx, "refreshing the session", m.Token, url.Values{
		"grant_type":    {"refresh_token"},
		"refresh_token": {refresh.Reveal()},
		"client_id":     {clientID},
	})
	if err == nil && t.Refresh.IsZero() {
		t.Refresh = refresh
	}
	return t, err
}

// tokens sends one token request, parameters in the body only.
func (c *Client) tokens(ctx context.Context, doing, endpoint string, form url.Values) (Tokens, error) {
	asked := time.Now()
	failed := func(retry Retry, detail string, cause error) (Tokens, error) {
		return Tokens{}, &Error{Doing: doing, Reason: messages.ReasonTokenExchangeFailed, Detail: detail, Retry: retry, cause: cause}
	}
	status, body, sent, err := c.post(ctx, endpoint, form)
	switch {
	case err != nil && sent:
		return failed(RetryUnsafe, "", err)
	case err != nil:
		return failed(RetryLater, "", err)
	case status >= 500 || status == http.StatusTooManyRequests:
		return failed(RetryLater, "", fmt.Errorf("status %d", status))
	case status != http.StatusOK:
		return failed(RetryNever, errorCode(body), fmt.Errorf("status %d", status))
	}
	t, ok := parseTokens(body, asked, c.config.Scope)
	if !ok {
		// The hub has answered "yes" in words that cannot be used: the token it was given is spent.
		return Tokens{}, &Error{Doing: doing, Reason: messages.ReasonInvalidTokenResponse, Retry: RetryUnsafe}
	}
	return t, nil
}

// Revoke asks the hub to end the token's family (RFC 7009), best effort.
func (c *Client) Revoke(ctx context.Context, clientID string, refresh messages.Secret) error {
	m, err := c.discover(ctx)
	if err != nil {
		return err
	}
	failed := func(cause error) error {
		return &Error{Doing: "revoking the session", Reason: messages.ReasonTokenExchangeFailed, cause: cause}
	}
	if m.Revocation == "" {
		return failed(fmt.Errorf("the hub offers no revocation"))
	}
	status, _, _, err := c.post(ctx, m.Revocation, url.Values{
		"token":           {refresh.Reveal()},
		"token_type_hint": {"refresh_token"},
		"client_id":       {clientID},
	})
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d", status)
	}
	if err != nil {
		return failed(err)
	}
	return nil
}

// post sends a form. sent is true once any part of the request may have left: then nobody knows
// whether the hub has acted on it.
func (c *Client) post(ctx context.Context, endpoint string, form url.Values) (status int, body []byte, sent bool, err error) {
	var wrote atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { wrote.Store(true) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, false, err
	}
	req.GetBody = nil // or net/http might send the body a second time
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	resp, err := c.config.HTTP.Do(req)
	if err != nil {
		return 0, nil, wrote.Load(), err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = transport.ReadAll(resp.Body, maxTokenAnswer)
	return resp.StatusCode, body, true, err
}
