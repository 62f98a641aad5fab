package tuf

import (
	"errors"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"testing"

	"go.uber.org/goleak"

	"companion/adapters/authority/tuf/tuftest"
	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fixture struct {
	*tuftest.Repo
	server *httptest.Server
	config Config
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	repo := tuftest.New(t)
	server, url, client := tuftest.Serve(t, repo)
	return &fixture{repo, server, Config{
		URL: url, Root: repo.PinnedRoot(), Dir: filepath.Join(t.TempDir(), "trust"),
		Platform: "linux/amd64", HTTP: client, PrivateHosts: []string{"localhost"},
	}}
}

// client returns a new client, like a companion that has just started: clients share no memory.
func (f *fixture) client(t *testing.T) *Client {
	t.Helper()
	c, err := New(f.config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (f *fixture) refresh(t *testing.T, want messages.Reason) Catalogue {
	t.Helper()
	cat, err := f.client(t).Refresh(t.Context(), messages.Secret{})
	if got := ReasonOf(err); got != want {
		t.Fatalf("refresh: got %s (%v), want %s", got, errors.Unwrap(err), want)
	}
	if err != nil && !reflect.DeepEqual(cat, Catalogue{}) {
		t.Fatalf("refused manifest: got %+v, want an empty catalogue", cat)
	}
	return cat
}

func (f *fixture) load(t *testing.T, want messages.Reason) Catalogue {
	t.Helper()
	cat, err := f.client(t).Load()
	if got := ReasonOf(err); got != want {
		t.Fatalf("load: got %s (%v), want %s", got, errors.Unwrap(err), want)
	}
	return cat
}

// kept returns the path of the one file of the trust folder with that name.
func (f *fixture) kept(t *testing.T, name string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(f.config.Dir, "*", name))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: got %v, %v; want one file", name, found, err)
	}
	return found[0]
}
