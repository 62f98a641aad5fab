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
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"companion/actors/mailbox"
	"companion/adapters/runtime/archive"
	"companion/adapters/runtime/download"
	"companion/adapters/runtime/store"
	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var modelBytes = bytes.Repeat([]byte("weights "), 40_000)

// host is a real TLS server of artifacts that can be told to misbehave.
type host struct {
	*httptest.Server
	mu       sync.Mutex
	requests map[string]int
	ranges   []string
	files    map[string][]byte
	fault    http.HandlerFunc // handles a request instead, if it says so by not calling the default
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
	data, ok := h.files[r.URL.Path]
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

// times makes the first n requests for path go wrong.
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

// house runs the actor with mailboxes that a test holds.
type house struct {
	t         *testing.T
	deps      Deps
	inbox     chan messages.ToProvision
	lifecycle chan messages.ToLifecycle
	logs      *observer.ObservedLogs
	stop      func()
}

func newHouse(t *testing.T, d Downloader) *house {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	s, err := store.Open(dir)
	must(t, err)
	core, logs := observer.New(zapcore.DebugLevel)
	h := &house{t: t, inbox: make(chan messages.ToProvision, 4), lifecycle: make(chan messages.ToLifecycle, 4), logs: logs}
	h.deps = Deps{
		Inbox: h.inbox, Lifecycle: h.lifecycle, Transfers: mailbox.NewWatch([]messages.Transfer{}), Store: s, Download: d, Log: zap.New(core),
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

// quiet fails when the log tells a URL, a digest or a path.
func (h *house) quiet(dir string) {
	for _, e := range h.logs.All() {
		text := fmt.Sprint(e.Message, e.ContextMap())
		digest := sha256.Sum256(modelBytes)
		for _, secret := range []string{"https://", "127.0.0.1", dir, hex.EncodeToString(digest[:])} {
			if strings.Contains(text, secret) {
				h.t.Errorf("the log tells %q: %s", secret, text)
			}
		}
	}
}

func (h *house) start() {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- New(h.deps).Serve(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			h.t.Errorf("Serve = %v", err)
		}
	})
	h.t.Cleanup(h.stop)
	if got := h.next(); got != (messages.ActorStarted{Actor: messages.ActorProvision}) {
		h.t.Fatalf("the first word is %#v", got)
	}
}

func (h *house) next() messages.ToLifecycle {
	h.t.Helper()
	select {
	case m := <-h.lifecycle:
		return m
	case <-time.After(20 * time.Second):
		h.t.Fatal("lifecycle was told nothing")
		return nil
	}
}

func (h *house) verified() messages.ArtifactsVerified {
	h.t.Helper()
	m := h.next()
	v, ok := m.(messages.ArtifactsVerified)
	if !ok {
		h.t.Fatalf("lifecycle was told %#v", m)
	}
	return v
}

func (h *house) lost(want messages.IntegrityLost) {
	h.t.Helper()
	if got := h.next(); got != want {
		h.t.Fatalf("lifecycle was told %#v, want %#v", got, want)
	}
}

func (h *house) client(server *host) *download.Client {
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return download.New(roots, 5*time.Second)
}

func fetchHouse(t *testing.T) (*host, *house) {
	server := newHost(t)
	h := newHouse(t, nil)
	h.deps.Download = h.client(server)
	return server, h
}

// M4–M7, M12: both are fetched, verified, and told; the next start needs no server.
func TestWant(t *testing.T) {
	server, h := fetchHouse(t)
	want := messages.Want{Model: server.model("g", modelBytes), Runtime: server.runtime(t), MayFetch: true}
	h.start()
	h.inbox <- want
	v := h.verified()
	data, err := os.ReadFile(v.Model.Path)
	must(t, err)
	if !bytes.Equal(data, modelBytes) || v.Model.Name != "g" || v.Model.SHA256 != want.Model.SHA256 || !v.Runtime.Pinned {
		t.Fatalf("told %+v", v)
	}
	if _, err := os.Stat(filepath.Join(v.Runtime.Dir, v.Runtime.Executable)); err != nil {
		t.Fatal(err)
	}
	h.stop()
	server.Close()
	h.start()
	want.MayFetch = false
	h.inbox <- want
	if again := h.verified(); again.Model != v.Model {
		t.Fatalf("told %+v, want %+v", again, v)
	}
	h.inbox <- messages.ConfirmProvision{} // A9
	h.verified()
}

// M6, M8, T6: each kind of bad answer, what lifecycle is told, and how often the server was asked.
func TestBadAnswers(t *testing.T) {
	flipped := bytes.Clone(modelBytes)
	flipped[1000] ^= 1
	send := func(data []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) }
	}
	status := func(n int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(n) }
	}
	for name, c := range map[string]struct {
		fault  http.HandlerFunc
		want   messages.Reason
		maxAsk int
	}{
		"flipped":   {send(flipped), messages.ReasonDigestMismatch, 1},
		"truncated": {send(modelBytes[:5000]), messages.ReasonSizeMismatch, 1},
		"extended":  {send(append(bytes.Clone(modelBytes), 'x')), messages.ReasonSizeMismatch, 1},
		"redirect elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://models.example.evil.net/m/g", http.StatusFound)
		}, messages.ReasonSourceNotAllowed, 1},
		"redirect to clear text": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+r.Host+"/m/g", http.StatusFound)
		}, messages.ReasonHTTPSRequired, 1},
		"gone":      {status(404), messages.ReasonBadStatus, 1},
		"forbidden": {status(403), messages.ReasonBadStatus, 1},
	} {
		t.Run(name, func(t *testing.T) {
			server, h := fetchHouse(t)
			want := messages.Want{Model: server.model("g", modelBytes), Runtime: server.runtime(t), MayFetch: true}
			server.times(1000, "/m/g", c.fault)
			h.start()
			h.inbox <- want
			h.lost(messages.IntegrityLost{Artifact: "g", Reason: c.want})
			if n := server.asked("/m/g"); n > c.maxAsk {
				t.Errorf("asked %d times", n)
			}
			reply := make(chan []messages.HeldArtifact, 1)
			h.inbox <- messages.Held{Artifacts: []messages.Artifact{want.Model}, Reply: reply}
			if got := (<-reply)[0]; got.Here || got.Verified || got.PartialBytes != 0 {
				t.Errorf("held %+v", got)
			}
		})
	}
}

