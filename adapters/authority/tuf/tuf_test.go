package tuf

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"companion/adapters/authority/tuf/tuftest"
	"companion/messages"
)

// M1, M2, M3: a refresh returns the signed content, and sends the access token to the hub.
func TestRefresh(t *testing.T) {
	f := newFixture(t)
	f.Add(tuftest.Model("small"))
	f.Add(tuftest.Runtime("llama", "linux/amd64"))
	f.Add(tuftest.Runtime("llama", "darwin/arm64"))
	f.Publish()
	cat, err := f.client(t).Refresh(t.Context(), messages.NewSecret("token"))
	if err != nil {
		t.Fatal(err, errors.Unwrap(err))
	}
	if f.LastAuthorization() != "Bearer token" {
		t.Fatalf("Authorization: got %q, want Bearer token", f.LastAuthorization())
	}
	model, reason := cat.Model("")
	if reason != messages.ReasonOK || model.Name != "small" || model.Size != 1000 || model.PrivateHosts[0] != "localhost" {
		t.Fatalf("model: got %+v %s, want small with 1000 bytes, ok", model, reason)
	}
	runtime, reason := cat.Runtime("")
	if reason != messages.ReasonOK || runtime.Executable != "bin/llama-server" || len(runtime.Files) != 1 || runtime.Format != "tar.gz" {
		t.Fatalf("runtime: got %+v %s, want a tar.gz with one file, ok", runtime, reason)
	}
	if cat.Version != 2 || cat.CheckedAt.IsZero() || time.Until(cat.Expires) < time.Hour {
		t.Fatalf("got %+v, want version 2 with its times", cat)
	}
	if loaded := f.load(t, messages.ReasonOK); !reflect.DeepEqual(loaded, cat) {
		t.Fatalf("load: got %+v, want %+v", loaded, cat)
	}
	info, err := os.Stat(f.kept(t, verifiedFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("got mode %v, %v; want 0600", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(f.config.Dir, "*", "refresh-*")); len(left) != 0 {
		t.Fatalf("scratch folders: got %v, want none", left)
	}
}

// M1, T6: each manipulation of the metadata by a hostile server or mirror is refused with its reason.
func TestHostileRepository(t *testing.T) {
	past := time.Now().UTC().Add(-time.Hour).Truncate(time.Second)
	rows := map[string]struct {
		attack func(f *fixture)
		want   messages.Reason
	}{
		"forged timestamp": {func(f *fixture) { f.Forge(metadata.TIMESTAMP); f.Publish() }, messages.ReasonManifestUntrusted},
		"forged snapshot":  {func(f *fixture) { f.Forge(metadata.SNAPSHOT); f.Publish() }, messages.ReasonManifestUntrusted},
		"forged targets":   {func(f *fixture) { f.Forge(metadata.TARGETS); f.Publish() }, messages.ReasonManifestUntrusted},
		"forged root": {func(f *fixture) {
			f.Forge(metadata.ROOT)
			f.Root.Signed.Roles[metadata.ROOT].Threshold = 1
			f.Rekey(metadata.TIMESTAMP)
			f.Publish()
		}, messages.ReasonManifestUntrusted},
		"threshold not met": {func(f *fixture) {
			f.Root.Signed.Roles[metadata.TARGETS].Threshold = 2
			f.Rekey(metadata.TIMESTAMP)
			f.Publish()
		}, messages.ReasonManifestUntrusted},
		"flipped bit": {func(f *fixture) {
			data := []byte(strings.Replace(string(f.Saved()["2.targets.json"]), "small", "smell", 1))
			f.Set("2.targets.json", data)
		}, messages.ReasonManifestUntrusted},
		"html":              {func(f *fixture) { f.Set("timestamp.json", []byte("<html>")) }, messages.ReasonManifestUnreachable},
		"expired timestamp": {func(f *fixture) { f.Timestamp.Signed.Expires = past; f.Publish() }, messages.ReasonManifestExpired},
		"expired snapshot":  {func(f *fixture) { f.Snapshot.Signed.Expires = past; f.Publish() }, messages.ReasonManifestExpired},
		"expired targets":   {func(f *fixture) { f.Targets.Signed.Expires = past; f.Publish() }, messages.ReasonManifestExpired},
		"expired root": {func(f *fixture) {
			f.Root.Signed.Expires = past
			f.Rekey(metadata.TIMESTAMP)
			f.Publish()
		}, messages.ReasonManifestExpired},
		"snapshot missing":    {func(f *fixture) { f.Set("2.snapshot.json", nil) }, messages.ReasonManifestUnreachable},
		"everything missing":  {func(f *fixture) { f.Restore(nil) }, messages.ReasonManifestUnreachable},
		"server broken":       {func(f *fixture) { f.SetFault(status(500)) }, messages.ReasonManifestUnreachable},
		"forbidden":           {func(f *fixture) { f.SetFault(status(403)) }, messages.ReasonManifestUnreachable},
		"wants a token":       {func(f *fixture) { f.SetFault(status(401)) }, messages.ReasonSignInNeeded},
		"redirects elsewhere": {func(f *fixture) { f.SetFault(elsewhere) }, messages.ReasonManifestUntrusted},
		"cuts the connection": {func(f *fixture) { f.SetFault(cut) }, messages.ReasonManifestUnreachable},
		"endless timestamp":   {func(f *fixture) { f.Set("timestamp.json", make([]byte, 1<<20)) }, messages.ReasonManifestUntrusted},
		"endless root":        {func(f *fixture) { f.Set("2.root.json", make([]byte, 1<<20)) }, messages.ReasonManifestUntrusted},
		"nobody there":        {func(f *fixture) { f.server.Close() }, messages.ReasonManifestUnreachable},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.server.Config.ErrorLog = quiet
			f.Add(tuftest.Model("small"))
			f.Publish()
			r.attack(f)
			f.refresh(t, r.want)
			f.load(t, messages.ReasonManifestUnreachable)
		})
	}
}

