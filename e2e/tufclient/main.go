// Command tufclient is the client under test of the TUF community's conformance suite (theupdateframework/tuf-conformance): it
// makes the suite's commands init and refresh of the client in adapters/authority/tuf, and leaves what that trusts under the
// suite's file names. There is no download: companion reads the top-level targets only, and fetches files by the custom data
// of its own format. `task test-tuf` runs the suite.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"companion/adapters/authority/tuf"
	"companion/messages"
)

func main() {
	dir := flag.String("metadata-dir", "", "where trusted metadata is kept")
	base := flag.String("metadata-url", "", "of the repository")
	flag.Parse()
	err := fmt.Errorf("%q is not a command of this client", flag.Args())
	switch {
	case flag.NArg() == 2 && flag.Arg(0) == "init":
		err = begin(*dir, flag.Arg(1))
	case flag.NArg() == 1 && flag.Arg(0) == "refresh":
		err = refresh(*dir, *base)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tufclient:", err)
		os.Exit(1)
	}
}

// own is the folder of the client in the suite's folder, which may hold files of the suite's names only.
func own(dir string) string { return filepath.Join(filepath.Dir(dir), "client") }

func begin(dir, root string) error {
	data, err := os.ReadFile(root)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(own(dir), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(own(dir), "pinned.json"), data, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "root.json"), data, 0o600)
}

func refresh(dir, base string) error {
	pinned, err := os.ReadFile(filepath.Join(own(dir), "pinned.json"))
	if err != nil {
		return err
	}
	at, err := url.Parse(strings.TrimSuffix(base, "/") + "/")
	if err != nil {
		return err
	}
	at.Scheme = "https" // the client accepts nothing else; plain makes it what the suite serves
	client, err := tuf.New(tuf.Config{
		URL: at.String(), Root: pinned, Dir: own(dir), Platform: "linux/amd64", HTTP: &http.Client{Transport: plain{}, Timeout: time.Minute},
	})
	if err != nil {
		return err
	}
	_, refused := client.Refresh(context.Background(), messages.Secret{})
	if err := export(dir); err != nil {
		return err
	}
	return refused
}

// plain sends every request without TLS.
type plain struct{}

func (plain) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme = "http"
	return http.DefaultTransport.RoundTrip(r)
}

// export writes what the client trusts under the suite's names.
func export(dir string) error {
	found, err := filepath.Glob(filepath.Join(own(dir), "*", "verified.json"))
	if err != nil || len(found) == 0 {
		return err // nothing newer than the pinned root
	}
	data, err := os.ReadFile(found[0])
	if err != nil {
		return err
	}
	var kept struct {
		Roots                        [][]byte
		Timestamp, Snapshot, Targets []byte
	}
	if err := json.Unmarshal(data, &kept, json.MatchCaseInsensitiveNames(true)); err != nil {
		return fmt.Errorf("reading what the client keeps: %w", err)
	}
	files := map[string][]byte{"timestamp": kept.Timestamp, "snapshot": kept.Snapshot, "targets": kept.Targets}
	if n := len(kept.Roots); n > 0 {
		files["root"] = kept.Roots[n-1]
	}
	for role, content := range files {
		if len(content) == 0 {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, role+".json"), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
