package main

import (
	"bytes"
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
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}))
	defer server.Close()
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	digest := sha256.Sum256(body)
	d := addition{app: &app{err: said}, places: config.Places{Data: filepath.Join(dir, "data")}, source: server.URL + "/m.gguf", digest: &digest}
	d.settings.Hub.CAFile, d.settings.Manifest.PrivateHosts = ca, []string{"127.0.0.1"}
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