// M8: what a retry repairs, and how it goes on.
func TestRepaired(t *testing.T) {
	cut := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(modelBytes)))
		w.Header().Set("Content-Length", strconv.Itoa(len(modelBytes)))
		_, _ = w.Write(modelBytes[:100_000])
		panic(http.ErrAbortHandler)
	}
	changed := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"older"`)
		w.Header().Set("Content-Length", strconv.Itoa(len(modelBytes)))
		_, _ = w.Write(bytes.Repeat([]byte("x"), 100_000))
		panic(http.ErrAbortHandler)
	}
	busy := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }
	for name, c := range map[string]struct {
		fault   http.HandlerFunc
		resumes bool
	}{"cut": {cut, true}, "object changed": {changed, true}, "busy": {busy, false}} {
		t.Run(name, func(t *testing.T) {
			server, h := fetchHouse(t)
			server.times(1, "/m/g", c.fault)
			h.start()
			h.inbox <- messages.Want{Model: server.model("g", modelBytes), Runtime: server.runtime(t), MayFetch: true}
			h.verified()
			if n := server.asked("/m/g"); n != 2 {
				t.Errorf("asked %d times, want 2", n)
			}
			ranged := false
			for _, r := range server.ranges {
				ranged = ranged || strings.HasPrefix(r, "bytes=")
			}
			if ranged != c.resumes {
				t.Errorf("ranges asked for: %q", server.ranges)
			}
		})
	}
}

// M8: another URL is tried when one server fails for good.
func TestNextURL(t *testing.T) {
	server, h := fetchHouse(t)
	m := server.model("g", modelBytes)
	m.URLs = []string{server.URL + "/m/none", m.URLs[0]}
	h.start()
	h.inbox <- messages.Want{Model: m, Runtime: server.runtime(t), MayFetch: true}
	h.verified()
}

// M1: without leave nothing is asked for, and what is said is why.
func TestMayNotFetch(t *testing.T) {
	server, h := fetchHouse(t)
	want := messages.Want{Model: server.model("g", modelBytes), Runtime: server.runtime(t)}
	h.start()
	reply := make(chan messages.Reason, 1)
	h.inbox <- messages.Fetch{Artifact: want.Runtime, Reply: reply}
	if r := <-reply; r != messages.ReasonOK {
		t.Fatal(r)
	}
	h.inbox <- want
	h.lost(messages.IntegrityLost{Artifact: "g", Reason: messages.ReasonSignInNeeded})
	want.FetchRefused = messages.ReasonManifestExpired
	h.inbox <- want
	h.lost(messages.IntegrityLost{Artifact: "g", Reason: messages.ReasonManifestExpired})
	if n := server.asked("/m/g"); n != 0 {
		t.Fatalf("asked %d times", n)
	}
	want.MayFetch = true
	h.inbox <- want
	h.verified()
}

// M2, M4: what the manifest says is checked before anybody is asked.
func TestMalformed(t *testing.T) {
	server, h := fetchHouse(t)
	h.start()
	for name, change := range map[string]func(*messages.Artifact){
		"no digest":     func(a *messages.Artifact) { a.SHA256 = [32]byte{} },
		"no size":       func(a *messages.Artifact) { a.Size = 0 },
		"negative size": func(a *messages.Artifact) { a.Size = -1 },
		"huge":          func(a *messages.Artifact) { a.Size = 1 << 50 },
		"no URL":        func(a *messages.Artifact) { a.URLs = nil },
		"no name":       func(a *messages.Artifact) { a.Name = "" },
		"kind":          func(a *messages.Artifact) { a.Kind = "x" },
		"other origin":  func(a *messages.Artifact) { a.Origins = []string{"https://models.example"} },
		"second URL":    func(a *messages.Artifact) { a.URLs = append(a.URLs, "http://127.0.0.1/m/g") },
	} {
		m := server.model("g", modelBytes)
		change(&m)
		reply := make(chan messages.Reason, 1)
		h.inbox <- messages.Fetch{Artifact: m, Reply: reply}
		if r := <-reply; r != messages.ReasonMalformedSpec && r != messages.ReasonSourceNotAllowed && r != messages.ReasonSchemeNotAllowed {
			t.Errorf("%s: %s", name, r)
		}
	}
	r := server.runtime(t)
	r.Executable = "../x"
	reply := make(chan messages.Reason, 1)
	h.inbox <- messages.Fetch{Artifact: r, Reply: reply}
	if r := <-reply; r != messages.ReasonMalformedSpec {
		t.Errorf("executable outside: %s", r)
	}
	h.inbox <- messages.Want{Model: r, Runtime: r, MayFetch: true}
	h.lost(messages.IntegrityLost{Artifact: "r", Reason: messages.ReasonMalformedSpec})
	if len(server.requests) != 0 {
		t.Errorf("asked: %v", server.requests)
	}
}

// M9, M6: hashed again on demand; a wrong digest is told and the file deleted, and a pull brings it back.
func TestReverify(t *testing.T) {
	server, h := fetchHouse(t)
	want := messages.Want{Model: server.model("g", modelBytes), Runtime: server.runtime(t), MayFetch: true}
	h.start()
	h.inbox <- want
	v := h.verified()
	h.inbox <- messages.Reverify{}
	h.verified()
	wrong := bytes.Clone(modelBytes)
	wrong[3] ^= 1
	must(t, os.Chmod(v.Model.Path, 0o600), os.WriteFile(v.Model.Path, wrong, 0o600))
	// With the altered file's identity on record, reading alone tells.
	f, err := os.Open(v.Model.Path)
	must(t, err)
	id, err := store.Identity(f)
	must(t, err, f.Close())
	data, err := json.Marshal(id)
	must(t, err, os.WriteFile(strings.TrimSuffix(v.Model.Path, ".gguf")+".json", data, 0o600))
	h.inbox <- messages.ConfirmProvision{}
	h.verified()
	h.inbox <- messages.Reverify{}
	h.lost(messages.IntegrityLost{Artifact: "g", Reason: messages.ReasonDigestMismatch})
	if _, err := os.Stat(v.Model.Path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the altered file: %v", err)
	}
	h.inbox <- want
	h.verified()
}

// The last Want stands: what only the one before needed ends, and its bytes are kept. M12: a new version
// stands beside the old one.
func TestLastWantStands(t *testing.T) {
	server, h := fetchHouse(t)
	old, slow := server.model("old", []byte("old weights")), server.model("slow", modelBytes)
	r := server.runtime(t)
	h.start()
	h.inbox <- messages.Want{Model: old, Runtime: r, MayFetch: true}
	first := h.verified()

	reached, left := make(chan struct{}), make(chan struct{})
	server.fault = func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("ETag", `"slow"`)
		w.Header().Set("Content-Length", strconv.Itoa(len(modelBytes)))
		_, _ = w.Write(modelBytes[:150_000])
		_ = http.NewResponseController(w).Flush()
		close(reached)
		<-req.Context().Done()
		close(left)
	}
	h.inbox <- messages.Want{Model: slow, Runtime: r, MayFetch: true}
	<-reached
	if _, err := os.Stat(first.Model.Path); err != nil {
		t.Fatalf("the old model: %v", err)
	}
	h.inbox <- messages.Want{Model: old, Runtime: r, MayFetch: true}
	if v := h.verified(); v.Model != first.Model {
		t.Fatalf("told %+v", v)
	}
	select {
	case <-left:
	case <-time.After(3 * time.Second): // sooner than the client's own patience
		t.Fatal("the transfer that nobody needs goes on")
	}
	server.mu.Lock()
	server.fault = nil
	server.mu.Unlock()
	h.inbox <- messages.Want{Model: slow, Runtime: r, MayFetch: true}
	h.verified()
	if _, err := os.Stat(first.Model.Path); err != nil {
		t.Fatalf("the old model: %v", err)
	}
}

// M10
func TestUnpinned(t *testing.T) {
	server, h := fetchHouse(t)
	binary := filepath.Join(t.TempDir(), "llama-server")
	must(t, os.WriteFile(binary, []byte("#!"), 0o700))
	h.deps.Unpinned = binary
	h.start()
	want := messages.Want{Model: server.model("g", modelBytes), MayFetch: true}
	h.inbox <- want
	if v := h.verified(); v.Runtime.Pinned || filepath.Join(v.Runtime.Dir, v.Runtime.Executable) != binary {
		t.Fatalf("told %+v", v.Runtime)
	}
	must(t, os.Chmod(binary, 0o777))
	h.inbox <- want
	h.lost(messages.IntegrityLost{Reason: messages.ReasonBinaryUntrusted})
}

// A lifecycle that does not read makes nobody else wait.
func TestSlowLifecycle(t *testing.T) {
	server, h := fetchHouse(t)
	h.start()
	want := messages.Want{Model: server.model("g", modelBytes), Runtime: server.runtime(t)}
	for range 20 {
		h.inbox <- want
		reply := make(chan []messages.HeldArtifact, 1)
		h.inbox <- messages.Held{Reply: reply}
		<-reply
	}
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
