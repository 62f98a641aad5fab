package signin

import (
	"crypto/rand"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	maxRedirects  = 5
	maxClientName = 200
)

// registration is the client metadata of RFC 7591 that this hub supports. It ignores other members, as the RFC requires.
type registration struct {
	ClientID      string   `json:"client_id,omitempty"`
	IssuedAt      int64    `json:"client_id_issued_at,omitempty"`
	ClientName    string   `json:"client_name,omitempty"`
	RedirectURIs  []string `json:"redirect_uris"`
	AuthMethod    string   `json:"token_endpoint_auth_method"`
	GrantTypes    []string `json:"grant_types,omitempty"`
	ResponseTypes []string `json:"response_types,omitempty"`
	Scope         string   `json:"scope,omitempty"`
}

// Register handles client registration (RFC 7591).
func (s *Server) Register(w http.ResponseWriter, r *http.Request) {
	refuse := func(code, description string) {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": code, "error_description": description})
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		refuse("invalid_client_metadata", "the body must be application/json")
		return
	}
	var reg registration
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&reg); err != nil {
		refuse("invalid_client_metadata", "the body is not valid client metadata")
		return
	}
	device := !slices.Contains(reg.GrantTypes, "authorization_code") && slices.Contains(reg.GrantTypes, deviceGrant)
	if len(reg.RedirectURIs) == 0 && !device || len(reg.RedirectURIs) > maxRedirects || !all(reg.RedirectURIs, loopbackRedirect) {
		refuse("invalid_redirect_uri", "redirect_uris must be http URIs of a loopback literal, with a path")
		return
	}
	if problem := reg.check(); problem != "" {
		refuse("invalid_client_metadata", problem)
		return
	}
	client := newClient(rand.Text(), reg.RedirectURIs)
	if len(reg.GrantTypes) == 0 {
		reg.GrantTypes = []string{"authorization_code"}
	}
	client.GrantTypes = reg.GrantTypes
	if reg.Scope != "" {
		client.Scopes = strings.Fields(reg.Scope)
	}
	if err := s.store.putClient(client); err != nil {
		http.Error(w, "the client cannot be stored", http.StatusInternalServerError)
		return
	}
	reg.ClientID, reg.IssuedAt = client.ID, time.Now().Unix()
	reg.ResponseTypes, reg.Scope = client.ResponseTypes, strings.Join(client.Scopes, " ")
	writeJSON(w, http.StatusCreated, reg)
}

func (reg registration) check() string {
	hubScopes := []string{scopeRead, scopeWrite}
	switch {
	case reg.AuthMethod != "none":
		return "token_endpoint_auth_method must be none: native clients keep no secret"
	case !all(reg.GrantTypes, func(g string) bool { return g == "authorization_code" || g == "refresh_token" || g == deviceGrant }):
		return "grant_types can be authorization_code, refresh_token and " + deviceGrant
	case !all(reg.ResponseTypes, func(t string) bool { return t == "code" }):
		return "response_types can be code"
	case !all(strings.Fields(reg.Scope), func(s string) bool { return slices.Contains(hubScopes, s) }):
		return "scope can be " + strings.Join(hubScopes, " ")
	case len(reg.ClientName) > maxClientName:
		return "client_name is too long"
	}
	return ""
}

// loopbackRedirect reports whether raw is an http URI of a loopback literal (RFC 8252 7.3 and 8.3: not localhost).
func loopbackRedirect(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && u.Scheme == "http" && (u.Hostname() == "127.0.0.1" || u.Hostname() == "::1") &&
		u.User == nil && u.Fragment == "" && !strings.Contains(raw, "#") && u.Path != "" && u.Opaque == ""
}

func all(values []string, ok func(string) bool) bool {
	return !slices.ContainsFunc(values, func(v string) bool { return !ok(v) })
}
