package oauth

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"companion/adapters/authority/transport"
	"companion/messages"
)

// maxToken bounds an access or refresh token, in bytes (O7). It equals keychain.MaxValue.
const maxToken = 8192

// maxTokenAnswer leaves room for two tokens of that size.
const maxTokenAnswer = 64 << 10

// Tokens is a checked token response (RFC 6749 section 5.1).
type Tokens struct {
	Access  messages.Secret
	Refresh messages.Secret // zero if the hub issued none
	Issued  time.Time       // when the request was sent, by the wall clock
	Expires time.Time       // of the access token, counted from Issued
	Scope   string          // granted; empty if the response has none (RFC 6749 section 5.1)
}

var positiveInteger = regexp.MustCompile(`^[1-9][0-9]{0,8}$`)

// parseTokens checks a token response before anything uses it (O7).
func parseTokens(body []byte, asked time.Time) (Tokens, bool) {
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
	life, ok := seconds(a.ExpiresIn)
	if !ok {
		return Tokens{}, false
	}
	// Round drops the monotonic reading, which stops while the machine sleeps.
	asked = asked.Round(0).UTC()
	t := Tokens{
		Access:  messages.NewSecret(a.AccessToken),
		Issued:  asked,
		Expires: asked.Add(life),
	}
	if a.RefreshToken != nil {
		if !printable(*a.RefreshToken, maxToken, true) {
			return Tokens{}, false
		}
		t.Refresh = messages.NewSecret(*a.RefreshToken)
	}
	if a.Scope != nil && *a.Scope != "" {
		if !printable(*a.Scope, 1024, true) {
			return Tokens{}, false
		}
		t.Scope = *a.Scope
	}
	return t, true
}

// exchange exchanges the code for tokens, once (O7).
func (c *Client) exchange(ctx context.Context, m metadata, clientID, redirectURI, code, verifier string) (Tokens, error) {
	t, err := c.tokens(ctx, "exchanging the code", m.Token, url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {code},
		"redirect_uri":  {redirectURI},
		"client_id":     {clientID},
		"code_verifier": {verifier},
	})
	return c.asAsked(t), err
}

// asAsked sets the scope of a first response that has none to the requested one.
func (c *Client) asAsked(t Tokens) Tokens {
	if t.Scope == "" {
		t.Scope = c.config.Scope
	}
	return t
}

// Refresh exchanges the refresh token for new tokens (RFC 6749 section 6). The *Error's Retry says whether it may be sent again
// (O8), SessionOver whether the hub has ended the session. If the hub does not rotate, the result contains the old refresh
// token. An empty scope means that the scope is unchanged. sending, if not nil, is called right before the request is sent,
// after every other step that can fail; its error stops the refresh with RetryLater.
func (c *Client) Refresh(ctx context.Context, clientID string, refresh messages.Secret, sending func() error) (Tokens, error) {
	m, err := c.discover(ctx)
	if err != nil {
		return Tokens{}, err
	}
	if sending != nil {
		if err := sending(); err != nil {
			return Tokens{}, &Error{Doing: "noting the refresh", Reason: messages.ReasonInternalError, Retry: RetryLater, cause: err}
		}
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

// temporary reports whether a status says that the hub cannot answer at the moment.
func temporary(status int) bool {
	return status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
}

// tokens sends one token request, with all parameters in the body.
func (c *Client) tokens(ctx context.Context, doing, endpoint string, form url.Values) (Tokens, error) {
	asked := time.Now()
	failed := func(retry Retry, detail string, cause error) (Tokens, error) {
		return Tokens{}, &Error{Doing: doing, Reason: messages.ReasonTokenExchangeFailed, Detail: detail, Retry: retry, cause: cause}
	}
	status, body, sent, err := c.post(ctx, endpoint, form)
	// Judge the status before the body: a body that is too long or truncated does not turn a refusal into a lost response.
	switch {
	case temporary(status):
		return failed(RetryLater, "", fmt.Errorf("status %d", status))
	case status >= 300:
		return failed(RetryNever, errorCode(body), fmt.Errorf("status %d", status))
	case err != nil && !sent:
		return failed(RetryLater, "", err)
	case err != nil:
		return failed(RetryUnsafe, "", err)
	case status != http.StatusOK:
		return failed(RetryUnsafe, "", fmt.Errorf("status %d", status))
	}
	t, ok := parseTokens(body, asked)
	if !ok {
		// The hub has granted the request, but the response is unusable: the token that was sent is spent.
		return Tokens{}, &Error{Doing: doing, Reason: messages.ReasonInvalidTokenResponse, Retry: RetryUnsafe}
	}
	return t, nil
}

// Revoke asks the hub to end the token's family (RFC 7009). The hub also answers 200 for a token that it does not know. The
// *Error's Retry is RetryLater unless the hub offers no revocation or refuses with an error code of the RFCs.
func (c *Client) Revoke(ctx context.Context, clientID string, refresh messages.Secret) error {
	m, err := c.discover(ctx)
	if err != nil {
		return err
	}
	failed := func(retry Retry, detail string, cause error) error {
		return &Error{Doing: "revoking the session", Reason: messages.ReasonTokenExchangeFailed, Detail: detail, Retry: retry, cause: cause}
	}
	if m.Revocation == "" {
		return failed(RetryNever, "", fmt.Errorf("the hub offers no revocation"))
	}
	status, body, _, err := c.post(ctx, m.Revocation, url.Values{
		"token":           {refresh.Reveal()},
		"token_type_hint": {"refresh_token"},
		"client_id":       {clientID},
	})
	switch {
	case status == http.StatusOK: // the body is ignored (RFC 7009 section 2.2)
		return nil
	case status == http.StatusBadRequest || status == http.StatusUnauthorized:
		if code := errorCode(body); code != "" {
			return failed(RetryNever, code, fmt.Errorf("status %d", status))
		}
	}
	if status != 0 { // another server may answer in the hub's place, such as a proxy
		err = fmt.Errorf("status %d", status)
	}
	return failed(RetryLater, "", err)
}

// post sends a form. status is 0 without a response; otherwise err concerns its body. sent is true if any part of the request
// may have been sent, so that the hub may have acted on it.
func (c *Client) post(ctx context.Context, endpoint string, form url.Values) (status int, body []byte, sent bool, err error) {
	var wrote atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { wrote.Store(true) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, false, err
	}
	req.GetBody = nil // otherwise net/http might send the body a second time
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
