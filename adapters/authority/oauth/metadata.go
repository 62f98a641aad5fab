package oauth

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"

	"companion/adapters/authority/transport"
	"companion/messages"
)

// maxAnswer bounds every JSON body of the hub, in bytes.
const maxAnswer = 64 << 10

// metadata is what the authorization server says of itself (RFC 8414 section 2).
type metadata struct {
	Issuer           string   `json:"issuer"`
	Authorization    string   `json:"authorization_endpoint"`
	Token            string   `json:"token_endpoint"`
	Registration     string   `json:"registration_endpoint"`
	Revocation       string   `json:"revocation_endpoint"`
	ResponseTypes    []string `json:"response_types_supported"`
	ChallengeMethods []string `json:"code_challenge_methods_supported"`
	AuthMethods      []string `json:"token_endpoint_auth_methods_supported"`
	IssInResponse    bool     `json:"authorization_response_iss_parameter_supported"`
}

// discover fetches and checks the metadata. hub.md appends the well-known path to the issuer.
func (c *Client) discover(ctx context.Context) (metadata, error) {
	const doing = "fetching the hub's sign-in metadata"
	failed := func(cause error) (metadata, error) {
		return metadata{}, &Error{Doing: doing, Reason: messages.ReasonMetadataInvalid, Retry: RetryLater, cause: cause}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.config.Issuer+"/.well-known/oauth-authorization-server", nil)
	if err != nil {
		return failed(err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.config.HTTP.Do(req)
	if err != nil {
		return failed(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return failed(fmt.Errorf("status %d", resp.StatusCode))
	}
	body, err := transport.ReadAll(resp.Body, maxAnswer)
	if err != nil {
		return failed(err)
	}
	m, reason := checkMetadata(body, c.config.Issuer, c.config.ForeignEndpoints)
	if reason != messages.ReasonOK {
		return metadata{}, &Error{Doing: doing, Reason: reason, Retry: RetryLater}
	}
	return m, nil
}

// checkMetadata decides whether the server's metadata can be used (O1): the issuer equals the
// configured one byte for byte, each endpoint is https and, unless foreign ones are allowed, of the
// issuer's own origin, and S256 is offered to public clients.
func checkMetadata(body []byte, issuer string, foreign bool) (metadata, messages.Reason) {
	var m metadata
	if err := json.Unmarshal(body, &m); err != nil {
		return metadata{}, messages.ReasonMetadataInvalid
	}
	if m.Issuer != issuer {
		return metadata{}, messages.ReasonIssuerMismatch
	}
	own, err := endpoint(issuer)
	if err != nil {
		return metadata{}, messages.ReasonMetadataInvalid
	}
	usable := func(raw string, optional bool) bool {
		if raw == "" {
			return optional
		}
		u, err := endpoint(raw)
		return err == nil && (foreign || originOf(u) == originOf(own))
	}
	if !usable(m.Authorization, false) || !usable(m.Token, false) || !usable(m.Registration, true) || !usable(m.Revocation, true) {
		return metadata{}, messages.ReasonMetadataInvalid
	}
	if !slices.Contains(m.ResponseTypes, "code") {
		return metadata{}, messages.ReasonMetadataInvalid
	}
	// RFC 8414: an absent list means client_secret_basic, which a public client cannot use.
	if !slices.Contains(m.AuthMethods, "none") {
		return metadata{}, messages.ReasonMetadataInvalid
	}
	if !slices.Contains(m.ChallengeMethods, "S256") {
		return metadata{}, messages.ReasonUnsupportedPKCEMethod
	}
	return m, messages.ReasonOK
}