// M1: the same attacks do not change the stored manifest of a client.
func TestGoodManifestSurvivesAttacks(t *testing.T) {
	f := newFixture(t)
	f.Add(tuftest.Model("small"))
	f.Publish()
	good := f.refresh(t, messages.ReasonOK)
	f.Forge(metadata.TARGETS)
	f.Add(tuftest.Model("evil"))
	f.Publish()
	f.refresh(t, messages.ReasonManifestUntrusted)
	if got := f.load(t, messages.ReasonOK); !reflect.DeepEqual(got, good) {
		t.Fatalf("got %+v, want %+v", got, good)
	}
}

// M1, trap 1: a server that hides newer roots cannot make the client accept revoked keys, and old versions are a rollback even
// for a client that lost the stored manifest.
func TestHiddenRootsAndRollback(t *testing.T) {
	t.Run("hidden roots", func(t *testing.T) {
		f := newFixture(t)
		f.refresh(t, messages.ReasonOK)
		before := f.Saved()
		f.Rekey(metadata.TIMESTAMP)
		f.Publish()
		f.refresh(t, messages.ReasonOK)
		f.Restore(before) // removes root 2 and restores the timestamp of the revoked key
		f.refresh(t, messages.ReasonManifestUntrusted)
	})
	t.Run("root key change", func(t *testing.T) {
		f := newFixture(t)
		f.Rekey(metadata.ROOT)
		f.Rekey(metadata.ROOT)
		f.Rekey(metadata.TARGETS)
		f.Publish()
		f.refresh(t, messages.ReasonOK)
		f.refresh(t, messages.ReasonOK)
		if n := f.Count("2.root.json"); n != 1 {
			t.Fatalf("got %d requests for root 2, want 1", n)
		}
		f.load(t, messages.ReasonOK)
	})
	t.Run("rollback", func(t *testing.T) {
		f := newFixture(t)
		old := f.Saved()
		f.Publish()
		f.refresh(t, messages.ReasonOK)
		f.Restore(old)
		f.refresh(t, messages.ReasonManifestRollback)
		f.load(t, messages.ReasonOK)
	})
	t.Run("rollback after the kept manifest was lost", func(t *testing.T) {
		f := newFixture(t)
		old := f.Saved()
		f.Publish()
		f.refresh(t, messages.ReasonOK)
		if err := os.Remove(f.kept(t, verifiedFile)); err != nil {
			t.Fatal(err)
		}
		f.Restore(old)
		f.refresh(t, messages.ReasonManifestRollback)
		f.load(t, messages.ReasonManifestUnreachable)
	})
	t.Run("roots hidden after the kept manifest was lost", func(t *testing.T) {
		f := newFixture(t)
		old := f.Saved()
		f.Rekey(metadata.TIMESTAMP)
		f.Publish()
		f.refresh(t, messages.ReasonOK)
		if err := os.Remove(f.kept(t, verifiedFile)); err != nil {
			t.Fatal(err)
		}
		f.Restore(old)
		f.refresh(t, messages.ReasonManifestRollback)
	})
}

