// Package signin is the development hub's authorization server: Authorization Code with PKCE for public native clients
// (RFC 6749, 7636, 8252), their registration (RFC 7591), rotation of refresh tokens with reuse detection, revocation
// (RFC 7009), device authorization (RFC 8628), metadata (RFC 8414) and the issuer in every redirect (RFC 9207). fosite
// implements the protocol, except for device authorization; this package implements the rules of hub.md.
package signin

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"

	"companion/cmd/devhub/fault"
)

const (
	accessLife  = 15 * time.Minute
	codeLife    = time.Minute
	refreshLife = 30 * 24 * time.Hour
	// slowTokenDelay is how long the fault slow-token waits.
	slowTokenDelay = 10 * time.Second
	maxBody        = 64 << 10
)

// FixedClient is the client that needs no registration. Its redirect URIs take any port (RFC 8252 7.3).
const FixedClient = "companion-development"

// Options configure the server's state and behaviour.
type Options struct {
	Issuer      string // https, without a slash at its end
	StateFile   string
	UsersFile   string
	AutoApprove string // the user who is signed in without a page; empty: the page asks
	Faults      fault.Set
	// Reused, if not nil, is called when a client presents a spent or revoked refresh token.
	Reused func()
}

// Server handles the endpoints of the authorization server.
type Server struct {
	Options
	store    *store
	users    []User
	provider fosite.OAuth2Provider
	codes    codeSigner
	refresh  refreshSigner
	devices  devices
	secret   []byte // signs the sign-in form
	// tokens lets one token request run at a time: fosite reads and spends a grant in two steps.
	tokens sync.Mutex
}

type refreshSigner interface {
	RefreshTokenSignature(ctx context.Context, token string) string
}

type codeSigner interface {
	AuthorizeCodeSignature(ctx context.Context, code string) string
}

// New opens the state and creates the server.
func New(o Options) (*Server, error) {
	st, err := openStore(o.StateFile, func() []byte {
		secret := make([]byte, 32)
		rand.Read(secret) // never fails (crypto/rand)
		return secret
	})
	if err != nil {
		return nil, err
	}
	users, err := loadUsers(o.UsersFile, o.AutoApprove)
	if err != nil {
		return nil, err
	}
	config := &fosite.Config{
		AccessTokenLifespan:        accessLife,
		AuthorizeCodeLifespan:      codeLife,
		RefreshTokenLifespan:       refreshLife,
		GlobalSecret:               st.data.Secret,
		EnforcePKCE:                true,
		ScopeStrategy:              fosite.ExactScopeStrategy,
		RefreshTokenScopes:         []string{},
		OmitRedirectScopeParam:     true,
		SendDebugMessagesToClients: false,
	}
	strategy := compose.NewOAuth2HMACStrategy(config)
	s := &Server{
		Options: o, store: st, users: users, codes: strategy,
		secret: st.data.Secret, refresh: strategy, devices: devices{all: map[string]*device{}},
	}
	s.provider = compose.Compose(config, st, strategy,
		compose.OAuth2AuthorizeExplicitFactory,
		compose.OAuth2RefreshTokenGrantFactory,
		compose.OAuth2TokenRevocationFactory,
		compose.OAuth2TokenIntrospectionFactory,
		compose.OAuth2PKCEFactory,
		func(fosite.Configurator, any, any) any { return deviceHandler{s, strategy} },
	)
	return s, s.store.putClient(newClient(FixedClient, []string{"http://127.0.0.1/callback", "http://[::1]/callback"}))
}

// Users are the users who can sign in, for the message at the start.
func (s *Server) Users() []User { return s.users }

func newClient(id string, redirects []string) *fosite.DefaultClient {
	return &fosite.DefaultClient{
		ID: id, Public: true, RedirectURIs: redirects, ResponseTypes: []string{"code"},
		GrantTypes: []string{"authorization_code", "refresh_token", deviceGrant},
		Scopes:     []string{scopeRead, scopeWrite},
	}
}

