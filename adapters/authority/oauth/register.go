package oauth

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"

	"companion/adapters/authority/transport"
	"companion/messages"
)

type registration struct {
	ClientName    string   `json:"client_name"`
	RedirectURIs  []string `json:"redirect_uris,omitempty"`
	AuthMethod    string   `json:"token_endpoint_auth_method"`
	GrantTypes    []string `json:"grant_types"`
	ResponseTypes []string `json:"response_types,omitempty"`
	Scope         string   `json:"scope,omitempty"`
}

// register registers a public client for exactly this redirect URI (O6, RFC 7591) and returns its id. An empty redirect URI
// registers a client for device authorization only.
func (c *Client) register(ctx context.Context, m metadata, redirectURI string) (string, error) {
	failed := func(detail string, cause error) (string, error) {
		return "", &Error{Doing: "registering with the hub", Reason: messages.ReasonRegistrationFailed, Detail: detail, cause: cause}
	}
	wish := registration{
		ClientName:    "companion",
		RedirectURIs:  []string{redirectURI},
		AuthMethod:    "none",
		GrantTypes:    []string{"authorization_code", "refresh_token"},
		ResponseTypes: []string{"code"},
		Scope:         c.config.Scope,
	}
	if redirectURI == "" {
		wish.RedirectURIs, wish.ResponseTypes, wish.GrantTypes = nil, nil, []string{deviceGrant, "refresh_token"}
	}
	body, err := json.Marshal(wish)
	if err != nil {
		return failed("", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.Registration, bytes.NewReader(body))
	if err != nil {
		return failed("", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, err := c.config.HTTP.Do(req)
	if err != nil {
		return failed("", err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := transport.ReadAll(resp.Body, maxAnswer)
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK {
		return failed(errorCode(answer), fmt.Errorf("status %d", resp.StatusCode))
	}
	if err != nil {
		return failed("", err)
	}
	id, reason := checkRegistration(answer, redirectURI)
	if reason != messages.ReasonOK {
		return "", &Error{Doing: "registering with the hub", Reason: reason}
	}
	return id, nil
}

// checkRegistration refuses a client that differs from the requested public one: a client with a secret, with another
// authentication method, or for another redirect URI.
func checkRegistration(answer []byte, redirectURI string) (string, messages.Reason) {
	var got struct {
		ClientID     string   `json:"client_id"`
		ClientSecret string   `json:"client_secret"`
		AuthMethod   string   `json:"token_endpoint_auth_method"`
		RedirectURIs []string `json:"redirect_uris"`
	}
	if err := json.Unmarshal(answer, &got); err != nil {
		return "", messages.ReasonRegistrationFailed
	}
	if !printable(got.ClientID, 512, true) || got.ClientSecret != "" || got.AuthMethod != "" && got.AuthMethod != "none" {
		return "", messages.ReasonRegistrationFailed
	}
	if redirectURI != "" && got.RedirectURIs != nil && !slices.Contains(got.RedirectURIs, redirectURI) {
		return "", messages.ReasonInvalidRedirectURI
	}
	return got.ClientID, messages.ReasonOK
}

// errorCode returns the RFC error code of an error response, or an empty string.
func errorCode(body []byte) string {
	var e struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return ""
	}
	return knownCode(e.Error)
}