// M1, trap 2: a truncated or corrupt file is renamed and blocks nothing.
func TestSpoiledFiles(t *testing.T) {
	for _, name := range []string{verifiedFile, floorFile} {
		for how, spoil := range map[string]func([]byte) []byte{
			"empty":     func([]byte) []byte { return nil },
			"truncated": func(b []byte) []byte { return b[:len(b)/2] },
			"zeros":     func(b []byte) []byte { return make([]byte, len(b)) },
			"not ours":  func([]byte) []byte { return []byte(`{"hello":1}`) },
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				f := newFixture(t)
				f.Rekey(metadata.TIMESTAMP)
				f.Publish()
				f.refresh(t, messages.ReasonOK)
				path := f.kept(t, name)
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, spoil(data), 0o600); err != nil {
					t.Fatal(err)
				}
				f.refresh(t, messages.ReasonOK)
				f.load(t, messages.ReasonOK)
				f.kept(t, name+".bad")
			})
		}
	}
	t.Run("a signature changed on disk", func(t *testing.T) {
		f := newFixture(t)
		f.refresh(t, messages.ReasonOK)
		s := f.client(t).store
		m, err := s.load()
		if err != nil {
			t.Fatal(err)
		}
		k := m.kept
		k.Targets = []byte(strings.Replace(string(k.Targets), `"version":1`, `"version":7`, 1))
		if err := s.write(k); err != nil {
			t.Fatal(err)
		}
		f.load(t, messages.ReasonManifestUnreachable)
		f.refresh(t, messages.ReasonOK)
	})
}

// M1, trap 3: unusual but validly signed metadata cannot crash the program.
func TestOddMetadataIsContained(t *testing.T) {
	for name, odd := range map[string]func(f *fixture){
		"timestamp without snapshot": func(f *fixture) { delete(f.Timestamp.Signed.Meta, "snapshot.json") },
		"timestamp with null":        func(f *fixture) { f.Timestamp.Signed.Meta["snapshot.json"] = nil },
		"null target": func(f *fixture) {
			f.Targets.Signed.Targets["model/null"] = nil
			f.Publish()
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.refresh(t, messages.ReasonOK)
			odd(f)
			f.Timestamp.Signed.Version++
			f.SignTimestamp()
			f.refresh(t, messages.ReasonManifestUntrusted)
			f.load(t, messages.ReasonOK)
		})
	}
	err := contain(func() error { panic("odd") })
	if ReasonOf(err) != messages.ReasonManifestUntrusted {
		t.Fatalf("got %v, want %v", err, messages.ReasonManifestUntrusted)
	}
}

