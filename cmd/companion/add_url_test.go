package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"companion/adapters/config"
	"companion/adapters/runtime/store"
)

// M16: two commands never write the same download: the second is refused until the first has ended, and leaves its bytes alone.
func TestOneDownloadOfADigest(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	folder, err := store.ImportDir(data)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, strings.Repeat("ab", 32))
	unlock, err := store.LockImport(file)
	if err != nil || unlock == nil {
		t.Fatalf("the first command: got %t, %v, want the lock", unlock != nil, err)
	}
	if err := os.WriteFile(file, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	digest, err := parseDigest(filepath.Base(file))
	if err != nil {
		t.Fatal(err)
	}
	second := addition{app: &app{}, places: config.Places{Data: data}, source: "https://127.0.0.1:1/m.gguf", digest: digest}
	var refused *failure
	if err := second.download(t.Context()); !errors.As(err, &refused) || !strings.Contains(refused.message, "another command downloads") || refused.hint == "" {
		t.Errorf("the second command: got %v, want a refusal that names the other command, with a hint", err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "half" {
		t.Errorf("the download: got %q, %v, want it unchanged", got, err)
	}
	unlock()
	if again, err := store.LockImport(file); err != nil || again == nil {
		t.Errorf("after the first command: got %t, %v, want the lock", again != nil, err)
	} else {
		again()
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) != 1 {
		t.Errorf("got %v, %v, want only the download", left, err)
	}
}

// M16: a command has the lock of its download until the file is in the store, which comes after the download.
func TestLockOutlastsDownload(t *testing.T) {
	body := header("llama", nil)
	d := additionFrom(t, body, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	})
	if err := d.download(t.Context()); err != nil {
		t.Fatalf("the download: got %v, want no error", err)
	}
	if again, err := store.LockImport(d.file); err != nil || again != nil {
		t.Errorf("after the download: got %t, %v, want the lock still taken", again != nil, err)
	}
	d.unlock()
	if again, err := store.LockImport(d.file); err != nil || again == nil {
		t.Errorf("after the command: got %t, %v, want the lock", again != nil, err)
	} else {
		again()
	}
}

// additionFrom is the addition of a URL whose server answers with serve.
func additionFrom(t *testing.T, body []byte, serve http.HandlerFunc) *addition {
	t.Helper()
	server := httptest.NewTLSServer(serve)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = said.Close() })
	digest := sha256.Sum256(body)
	d := &addition{app: &app{err: said}, places: config.Places{Data: filepath.Join(dir, "data")}, source: server.URL + "/m.gguf", digest: &digest, unlock: func() {}}
	d.settings.Hub.CAFile, d.settings.Manifest.PrivateHosts = ca, []string{"127.0.0.1"}
	return d
}

// J4, M16: a URL with a query, which may be a secret, is used and not stored, and no message has the query. The same holds for a
// user name.
func TestURLSecrets(t *testing.T) {
	const secret = "s3cr3t"
	body := header("llama", nil)
	asked := ""
	d := additionFrom(t, body, func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.RawQuery
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	})
	plain := d.source
	d.source += "?X-Amz-Signature=" + secret
	if err := d.download(t.Context()); err != nil || asked != "X-Amz-Signature="+secret {
		t.Fatalf("got the query %q, %v, want it sent", asked, err)
	}
	d.unlock()
	if len(d.urls) != 0 || len(d.origins) != 0 {
		t.Errorf("got %v, %v, want no URL to store", d.urls, d.origins)
	}
	said, err := os.ReadFile(d.app.err.Name())
	if err != nil || strings.Contains(string(said), secret) || !strings.Contains(string(said), "not stored") {
		t.Errorf("got %q, %v, want that the URL is not stored, without the query", said, err)
	}
	bare := additionFrom(t, body, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	})
	if err := bare.download(t.Context()); err != nil || len(bare.urls) != 1 {
		t.Errorf("without a query: got %v, %v, want the URL stored", bare.urls, err)
	}
	bare.unlock()
	gone := additionFrom(t, body, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	for _, source := range []string{
		gone.source + "?token=" + secret, "http://models.example/m.gguf?token=" + secret, "ftp://me:" + secret + "@models.example/m.gguf",
		strings.Replace(plain, "https://", "https://me:"+secret+"@", 1), plain + "#" + secret, "https://models.example/%zz?" + secret,
	} {
		gone.source = source
		err := gone.download(t.Context())
		gone.unlock()
		var refused *failure
		if !errors.As(err, &refused) || strings.Contains(refused.message+refused.hint, secret) {
			t.Errorf("%s: got %v, want a failure without the secret", source, err)
		}
	}
}

// M15, M16: a download that would pass disk.budget is refused before its first byte where the server announces the length, and
// else at the budget, with the numbers.
func TestDownloadBudget(t *testing.T) {
	body := bytes.Repeat([]byte("GGUF"), 50_000)
	for name, serve := range map[string]http.HandlerFunc{
		"announced": func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
		},
		"not announced": func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush() //nolint:errcheck // the test server's is one
			_, _ = w.Write(body)
		},
	} {
		d := additionFrom(t, body, serve)
		d.settings.Disk.Budget = 150_000
		var refused *failure
		if err := d.download(t.Context()); !errors.As(err, &refused) || refused.code != "over_budget" || !strings.Contains(refused.message, "disk.budget is 146 KiB") || refused.hint == "" {
			t.Errorf("%s: got %v, want over_budget with the numbers and a hint", name, err)
		}
		d.unlock()
		used, err := store.Usage(d.places.Data)
		if err != nil || used > 150_000 || name == "announced" && used != 0 {
			t.Errorf("%s: got %d bytes, %v, want at most the budget", name, used, err)
		}
		d.settings.Disk.Budget = 200_000
		if err := d.download(t.Context()); err != nil {
			t.Errorf("%s, within the budget: got %v, want no error", name, err)
		}
		d.unlock()
	}
}

// M15: with disk.budget an addition waits for the one before it, until Ctrl-C.
func TestAddsTakeTurns(t *testing.T) {
	d := additionFrom(t, nil, http.NotFound)
	d.settings.Disk.Budget = 1
	unlock, err := d.lockBudget(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	if _, err := d.lockBudget(ctx); !errors.Is(err, stopped) {
		t.Errorf("while another adds: got %v, want it to wait until it is stopped", err)
	}
	unlock()
	if unlock, err = d.lockBudget(ctx); err != nil {
		t.Fatalf("after the other: got %v, want the turn", err)
	}
	unlock()
	d.settings.Disk.Budget = 0
	if unlock, err = d.lockBudget(ctx); err != nil {
		t.Fatalf("without a budget: got %v, want no wait", err)
	}
	unlock()
}
