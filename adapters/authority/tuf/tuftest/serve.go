package tuftest

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"companion/adapters/authority/transport"
)

// Serve serves the repository over TLS until the test ends. It returns the server, the prefix of the metadata's URLs and a
// client that trusts the server.
func Serve(tb testing.TB, r *Repo) (*httptest.Server, string, *http.Client) {
	tb.Helper()
	server := httptest.NewTLSServer(r)
	tb.Cleanup(server.Close)
	ca := filepath.Join(tb.TempDir(), "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}
	r.check(os.WriteFile(ca, pem.EncodeToMemory(block), 0o600))
	client, err := transport.New(ca)
	r.check(err)
	return server, server.URL + "/api/v1/manifest/", client
}
