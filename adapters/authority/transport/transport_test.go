package transport

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// O1, O7: the client verifies with the additional root, follows no redirect, and leaves the default client unchanged.
func TestNew(t *testing.T) {
	followed := false
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/next" {
			followed = true
			return
		}
		http.Redirect(w, r, "/next", http.StatusFound)
	}))
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := New(ca)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusFound || followed {
		t.Fatalf("got status %d, redirect followed %v; want %d, false", resp.StatusCode, followed, http.StatusFound)
	}
	if client.Timeout == 0 || http.DefaultClient.Timeout != 0 || http.DefaultTransport == client.Transport {
		t.Fatalf("got time-out %v, default client's %v; want a time-out, 0s, and a transport other than the default", client.Timeout, http.DefaultClient.Timeout)
	}
}

// An unusable certificate file is an error; New returns no client without it.
func TestBadFile(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{empty, filepath.Join(t.TempDir(), "absent.pem")} {
		if _, err := New(file); err == nil {
			t.Errorf("%s: got no error, want one", filepath.Base(file))
		}
	}
}

func TestReadAll(t *testing.T) {
	if data, err := ReadAll(strings.NewReader("12345"), 5); err != nil || string(data) != "12345" {
		t.Fatalf("got %q, %v; want 12345, no error", data, err)
	}
	if _, err := ReadAll(strings.NewReader("123456"), 5); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("got %v, want %v", err, ErrTooLarge)
	}
}
