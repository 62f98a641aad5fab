package signin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/ory/fosite"

	"companion/adapters/privatefs"
)

// store implements fosite's storage: maps in memory, written as one JSON file after every change, so that clients and grants
// survive a restart. A development hub has only a few of each.
type store struct {
	mu   sync.Mutex
	path string
	data stored
}

type stored struct {
	Secret  []byte                           `json:"secret"` // fosite's HMAC key
	Clients map[string]*fosite.DefaultClient `json:"clients"`
	Codes   map[string]*grant                `json:"codes"`
	PKCE    map[string]*grant                `json:"pkce"`
	Access  map[string]*grant                `json:"access"`
	Refresh map[string]*grant                `json:"refresh"`
}

// grant is a fosite request without the parts that can be looked up again. Requests of one family share ID.
type grant struct {
	ID          string                 `json:"id"`
	RequestedAt time.Time              `json:"requestedAt"`
	Client      string                 `json:"client"`
	Requested   []string               `json:"requested"`
	Granted     []string               `json:"granted"`
	Form        url.Values             `json:"form"`
	Session     *fosite.DefaultSession `json:"session"`
	Spent       bool                   `json:"spent"`
}

func openStore(path string, newSecret func() []byte) (*store, error) {
	s := &store{path: path}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the sign-in state: %w", err)
	}
	if err == nil {
		if err := json.Unmarshal(data, &s.data); err != nil {
			return nil, fmt.Errorf("reading the sign-in state: %w", err)
		}
		return s, nil
	}
	s.data = stored{
		Secret: newSecret(), Clients: map[string]*fosite.DefaultClient{}, Codes: map[string]*grant{},
		PKCE: map[string]*grant{}, Access: map[string]*grant{}, Refresh: map[string]*grant{},
	}
	return s, s.saveLocked()
}

// saveLocked drops grants that are no longer needed and writes the rest.
func (s *store) saveLocked() error {
	old := time.Now().Add(-refreshLife)
	for _, table := range []map[string]*grant{s.data.Codes, s.data.PKCE, s.data.Access, s.data.Refresh} {
		for signature, g := range table {
			if g.RequestedAt.Before(old) {
				delete(table, signature)
			}
		}
	}
	data, err := json.Marshal(s.data)
	if err != nil {
		return fmt.Errorf("encoding the sign-in state: %w", err)
	}
	return privatefs.WriteFile(s.path, data)
}

func (s *store) change(f func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	return s.saveLocked()
}

func (s *store) put(table map[string]*grant, signature string, r fosite.Requester) error {
	session, ok := r.GetSession().(*fosite.DefaultSession)
	if !ok {
		return fmt.Errorf("storing a grant: unexpected session %T", r.GetSession())
	}
	clone, _ := session.Clone().(*fosite.DefaultSession)
	return s.change(func() {
		table[signature] = &grant{
			ID: r.GetID(), RequestedAt: r.GetRequestedAt(), Client: r.GetClient().GetID(),
			Requested: r.GetRequestedScopes(), Granted: r.GetGrantedScopes(),
			Form: r.GetRequestForm(), Session: clone,
		}
	})
}

// get returns the request of a grant; spent is the error for a used grant.
func (s *store) get(table map[string]*grant, signature string, spent error) (fosite.Requester, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := table[signature]
	if !ok {
		return nil, fosite.ErrNotFound
	}
	client, ok := s.data.Clients[g.Client]
	if !ok {
		return nil, fosite.ErrNotFound
	}
	session, _ := g.Session.Clone().(*fosite.DefaultSession)
	r := &fosite.Request{
		ID: g.ID, RequestedAt: g.RequestedAt, Client: client, RequestedScope: g.Requested,
		GrantedScope: g.Granted, Form: g.Form, Session: session,
	}
	if g.Spent {
		return r, spent
	}
	return r, nil
}

func (s *store) drop(table map[string]*grant, signature string) error {
	return s.change(func() { delete(table, signature) })
}

// The methods below are fosite's storage interfaces.

func (s *store) GetClient(_ context.Context, id string) (fosite.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.data.Clients[id]
	if !ok {
		return nil, fosite.ErrNotFound
	}
	return c, nil
}

func (s *store) putClient(c *fosite.DefaultClient) error {
	return s.change(func() { s.data.Clients[c.ID] = c })
}

// ClientAssertionJWTValid refuses: every client here is public and presents no JWT.
func (s *store) ClientAssertionJWTValid(context.Context, string) error { return fosite.ErrJTIKnown }

// SetClientAssertionJWT refuses, for the same reason.
func (s *store) SetClientAssertionJWT(context.Context, string, time.Time) error {
	return fosite.ErrJTIKnown
}

func (s *store) CreateAuthorizeCodeSession(_ context.Context, signature string, r fosite.Requester) error {
	return s.put(s.data.Codes, signature, r)
}

func (s *store) GetAuthorizeCodeSession(_ context.Context, signature string, _ fosite.Session) (fosite.Requester, error) {
	return s.get(s.data.Codes, signature, fosite.ErrInvalidatedAuthorizeCode)
}

func (s *store) InvalidateAuthorizeCodeSession(_ context.Context, signature string) error {
	return s.change(func() {
		if g, ok := s.data.Codes[signature]; ok {
			g.Spent = true
		}
	})
}

func (s *store) CreatePKCERequestSession(_ context.Context, signature string, r fosite.Requester) error {
	return s.put(s.data.PKCE, signature, r)
}

func (s *store) GetPKCERequestSession(_ context.Context, signature string, _ fosite.Session) (fosite.Requester, error) {
	return s.get(s.data.PKCE, signature, fosite.ErrNotFound)
}

func (s *store) DeletePKCERequestSession(_ context.Context, signature string) error {
	return s.drop(s.data.PKCE, signature)
}

func (s *store) CreateAccessTokenSession(_ context.Context, signature string, r fosite.Requester) error {
	return s.put(s.data.Access, signature, r)
}

func (s *store) GetAccessTokenSession(_ context.Context, signature string, _ fosite.Session) (fosite.Requester, error) {
	return s.get(s.data.Access, signature, fosite.ErrInactiveToken)
}

func (s *store) DeleteAccessTokenSession(_ context.Context, signature string) error {
	return s.drop(s.data.Access, signature)
}

func (s *store) CreateRefreshTokenSession(_ context.Context, signature, _ string, r fosite.Requester) error {
	return s.put(s.data.Refresh, signature, r)
}

func (s *store) GetRefreshTokenSession(_ context.Context, signature string, _ fosite.Session) (fosite.Requester, error) {
	return s.get(s.data.Refresh, signature, fosite.ErrInactiveToken)
}

func (s *store) DeleteRefreshTokenSession(_ context.Context, signature string) error {
	return s.drop(s.data.Refresh, signature)
}

// RotateRefreshToken spends the family's tokens before the new one is stored. Access tokens stay valid until they expire.
func (s *store) RotateRefreshToken(ctx context.Context, family, _ string) error {
	return s.RevokeRefreshToken(ctx, family)
}

// RevokeRefreshToken spends every refresh token of the family. They are kept, so that a later use is
// recognised as reuse.
func (s *store) RevokeRefreshToken(_ context.Context, family string) error {
	return s.change(func() {
		for _, g := range s.data.Refresh {
			if g.ID == family {
				g.Spent = true
			}
		}
	})
}

// RevokeAccessToken removes every access token of the family.
func (s *store) RevokeAccessToken(_ context.Context, family string) error {
	return s.change(func() {
		for signature, g := range s.data.Access {
			if g.ID == family {
				delete(s.data.Access, signature)
			}
		}
	})
}