// M1, traps 4 and 5: each refresh has its own updater and fetcher, does not change the process's default client, and ends with
// its context.
func TestFetcher(t *testing.T) {
	f := newFixture(t)
	before := *http.DefaultClient
	c := f.client(t)
	for range 3 {
		f.Publish()
		if _, err := c.Refresh(t.Context(), messages.Secret{}); err != nil {
			t.Fatal(err, errors.Unwrap(err))
		}
	}
	if !reflect.DeepEqual(before, *http.DefaultClient) {
		t.Fatalf("default client: got %+v, want %+v", *http.DefaultClient, before)
	}
	release := make(chan struct{})
	f.SetFault(func(http.ResponseWriter, string) bool { <-release; return true })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := c.Refresh(ctx, messages.Secret{})
	close(release)
	if ReasonOf(err) != messages.ReasonManifestUnreachable {
		t.Fatalf("got %v, want %v", err, messages.ReasonManifestUnreachable)
	}
	sent := 0
	count := roundTripper(func(*http.Request) (*http.Response, error) { sent++; return nil, errors.New("counted") })
	fetch := fetcher{ctx: t.Context(), client: &http.Client{Transport: count}, base: c.base, access: messages.NewSecret("token"), roots: map[int64][]byte{}}
	for _, u := range []string{
		"https://evil.example/api/v1/manifest/timestamp.json", strings.Replace(f.config.URL, "https", "http", 1) + "x.json",
		f.server.URL + "/elsewhere.json", "https://" + c.base.Host + "@evil.example/api/v1/manifest/x.json",
	} {
		if _, err := fetch.DownloadFile(u, 10, 0); !errors.Is(err, errFetch) {
			t.Errorf("%s: got %v, want errFetch", u, err)
		}
	}
	if sent != 0 {
		t.Fatalf("got %d requests with the access token to other places, want none", sent)
	}
	if _, err := fetch.DownloadFile(f.config.URL+"timestamp.json", 10, 0); !errors.Is(err, errFetch) || sent != 1 {
		t.Fatalf("the repository: got %v after %d requests, want errFetch after 1", err, sent)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return r(req) }

// M1: the standing of a manifest before expiry, in grace and after it.
func TestStanding(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const grace = 72 * time.Hour
	for name, r := range map[string]struct {
		expires time.Time
		reason  messages.Reason
		grace   bool
	}{
		"fresh":          {now.Add(time.Second), messages.ReasonOK, false},
		"at expiry":      {now, messages.ReasonOK, false},
		"just expired":   {now.Add(-1), messages.ReasonManifestExpired, true},
		"end of grace":   {now.Add(-grace), messages.ReasonManifestExpired, true},
		"after grace":    {now.Add(-grace - 1), messages.ReasonManifestExpired, false},
		"never verified": {time.Time{}, messages.ReasonManifestExpired, false},
	} {
		if reason, inGrace := (Catalogue{Expires: r.expires}).Standing(now, grace); reason != r.reason || inGrace != r.grace {
			t.Errorf("%s: got %s, grace %v; want %s, %v", name, reason, inGrace, r.reason, r.grace)
		}
	}
}

// M1: a verified manifest can be loaded after its expiry; the earliest expiry counts.
func TestExpiredManifestStillLoads(t *testing.T) {
	f := newFixture(t)
	soon := time.Now().UTC().Add(2 * time.Second).Truncate(time.Second)
	f.Timestamp.Signed.Expires = soon
	f.Publish()
	if cat := f.refresh(t, messages.ReasonOK); !cat.Expires.Equal(soon) {
		t.Fatalf("expiry: got %v, want %v", cat.Expires, soon)
	}
	later := soon.Add(time.Hour)
	cat := f.load(t, messages.ReasonOK)
	if reason, inGrace := cat.Standing(later, 72*time.Hour); reason != messages.ReasonManifestExpired || !inGrace {
		t.Fatalf("got %s, grace %v; want manifest_expired, true", reason, inGrace)
	}
}

func TestNewRefuses(t *testing.T) {
	f := newFixture(t)
	for name, change := range map[string]func(*Config){
		"http":           func(c *Config) { c.URL = "http://hub.example/api/v1/manifest/" },
		"no slash":       func(c *Config) { c.URL = "https://hub.example/api/v1/manifest" },
		"userinfo":       func(c *Config) { c.URL = "https://u@hub.example/" },
		"no root":        func(c *Config) { c.Root = nil },
		"truncated root": func(c *Config) { c.Root = c.Root[:len(c.Root)/2] },
		"unsigned root":  func(c *Config) { c.Root = []byte(strings.Replace(string(c.Root), `"version":1`, `"version":2`, 1)) },
		"open folder": func(c *Config) {
			c.Dir = filepath.Join(t.TempDir(), "open")
			if err := os.Mkdir(c.Dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(c.Dir, 0o755); err != nil {
				t.Fatal(err)
			}
		},
	} {
		c := f.config
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
	}
}
