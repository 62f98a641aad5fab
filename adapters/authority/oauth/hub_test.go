package oauth

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"companion/adapters/authority/transport"
)

// hub is an authorization server with faults that a test sets, for cases that the development hub cannot produce. The tests in
// e2e cover the successful flow with the development hub.
type hub struct {
	t      testing.TB
	server *httptest.Server
	issuer string

	mu       sync.Mutex
	metadata map[string]any
	// answer replaces the response of endpoints, by their last path element.
	answer     map[string]http.HandlerFunc
	requests   []string
	forms      map[string]url.Values
	redirect   string // registered
	challenge  string
	codes      map[string]bool
	registered string
	iss        string // in the redirect; empty: none
}

func newHub(t testing.TB) (*hub, *Client) {
	t.Helper()
	h := &hub{t: t, metadata: goodMetadata(), answer: map[string]http.HandlerFunc{}, forms: map[string]url.Values{}, codes: map[string]bool{}}
	h.server = httptest.NewTLSServer(h)
	t.Cleanup(h.server.Close)
	h.issuer = h.server.URL + "/api/v1/auth/native"
	h.iss = h.issuer
	for k, v := range h.metadata {
		if s, ok := v.(string); ok {
			h.metadata[k] = strings.Replace(s, testIssuer, h.issuer, 1)
		}
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: h.server.Certificate().Raw}
	if err := os.WriteFile(ca, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := transport.New(ca)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{
		Issuer: h.issuer, SessionURL: h.server.URL + "/api/v1/auth/session",
		Scope: "vault:read vault:write", FirstParty: true, HTTP: client, Timeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	return h, c
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	h.requests = append(h.requests, name)
	if f := h.answer[name]; f != nil {
		f(w, r)
		return
	}
	switch name {
	case "oauth-authorization-server":
		_ = json.NewEncoder(w).Encode(h.metadata)
	case "register":
		var reg registration
		_ = json.NewDecoder(r.Body).Decode(&reg)
		h.redirect = reg.RedirectURIs[0]
		h.registered = "client-1"
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprintf(w, `{"client_id":"client-1","redirect_uris":[%q]}`, h.redirect)
	case "authorize":
		q := r.URL.Query()
		h.challenge = q.Get("code_challenge")
		if q.Get("code_challenge_method") != "S256" || q.Get("redirect_uri") != h.redirect || q.Get("scope") == "" || q.Has("nonce") {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		h.codes["code-1"] = true
		back := url.Values{"code": {"code-1"}, "state": {q.Get("state")}}
		if h.iss != "" {
			back.Set("iss", h.iss)
		}
		http.Redirect(w, r, h.redirect+"?"+back.Encode(), http.StatusFound)
	case "token":
		_ = r.ParseForm()
		h.forms["token"] = r.PostForm
		h.token(w, r)
	case "revoke":
		_ = r.ParseForm()
		h.forms["revoke"] = r.PostForm
	case "session":
		if r.Header.Get("Authorization") != "Bearer access-1" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"sub":"s","provider":"dev","id":"1","name":"Ada","role":"member"}`)
	default:
		http.NotFound(w, r)
	}
}

func (h *hub) token(w http.ResponseWriter, r *http.Request) {
	f := r.PostForm
	if f.Get("grant_type") == "refresh_token" {
		_, _ = io.WriteString(w, `{"token_type":"bearer","access_token":"access-2","expires_in":900,"refresh_token":"refresh-2"}`)
		return
	}
	sum := sha256.Sum256([]byte(f.Get("code_verifier")))
	good := h.codes[f.Get("code")] && f.Get("redirect_uri") == h.redirect && f.Get("client_id") == h.registered &&
		base64.RawURLEncoding.EncodeToString(sum[:]) == h.challenge && len(r.URL.RawQuery) == 0
	delete(h.codes, f.Get("code"))
	if !good {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":"invalid_grant","error_description":"<b>free text</b>"}`)
		return
	}
	_, _ = io.WriteString(w, `{"token_type":"Bearer","access_token":"access-1","expires_in":900,"refresh_token":"refresh-1"}`)
}

func (h *hub) count(name string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, r := range h.requests {
		if r == name {
			n++
		}
	}
	return n
}

// browse acts as the browser: it follows redirects and returns the last page.
func (h *hub) browse(target string) (int, http.Header, string) {
	client := h.server.Client()
	resp, err := client.Get(target)
	if err != nil {
		return 0, nil, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	defer client.CloseIdleConnections()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(body)
}