// Metadata handles the metadata endpoint (RFC 8414).
func (s *Server) Metadata(w http.ResponseWriter, _ *http.Request) {
	issuer := s.Issuer
	if s.Faults.Has(fault.WrongIssuer) {
		issuer += "/other"
	}
	methods := []string{"S256"}
	if s.Faults.Has(fault.PlainOnly) {
		methods = []string{"plain"}
	}
	m := map[string]any{
		"issuer":                                         issuer,
		"authorization_endpoint":                         s.Issuer + "/authorize",
		"token_endpoint":                                 s.Issuer + "/token",
		"revocation_endpoint":                            s.Issuer + "/revoke",
		"device_authorization_endpoint":                  s.Issuer + "/device",
		"registration_endpoint":                          s.Issuer + "/register",
		"scopes_supported":                               []string{scopeRead, scopeWrite},
		"response_types_supported":                       []string{"code"},
		"response_modes_supported":                       []string{"query"},
		"grant_types_supported":                          []string{"authorization_code", "refresh_token", deviceGrant},
		"token_endpoint_auth_methods_supported":          []string{"none"},
		"revocation_endpoint_auth_methods_supported":     []string{"none"},
		"code_challenge_methods_supported":               methods,
		"authorization_response_iss_parameter_supported": !s.Faults.Has(fault.QuietISS),
	}
	if s.Faults.Has(fault.NoRegister) {
		delete(m, "registration_endpoint")
	}
	if s.Faults.Has(fault.NoDevice) {
		delete(m, "device_authorization_endpoint")
	}
	if s.Faults.Has(fault.TokenElse) {
		m["token_endpoint"] = "https://elsewhere.invalid/token"
	}
	if s.Faults.Has(fault.Foreign) {
		m["revocation_endpoint"] = "https://elsewhere.invalid/revoke"
	}
	writeJSON(w, http.StatusOK, m)
}

// Token handles the token endpoint (RFC 6749 4.1.3 and 6).
func (s *Server) Token(w http.ResponseWriter, r *http.Request) {
	s.tokens.Lock()
	defer s.tokens.Unlock()
	if s.Faults.Has(fault.SlowToken) {
		select {
		case <-time.After(slowTokenDelay):
		case <-r.Context().Done():
			return
		}
	}
	if s.Faults.Has(fault.TokenMoves) {
		http.Redirect(w, r, "https://127.0.0.1/token", http.StatusTemporaryRedirect)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	s.countReuse(r)
	a := newAnswer()
	s.token(a, r)
	if s.Faults.Has(fault.LostResponse) {
		panic(http.ErrAbortHandler)
	}
	s.sendSpoiled(w, a)
}

// countReuse reports a refresh token that was used before.
func (s *Server) countReuse(r *http.Request) {
	if r.ParseForm() != nil || s.Reused == nil || r.PostForm.Get("grant_type") != "refresh_token" {
		return
	}
	signature := s.refresh.RefreshTokenSignature(r.Context(), r.PostForm.Get("refresh_token"))
	if _, err := s.store.GetRefreshTokenSession(r.Context(), signature, nil); errors.Is(err, fosite.ErrInactiveToken) {
		s.Reused()
	}
}

func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	access, err := s.provider.NewAccessRequest(ctx, r, &fosite.DefaultSession{})
	switch {
	case err != nil:
	case s.Faults.Has(fault.TokenError):
		err = fosite.ErrInvalidGrant
	case repeated(r.PostForm):
		err = fosite.ErrInvalidRequest.WithHint("A parameter is there twice.")
	}
	if err != nil {
		s.provider.WriteAccessError(ctx, w, access, err)
		return
	}
	response, err := s.provider.NewAccessResponse(ctx, access)
	if err != nil {
		s.provider.WriteAccessError(ctx, w, access, err)
		return
	}
	s.provider.WriteAccessResponse(ctx, w, access, response)
}

// Revoke handles revocation (RFC 7009), always with 200: a client can do nothing about an error.
func (s *Server) Revoke(w http.ResponseWriter, r *http.Request) {
	s.tokens.Lock()
	defer s.tokens.Unlock()
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	_ = s.provider.NewRevocationRequest(r.Context(), r)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
}

// Session answers with the user of an access token (hub.md).
func (s *Server) Session(w http.ResponseWriter, r *http.Request) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" || s.Faults.Has(fault.EarlyRevoked) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "invalid_token"})
		return
	}
	use, access, err := s.provider.IntrospectToken(r.Context(), token, fosite.AccessToken, &fosite.DefaultSession{})
	if err == nil && use == fosite.AccessToken { // the requested use is only a hint to fosite
		if u, ok := find(s.users, access.GetSession().GetUsername()); ok {
			writeJSON(w, http.StatusOK, map[string]string{
				"sub": u.Sub, "provider": u.Provider, "id": u.ID, "name": u.Name, "role": u.Role,
			})
			return
		}
	}
	w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "invalid_token"})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func repeated(values map[string][]string) bool {
	for _, v := range values {
		if len(v) > 1 {
			return true
		}
	}
	return false
}
