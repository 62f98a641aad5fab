package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"companion/e2e/harness"
)

// X3: every command of the guide works as it is written, in its order, against the real daemon. The blocks that need a
// program of another project run in e2e/clients.
func TestGuide(t *testing.T) {
	all := harness.Blocks(t, "../docs/guide.md")
	if len(all) < 20 {
		t.Fatalf("got %d blocks in docs/guide.md, want at least 20", len(all))
	}
	c := harness.RealHub(t).Companion("")
	c.Start()
	folder := filepath.Join(c.Home, "work")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	browser := guideBrowser(t, c)
	server, ca := guideFiles(t, folder)
	for _, b := range all {
		if b.Needs != "" {
			continue
		}
		t.Run(fmt.Sprintf("line %d", b.Line), func(t *testing.T) {
			more := []string{"BROWSER=" + browser}
			script := b.Script
			if strings.Contains(script, "https://models.example/") { // the author's server
				script = strings.ReplaceAll(script, "https://models.example/", server+"/")
				more = append(more, "COMPANION_HUB_CA_FILE="+ca, "COMPANION_MANIFEST_PRIVATE_HOSTS=127.0.0.1")
			}
			if r := c.Shell(folder, script, more...); r.Code != 0 {
				t.Errorf("docs/guide.md:%d: got status %d, want 0:\n%s\n%s%s", b.Line, r.Code, b.Script, r.Stdout, r.Stderr)
			}
		})
	}
	for _, made := range []string{"editor.token", "continue.yaml", "webui.env", "hub.toml", "companion.prom", "companion.bash", "man1/companion-status.1"} {
		if info, err := os.Stat(filepath.Join(folder, made)); err != nil || info.Size() == 0 {
			t.Errorf("got no %s after the guide, want it", made)
		}
	}
}

// guideBrowser is the browser of the guide's reader: it opens the page and trusts the hub, which signs in without a
// question.
func guideBrowser(t *testing.T, c *harness.Companion) string {
	t.Helper()
	config, err := os.ReadFile(c.ConfigFile())
	if err != nil {
		t.Fatal(err)
	}
	ca := regexp.MustCompile(`ca_file = "([^"]+)"`).FindSubmatch(config)
	if ca == nil {
		t.Fatalf("got no ca_file, want one in\n%s", config)
	}
	browser := filepath.Join(c.Home, "browser")
	script := fmt.Sprintf("#!/bin/sh\nexec curl -sSL --max-time 20 --cacert '%s' \"$1\" >/dev/null\n", ca[1])
	if err := os.WriteFile(browser, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return browser
}

// guideFiles puts the files that the guide's reader has into the folder, and serves one of them as its author does.
func guideFiles(t *testing.T, folder string) (server, ca string) {
	t.Helper()
	model, err := os.ReadFile(harness.Instructed(t).File)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := os.ReadFile(harness.Parts(t).Runtime.File)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(model)
	for name, data := range map[string][]byte{
		"my-model.gguf": model, "llama-server.tar.gz": archive, "tiny.sha256": []byte(hex.EncodeToString(digest[:]) + "  tiny.gguf\n"),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	author := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join(folder, "my-model.gguf"))
	}))
	t.Cleanup(author.Close)
	return author.URL, harness.CertificateFile(t, author)
}
