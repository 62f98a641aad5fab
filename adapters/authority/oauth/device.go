package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"companion/messages"
)

// deviceGrant is the grant type of RFC 8628 section 3.4.
const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// Polling, RFC 8628 section 3.5.
const (
	pollEvery  = 5 * time.Second // default, if the hub names no interval
	pollSlower = 5 * time.Second // added at each slow_down
	pollMost   = time.Minute     // limit, if the hub or the network keeps failing
)

// DeviceAttempt is one sign-in by device authorization (RFC 8628, O11): the user confirms a code in a browser on any device.
// Its owner calls Wait once, then Close once.
type DeviceAttempt struct {
	client   *Client
	metadata metadata
	clientID string
	code     string // the device code; never shown
	interval time.Duration
	page     messages.LoginPage
}

// BeginDevice requests a code from the hub. ReasonDeviceUnsupported means that the hub offers no device authorization.
func (c *Client) BeginDevice(ctx context.Context) (*DeviceAttempt, error) {
	const doing = "asking the hub for a device code"
	m, err := c.discover(ctx)
	if err != nil {
		return nil, err
	}
	if m.Device == "" {
		return nil, &Error{Doing: doing, Reason: messages.ReasonDeviceUnsupported}
	}
	clientID := c.config.ClientID
	switch {
	case clientID != "":
	case m.Registration == "":
		return nil, errNoClient
	default:
		if clientID, err = c.register(ctx, m, ""); err != nil {
			return nil, err
		}
	}
	asked := time.Now().Round(0)
	status, body, _, err := c.post(ctx, m.Device, url.Values{"client_id": {clientID}, "scope": {c.config.Scope}})
	if status != http.StatusOK || err != nil {
		if err == nil {
			err = fmt.Errorf("status %d", status)
		}
		return nil, &Error{Doing: doing, Reason: messages.ReasonTokenExchangeFailed, Detail: errorCode(body), cause: err}
	}
	a, ok := c.checkDevice(body, asked)
	if !ok {
		return nil, &Error{Doing: doing, Reason: messages.ReasonInvalidTokenResponse}
	}
	a.client, a.metadata, a.clientID = c, m, clientID
	return a, nil
}

// checkDevice checks a device authorization response (RFC 8628 section 3.2). The texts shown to the user must be printable,
// and the pages must be https and of the issuer's origin, like every endpoint (O1).
func (c *Client) checkDevice(body []byte, asked time.Time) (*DeviceAttempt, bool) {
	var d struct {
		DeviceCode string         `json:"device_code"`
		UserCode   string         `json:"user_code"`
		URI        string         `json:"verification_uri"`
		Complete   string         `json:"verification_uri_complete"`
		ExpiresIn  jsontext.Value `json:"expires_in"`
		Interval   jsontext.Value `json:"interval"`
	}
	own, err := endpoint(c.config.Issuer)
	if err != nil || json.Unmarshal(body, &d) != nil {
		return nil, false
	}
	if !printable(d.DeviceCode, maxToken, true) || !printable(d.UserCode, 64, true) {
		return nil, false
	}
	for _, page := range []string{d.URI, d.Complete} {
		if page == "" && page != d.URI {
			continue // verification_uri_complete is optional
		}
		if !printable(page, 1024, false) || !usable(page, own, c.config.ForeignEndpoints) {
			return nil, false
		}
	}
	life, ok := seconds(d.ExpiresIn)
	if !ok {
		return nil, false
	}
	interval := pollEvery
	switch string(d.Interval) {
	case "", "null", "0": // RFC 8628 section 3.2: without a value clients use 5 seconds; servers that do not limit send 0
	default:
		if interval, ok = seconds(d.Interval); !ok {
			return nil, false
		}
	}
	return &DeviceAttempt{
		code: d.DeviceCode, interval: min(interval, pollMost),
		page: messages.LoginPage{URL: d.URI, Code: d.UserCode, Complete: d.Complete, Until: asked.Add(min(life, maxDeviceLife))},
	}, true
}

// maxDeviceLife bounds a device attempt, regardless of the hub's expires_in.
const maxDeviceLife = time.Hour

// seconds parses a JSON number of whole seconds, 1 to 999999999.
func seconds(v jsontext.Value) (time.Duration, bool) {
	if !positiveInteger.Match(v) {
		return 0, false
	}
	n, err := strconv.Atoi(string(v))
	return time.Duration(n) * time.Second, err == nil
}

// Page returns the verification page, the code, and their deadline.
func (a *DeviceAttempt) Page() messages.LoginPage { return a.page }

// Wait polls until the user has confirmed or refused, the code has expired, or ctx ends. If the hub or the network fails,
// Wait polls more slowly and goes on.
func (a *DeviceAttempt) Wait(ctx context.Context) (Grant, error) {
	const doing = "waiting for the code to be confirmed"
	ctx, cancel := context.WithDeadline(ctx, a.page.Until)
	defer cancel()
	pause := time.NewTimer(a.interval)
	defer pause.Stop()
	failures := 0
	for {
		select {
		case <-pause.C:
		case <-ctx.Done():
			return Grant{}, &Error{Doing: doing, Reason: messages.ReasonCallbackTimeout, cause: context.Cause(ctx)}
		}
		t, err := a.client.tokens(ctx, doing, a.metadata.Token, url.Values{
			"grant_type": {deviceGrant}, "device_code": {a.code}, "client_id": {a.clientID},
		})
		if err == nil {
			return Grant{Tokens: a.client.asAsked(t), Issuer: a.metadata.Issuer, ClientID: a.clientID}, nil
		}
		var e *Error
		if !errors.As(err, &e) {
			return Grant{}, err
		}
		wait := a.interval
		switch {
		case e.Detail == "authorization_pending":
			failures = 0
		case e.Detail == "slow_down":
			a.interval += pollSlower
			wait = a.interval
		// RFC 8628 section 3.5: a client polls again after a lost response. If the hub had granted it, the code is now spent, and
		// the next response ends the attempt.
		case e.Retry == RetryLater, e.Retry == RetryUnsafe && e.Reason == messages.ReasonTokenExchangeFailed:
			failures = min(failures+1, 4)
			wait = min(a.interval<<failures, max(a.interval, pollMost))
		case e.Detail == "access_denied":
			return Grant{}, &Error{Doing: doing, Reason: messages.ReasonAuthorizationServerError, Detail: e.Detail}
		case e.Detail == "expired_token":
			return Grant{}, &Error{Doing: doing, Reason: messages.ReasonCallbackTimeout, Detail: e.Detail}
		default:
			return Grant{}, err
		}
		pause.Reset(wait)
	}
}

// Close does nothing: the code expires at the hub.
func (a *DeviceAttempt) Close(bool) {}
