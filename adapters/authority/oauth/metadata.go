package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"companion/adapters/authority/transport"
	"companion/messages"
)

// maxAnswer bounds every JSON response of the hub, in bytes.
const maxAnswer = 64 << 10

// wellKnown is the name of the metadata document (RFC 8414 section 3).
const wellKnown = "/.well-known/oauth-authorization-server"

// metadata is the authorization server metadata (RFC 8414 section 2, RFC 8628 section 4).
type metadata struct {
	Issuer           string   `json:"issuer"`
	Authorization    string   `json:"authorization_endpoint"`
	Token            string   `json:"token_endpoint"`
	Registration     string   `json:"registration_endpoint"`
	Revocation       string   `json:"revocation_endpoint"`
	Device           string   `json:"device_authorization_endpoint"`
	ResponseTypes    []string `json:"response_types_supported"`
	ChallengeMethods []string `json:"code_challenge_methods_supported"`
	AuthMethods      []string `json:"token_endpoint_auth_methods_supported"`
	IssInResponse    bool     `json:"authorization_response_iss_parameter_supported"`
}

// locations lists the possible URLs of the metadata of issuer: appended to the issuer (docs/hub.md), and inserted between host
// and path (RFC 8414 section 3.1). For an issuer without a path both are the same.
func locations(issuer string) []string {
	all := []string{strings.TrimSuffix(issuer, "/") + wellKnown}
	if u, err := url.Parse(issuer); err == nil && strings.Trim(u.EscapedPath(), "/") != "" {
		all = append(all, u.Scheme+"://"+u.Host+wellKnown+strings.TrimSuffix(u.EscapedPath(), "/"))
	}
	return all
}

// discover fetches and checks the metadata. It tries the second location if the first one has no metadata: a 4xx status, or a
// body that is not JSON, from a server that answers every path with a web page.
func (c *Client) discover(ctx context.Context) (metadata, error) {
	const doing = "fetching the hub's sign-in metadata"
	var failed error
	reason := messages.ReasonMetadataInvalid
	for _, location := range locations(c.config.Issuer) {
		body, outcome, err := c.fetchMetadata(ctx, location)
		if err == nil {
			m, reason := checkMetadata(body, c.config.Issuer, c.config.ForeignEndpoints)
			if reason != messages.ReasonOK {
				return metadata{}, &Error{Doing: doing, Reason: reason, Retry: RetryLater}
			}
			return m, nil
		}
		if failed == nil {
			failed = err
		}
		if outcome == silent {
			reason, failed = messages.ReasonHubUnreachable, err
		}
		if outcome != absent {
			break
		}
	}
	return metadata{}, &Error{Doing: doing, Reason: reason, Retry: RetryLater, cause: failed}
}

// outcome says why a document could not be fetched.
type outcome int

const (
	refused outcome = iota // the response is unusable
	absent                 // the server has none at this location
	silent                 // the server does not answer at the moment
)

// fetchMetadata fetches one document.
func (c *Client) fetchMetadata(ctx context.Context, location string) (body []byte, why outcome, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return nil, refused, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.config.HTTP.Do(req)
	if err != nil {
		return nil, silent, err
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.StatusCode == http.StatusOK:
	case temporary(resp.StatusCode):
		return nil, silent, fmt.Errorf("status %d", resp.StatusCode)
	case resp.StatusCode >= 400:
		return nil, absent, fmt.Errorf("status %d", resp.StatusCode)
	default:
		return nil, refused, fmt.Errorf("status %d", resp.StatusCode)
	}
	if body, err = transport.ReadAll(resp.Body, maxAnswer); err != nil {
		return nil, refused, err
	}
	if !jsontext.Value(body).IsValid() {
		return nil, absent, errors.New("the metadata is not JSON")
	}
	return body, refused, nil
}

// checkMetadata checks the server's metadata (O1): the issuer equals the configured one byte for byte, each endpoint is https
// and, unless foreign ones are allowed, of the issuer's origin, and the server offers S256 to public clients.
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
	if m.Authorization == "" || m.Token == "" {
		return metadata{}, messages.ReasonMetadataInvalid
	}
	for _, raw := range []string{m.Authorization, m.Token, m.Registration, m.Revocation, m.Device} {
		if raw != "" && !usable(raw, own, foreign) {
			return metadata{}, messages.ReasonMetadataInvalid
		}
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

// usable reports whether raw is an https URL of the issuer's origin, or, if foreign is set, of any origin.
func usable(raw string, issuer *url.URL, foreign bool) bool {
	u, err := endpoint(raw)
	return err == nil && (foreign || originOf(u) == originOf(issuer))
}
