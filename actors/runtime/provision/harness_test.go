//go:build unix

package provision

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"companion/actors/actorkit"
	"companion/adapters/runtime/archive"
	"companion/adapters/runtime/download"
	"companion/adapters/runtime/store"
	"companion/messages"
)

var modelBytes = bytes.Repeat([]byte("weights "), 40_000)

// host is a real TLS server of artifacts with faults that a test sets.
type host struct {
	*httptest.Server
	mu       sync.Mutex
	requests map[string]int
	ranges   []string
	files    map[string][]byte
	fault    http.HandlerFunc // handles a request instead of the default handler
}

func newHost(t *testing.T) *host {
	h := &host{requests: map[string]int{}, files: map[string][]byte{}}
	h.Server = httptest.NewUnstartedServer(h)
	h.Config.ErrorLog = log.New(io.Discard, "", 0)
	h.StartTLS()
	t.Cleanup(h.Close)
	return h
}

func (h *host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.requests[r.URL.Path]++
	h.ranges = append(h.ranges, r.Header.Get("Range"))
	fault := h.fault
	h.mu.Unlock()
	if fault != nil {
		fault(w, r)
		return
	}
	h.serve(w, r)
}

func (h *host) serve(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	data, ok := h.files[r.URL.Path]
	h.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(data)))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

func (h *host) asked(path string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.requests[path]
}

// times handles the first n requests for path with fault.
func (h *host) times(n int, path string, fault http.HandlerFunc) {
	h.fault = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == path && h.asked(path) <= n {
			fault(w, r)
			return
		}
		h.serve(w, r)
	}
}

func (h *host) model(name string, data []byte) messages.Artifact {
	h.files["/m/"+name] = data
	return messages.Artifact{
		Name: name, Version: "1", Kind: messages.KindModel, URLs: []string{h.URL + "/m/" + name}, Origins: []string{h.URL + "/m/"},
		PrivateHosts: []string{"127.0.0.1"}, SHA256: sha256.Sum256(data), Size: int64(len(data)),
	}
}

func (h *host) runtime(t *testing.T) messages.Artifact {
	data, files := packed(t)
	h.files["/r/r"] = data
	return messages.Artifact{
		Name: "r", Version: "2", Kind: messages.KindRuntime, URLs: []string{h.URL + "/r/r"}, Origins: []string{h.URL + "/r/"},
		PrivateHosts: []string{"127.0.0.1"}, SHA256: sha256.Sum256(data), Size: int64(len(data)), Format: "tar.gz", Executable: "llama-server", Files: files,
	}
}

func packed(t *testing.T) ([]byte, []messages.ArchiveFile) {
	t.Helper()
	var out bytes.Buffer
	gz := gzip.NewWriter(&out)
	w := tar.NewWriter(gz)
	body := "program"
	must(t, w.WriteHeader(&tar.Header{Name: "llama-server", Typeflag: tar.TypeReg, Size: int64(len(body)), Mode: 0o755}))
	_, err := io.WriteString(w, body)
	must(t, err, w.Close(), gz.Close())
	return out.Bytes(), []messages.ArchiveFile{{Path: "llama-server", SHA256: sha256.Sum256([]byte(body)), Size: int64(len(body)), Executable: true}}
}

// harness runs the actor with the mailboxes of a test.
type harness struct {
	t         *testing.T
	dir       string
	deps      Deps
	inbox     chan messages.ToProvision
	lifecycle chan messages.ToLifecycle
	logs      *observer.ObservedLogs
	stop      func()
}

func newHarness(t *testing.T, d Downloader) *harness {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	s, err := store.Open(dir)
	must(t, err)
	core, logs := observer.New(zapcore.DebugLevel)
	h := &harness{t: t, dir: dir, inbox: make(chan messages.ToProvision, 4), lifecycle: make(chan messages.ToLifecycle, 4), logs: logs}
	h.deps = Deps{
		Inbox: h.inbox, Lifecycle: h.lifecycle, Transfers: actorkit.NewWatch([]messages.Transfer{}), Store: s, Download: d, Log: zap.New(core),
	}
	t.Cleanup(func() {
		unpacked, _ := filepath.Glob(filepath.Join(dir, "runtimes", "*"))
		for _, u := range unpacked {
			must(t, archive.Remove(u))
		}
		h.quiet(dir)
	})
	return h
}

// quiet fails if the log contains a URL, a digest or a path. The only address allowed in it is the host of a mirror that was
// excluded.
func (h *harness) quiet(dir string) {
	for _, e := range h.logs.All() {
		fields := e.ContextMap()
		delete(fields, "mirror")
		text := fmt.Sprint(e.Message, fields)
		digest := sha256.Sum256(modelBytes)
		for _, secret := range []string{"https://", "127.0.0.1", dir, hex.EncodeToString(digest[:])} {
			if strings.Contains(text, secret) {
				h.t.Errorf("got %q in the log, want it absent: %s", secret, text)
			}
		}
	}
}

func (h *harness) start() {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- New(h.deps).Serve(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			h.t.Errorf("Serve: got %v, want %v", err, context.Canceled)
		}
	})
	h.t.Cleanup(h.stop)
	if got := h.next(); got != (messages.ActorStarted{Actor: messages.ActorProvision}) {
		h.t.Fatalf("first message: got %#v, want ActorStarted", got)
	}
}

func (h *harness) next() messages.ToLifecycle {
	h.t.Helper()
	select {
	case m := <-h.lifecycle:
		return m
	case <-time.After(20 * time.Second):
		h.t.Fatal("lifecycle: got no message, want one")
		return nil
	}
}

func (h *harness) verified() messages.ArtifactsVerified {
	h.t.Helper()
	m := h.next()
	v, ok := m.(messages.ArtifactsVerified)
	if !ok {
		h.t.Fatalf("lifecycle: got %#v, want ArtifactsVerified", m)
	}
	return v
}

func (h *harness) lost(want messages.IntegrityLost) {
	h.t.Helper()
	if got := h.next(); got != want {
		h.t.Fatalf("lifecycle: got %#v, want %#v", got, want)
	}
}

// loss returns the IntegrityLost for a.
func loss(a messages.Artifact, reason messages.Reason) messages.IntegrityLost {
	return messages.IntegrityLost{Artifact: a.Name, SHA256: a.SHA256, Reason: reason}
}

func (h *harness) client(server *host) *download.Client {
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return download.New(roots, 5*time.Second)
}

func fetchHarness(t *testing.T) (*host, *harness) {
	server := newHost(t)
	h := newHarness(t, nil)
	h.deps.Download = h.client(server)
	return server, h
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
