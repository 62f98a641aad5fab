package supply

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"companion/e2e/harness"
	"companion/messages"
)

// copied copies a fixture into the user's home, because `add` makes a linked file read-only.
func copied(t *testing.T, c *harness.Companion, file, name string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.Home, name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// M16: a person with a model, a llama.cpp archive and no hub has an answer after three commands, without a configuration of a
// hub, a sign-in or a network. status says that both are the user's own.
func TestOwnCatalogue(t *testing.T) {
	c := harness.Alone(t, "")
	model := copied(t, c, harness.Instructed(t).File, "smol.gguf")
	c.Must("add", harness.Parts(t).Runtime.File, "--name", "llama")
	c.Must("add", model)
	c.Start()
	status := c.Available()
	if status.Model.Name != "smol" || !status.Model.Yours || status.Runtime.Name != "llama" || !status.Runtime.Yours || !status.Runtime.Pinned {
		t.Errorf("got the model %+v and the runtime %+v, want smol and llama, yours and pinned", status.Model, status.Runtime)
	}
	if status.Session.State != messages.SessionNoHub || status.Manifest.Added != 2 || status.Manifest.Version != 0 {
		t.Errorf("got the session %+v and the manifest %+v, want no hub and two additions", status.Session, status.Manifest)
	}
	if answer := c.Must("chat", "--max-tokens", "40", "--temperature", "0", "Name three planets."); !strings.Contains(answer, "Mars") {
		t.Errorf("got the answer %q, want Mars among the planets", answer)
	}
	if text := c.Must("status"); !strings.Contains(text, "verified, yours") || !strings.Contains(text, "no hub") || strings.Contains(text, "login") {
		t.Errorf("got the status %s\nwant it to say yours and no hub, and no login", text)
	}
	if log := c.Log(); strings.Contains(log, "reauth") || strings.Contains(log, "manifest not refreshed") {
		t.Error("the log speaks of a sign-in or a refresh without a hub")
	}
	for _, command := range []string{"login", "whoami"} {
		if r := c.Run(command); r.Code != 5 || !strings.Contains(r.Stderr, "no hub is configured") {
			t.Errorf("%s: got exit %d, %s, want 5 and no hub", command, r.Code, r.Stderr)
		}
	}

	// The bytes are not there twice.
	if links, err := os.ReadDir(filepath.Join(c.Data(), "links")); err != nil || len(links) == 0 {
		t.Logf("no hard link (%v): the file system shares blocks, or the folders are on two of them", err)
	}
	// After a restart the same pair serves, and an unknown hub is not asked.
	c.Stop()
	c.Start()
	if status := c.Available(); status.Model.Name != "smol" {
		t.Errorf("after a restart: got %+v, want smol", status.Model)
	}
	// Removing what is served ends it, and its bytes in the data folder; the user's own file stays.
	c.Must("remove", "smol")
	c.Await("ended", 30*time.Second, func(s messages.Status) bool { return !s.CompanionAvailable && s.Runtime.PID == 0 })
	if r := c.Run("status"); !strings.Contains(r.Stdout, "companion add") {
		t.Errorf("got the status %s, want it to name the next command", r.Stdout)
	}
	if _, err := os.Stat(model); err != nil {
		t.Errorf("got %v, want the user's own file kept", err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for left := []string{"?"}; len(left) > 0; time.Sleep(100 * time.Millisecond) {
		left = nil
		for _, sub := range []string{"models", "links"} {
			found, _ := filepath.Glob(filepath.Join(c.Data(), sub, "*.gguf"))
			left = append(left, found...)
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %v, want the bytes removed", left)
		}
	}
	// And it can be added again while the daemon runs.
	c.Must("add", model)
	c.Available()
}

// M16, M13, M12: a second model becomes the served one when it is ready. If it never is, the first serves on, also after a
// restart.
func TestOwnUpgrade(t *testing.T) {
	c := harness.Alone(t, "")
	c.Must("add", harness.Parts(t).Runtime.File)
	c.Must("add", copied(t, c, harness.Instructed(t).File, "smol.gguf"))
	c.Start()
	c.Available()
	bad := filepath.Join(c.Home, "bad.gguf")
	whole, err := os.ReadFile(harness.Instructed(t).File)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bad, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	c.Must("add", bad, "--default")
	c.Await("trying and going back", time.Minute, func(s messages.Status) bool { return s.Runtime.Restarts > 0 })
	if status := c.Available(); status.Model.Name != "smol" {
		t.Errorf("after a model that does not load: got %+v, want smol", status.Model)
	}
	c.Stop()
	c.Start()
	if status := c.Available(); status.Model.Name != "smol" {
		t.Errorf("after a restart: got %+v, want smol", status.Model)
	}
	c.Must("add", copied(t, c, harness.Parts(t).Model.File, "gemma.gguf"), "--default")
	watch := c.Watch()
	defer watch.Close()
	watch.Await("serving the second model", harness.AvailableWithin, func(s messages.Status) bool {
		return s.CompanionAvailable && s.Model.Name == "gemma"
	})
}

// M16, T6, T17: what was changed after it was added does not run: the linked file, the catalogue, and an archive.
func TestOwnChanged(t *testing.T) {
	c := harness.Alone(t, "")
	model := copied(t, c, harness.Instructed(t).File, "smol.gguf")
	c.Must("add", harness.Parts(t).Runtime.File)
	c.Must("add", model)
	c.Start()
	c.Available()
	c.Stop()
	stored, _ := filepath.Glob(filepath.Join(c.Data(), "*", "*.gguf"))
	if len(stored) != 1 {
		t.Fatalf("got %v, want one model", stored)
	}
	flip(t, stored[0])
	c.Start()
	status := c.Await("refusing", 30*time.Second, func(s messages.Status) bool {
		return s.Reason == messages.ReasonDigestMismatch || s.Reason == messages.ReasonFileMissing
	})
	if status.Facts.Verified || status.CompanionAvailable {
		t.Errorf("got %+v, want nothing verified", status.Facts)
	}
	c.Stop()

	catalogue := filepath.Join(c.Data(), "trust", "own", "catalogue.json")
	flip(t, catalogue)
	c.Start()
	status = c.Await("refusing the catalogue", 30*time.Second, func(s messages.Status) bool { return s.Manifest.AddedReason != "" })
	if status.Manifest.AddedReason != messages.ReasonManifestUntrusted || status.Manifest.Added != 0 {
		t.Errorf("got %+v, want manifest_untrusted and nothing added", status.Manifest)
	}
}

// flip changes one byte in the middle of a file, as a program of the user can.
func flip(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// M16, M4: a URL is fetched with the digest that the user gives, over redirects to other hosts and across an interruption. Other
// bytes are refused, and so is a private address that the configuration does not name.
func TestAddURL(t *testing.T) {
	file, err := os.ReadFile(harness.Instructed(t).File)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(file)
	var cuts atomic.Int32
	cuts.Store(1)
	second := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"one"`)
		if cuts.Add(-1) >= 0 {
			w.Header().Set("Content-Length", fmt.Sprint(len(file)))
			_, _ = w.Write(file[:len(file)/2])
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(file)))
	}))
	defer second.Close()
	server := httptest.NewTLSServer(http.RedirectHandler(second.URL+"/second/smol.gguf", http.StatusFound))
	defer server.Close()
	c := harness.Alone(t, "")
	ca := harness.CertificateFile(t, server)
	url := server.URL + "/first/smol.gguf"
	add := func(digest string) harness.Result {
		return c.Run("add", url, "--sha256", digest, "--set", "hub.ca_file="+ca)
	}
	right := hex.EncodeToString(digest[:])
	if r := add(right); r.Code == 0 || !strings.Contains(r.Stderr, "address_not_allowed") {
		t.Errorf("a private address: got exit %d, %s, want address_not_allowed", r.Code, r.Stderr)
	}
	c.Extra = append(c.Extra, "COMPANION_MANIFEST_PRIVATE_HOSTS=127.0.0.1")
	if r := add(strings.Repeat("ab", 32)); r.Code != 6 || !strings.Contains(r.Stderr, "digest_mismatch") {
		t.Errorf("another digest: got exit %d, %s, want 6", r.Code, r.Stderr)
	}
	cuts.Store(1)
	if r := add(right); r.Code != 0 || !strings.Contains(r.Stdout, "downloaded") {
		t.Fatalf("got exit %d, %s%s, want it downloaded", r.Code, r.Stdout, r.Stderr)
	}
	if left, err := os.ReadDir(filepath.Join(c.Data(), "adding")); err != nil || len(left) != 0 {
		t.Errorf("got %v, %v, want no remains", left, err)
	}
	c.Must("add", harness.Parts(t).Runtime.File)
	c.Start()
	if status := c.Available(); status.Model.Name != "smol" || !status.Model.Yours {
		t.Errorf("got %+v, want smol", status.Model)
	}
}
