package server

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"companion/cmd/devhub/catalogue"
	"companion/cmd/devhub/fault"
	"companion/cmd/devhub/place"
	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a served hub and a client that trusts it and follows no redirect.
type running struct {
	*testing.T
	place  *place.Place
	client *http.Client
	stop   func()
}

func start(t *testing.T, dir string, o Options) *running {
	t.Helper()
	p, err := place.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	o.Log = zap.NewNop()
	hub, err := New(p, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- hub.Serve(ctx) }()
	r := &running{T: t, place: p, client: client(t, p)}
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		r.client.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serving: %v", err)
		}
	}
	t.Cleanup(r.stop)
	return r
}

func client(t *testing.T, p *place.Place) *http.Client {
	t.Helper()
	data, err := os.ReadFile(p.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(data)
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type answer struct {
	status int
	header http.Header
	body   []byte
	err    error // of reading the body
}

func (r *running) do(req *http.Request, err error) answer {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, body, err}
}

func (r *running) get(target string) answer {
	r.Helper()
	return r.do(http.NewRequest(http.MethodGet, target, nil))
}

func (r *running) post(path string, form url.Values) answer {
	r.Helper()
	req, err := http.NewRequest(http.MethodPost, r.place.Issuer()+path, strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r.do(req, err)
}

func (r *running) register(body string) (answer, string) {
	r.Helper()
	req, err := http.NewRequest(http.MethodPost, r.place.Issuer()+"/register", strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	a := r.do(req, err)
	var reg struct {
		ClientID string `json:"client_id"`
	}
	json.Unmarshal(a.body, &reg)
	return a, reg.ClientID
}

const (
	redirect = "http://127.0.0.1:4444/callback/x"
	verifier = "0123456789-0123456789-0123456789-0123456789"
	state    = "state-state-state"
)

func (r *running) goodClient() string {
	r.Helper()
	a, id := r.register(`{"redirect_uris":["` + redirect + `"],"token_endpoint_auth_method":"none",
		"grant_types":["authorization_code","refresh_token"]}`)
	if a.status != http.StatusCreated || id == "" {
		r.Fatalf("registering: got %d, want 201 with an identifier: %s", a.status, a.body)
	}
	return id
}

func authorization(client string) url.Values {
	challenge := sha256.Sum256([]byte(verifier))
	return url.Values{
		"response_type": {"code"}, "client_id": {client}, "redirect_uri": {redirect}, "state": {state},
		"scope": {"vault:read vault:write"}, "code_challenge_method": {"S256"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])},
	}
}

// authorize returns the parameters of the redirect.
func (r *running) authorize(query url.Values) url.Values {
	r.Helper()
	a := r.get(r.place.Issuer() + "/authorize?" + query.Encode())
	if a.status != http.StatusSeeOther {
		r.Fatalf("authorizing: got %d, want 303: %s", a.status, a.body)
	}
	u, err := url.Parse(a.header.Get("Location"))
	if err != nil {
		r.Fatal(err)
	}
	return u.Query()
}

func exchange(client, code string) url.Values {
	return url.Values{
		"grant_type": {"authorization_code"}, "client_id": {client}, "redirect_uri": {redirect},
		"code": {code}, "code_verifier": {verifier},
	}
}

type tokens struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Type    string `json:"token_type"`
	Expires int    `json:"expires_in"`
	Scope   string `json:"scope"`
	Error   string `json:"error"`
}

func (r *running) token(form url.Values) tokens {
	r.Helper()
	var t tokens
	a := r.post("/token", form)
	if err := json.Unmarshal(a.body, &t); err != nil {
		r.Fatalf("token answer %d %s: %v", a.status, a.body, err)
	}
	return t
}

func (r *running) signIn(client string) tokens {
	r.Helper()
	t := r.token(exchange(client, r.authorize(authorization(client)).Get("code")))
	if t.Access == "" || t.Refresh == "" {
		r.Fatalf("got %+v, want both tokens", t)
	}
	return t
}

func (r *running) whoAmI(token string) (int, map[string]string) {
	r.Helper()
	req, err := http.NewRequest(http.MethodGet, r.place.HubURL()+"/api/v1/auth/session", nil)
	req.Header.Set("Authorization", "Bearer "+token)
	a := r.do(req, err)
	var who map[string]string
	json.Unmarshal(a.body, &who)
	return a.status, who
}

// publishModel publishes a small model and returns its bytes and the URL that the manifest names.
func publishModel(t *testing.T, dir, name string) (content []byte, artifactURL string) {
	t.Helper()
	content = append([]byte("GGUF"), make([]byte, 200_000)...)
	file := filepath.Join(t.TempDir(), "m.gguf")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := place.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := catalogue.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	e, err := c.Publish(t.Context(), http.DefaultClient, catalogue.Publication{Kind: messages.KindModel, Name: name}, file)
	if err != nil {
		t.Fatal(err)
	}
	return content, p.ArtifactURL() + "/artifacts/" + e.SHA256
}

func with(names ...fault.Name) Options {
	return Options{AutoApprove: "ada", Faults: names}
}
