package harness

import (
	"bufio"
	"encoding/json"
	"encoding/pem"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Hub is a running development hub.
type Hub struct {
	*Process
	Dir       string
	URL       string `json:"hub"`
	Artifacts string `json:"artifacts"`
	CAFile    string `json:"caFile"`
	RootFile  string `json:"rootFile"`
}

// NewHub starts a hub with an empty catalogue that signs User in without a page.
func NewHub(t testing.TB) *Hub {
	t.Helper()
	dir := TempDir(t)
	return serve(t, dir, filepath.Join(dir, "hub"))
}

var realHub struct {
	sync.Mutex
	dir string
}

// RealHub starts a hub that offers the real runtime and the real model as the defaults. They are published once for all
// tests; each hub serves a copy, because tests run in parallel and one directory has one server.
func RealHub(t testing.TB) *Hub {
	t.Helper()
	parts := Parts(t)
	realHub.Lock()
	defer realHub.Unlock()
	if realHub.dir == "" {
		dir := filepath.Join(sharedDir(), "hub")
		publishIn(t, dir, "model", ModelName, parts.Model.File, "--version", parts.Model.Version, "--default")
		publishIn(t, dir, "runtime", RuntimeName, parts.Runtime.File, "--version", parts.Runtime.Version, "--default")
		realHub.dir = dir
	}
	dir := TempDir(t)
	return serve(t, dir, copyHub(t, realHub.dir, filepath.Join(dir, "hub")))
}

// copyHub copies a hub directory that no server uses. Artifacts never change, so they are linked.
func copyHub(t testing.TB, from, to string) string {
	t.Helper()
	err := filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rest, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		copied := filepath.Join(to, rest)
		switch {
		case entry.IsDir():
			return os.Mkdir(copied, 0o700)
		case strings.HasPrefix(rest, "artifacts"+string(filepath.Separator)):
			return os.Link(name, copied)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(copied, data, 0o600)
	})
	if err != nil {
		t.Fatalf("copying the hub: %v", err)
	}
	return to
}

func serve(t testing.TB, logs, dir string) *Hub {
	t.Helper()
	out, in := io.Pipe()
	hub := &Hub{Dir: dir}
	hub.Process = start(t, logs, "devhub", in, hubEnvironment(dir), "serve", "--dir", dir, "--auto-approve", User)
	first := make(chan []byte, 1)
	go func() {
		lines := bufio.NewReader(out)
		line, _ := lines.ReadBytes('\n')
		first <- line
		_, _ = io.Copy(io.Discard, lines)
	}()
	t.Cleanup(func() { in.Close() })
	select {
	case line := <-first:
		if err := json.Unmarshal(line, hub); err != nil {
			t.Fatalf("reading the hub's first line %q: %v", line, err)
		}
	case <-hub.ended:
		t.Fatalf("the hub ended, want it running:\n%s", end(hub.LogFile))
	case <-time.After(30 * time.Second):
		t.Fatal("the hub printed nothing")
	}
	return hub
}

func hubEnvironment(dir string) []string { return environment(filepath.Dir(dir)) }

// Publish signs file into the catalogue under name; flags are those of devhub publish.
func (h *Hub) Publish(kind, name, file string, flags ...string) {
	h.t.Helper()
	publishIn(h.t, h.Dir, kind, name, file, flags...)
}

func publishIn(t testing.TB, dir, kind, name, file string, flags ...string) {
	t.Helper()
	args := append([]string{"publish", "--dir", dir, "--kind", kind, "--name", name}, flags...)
	if r := runCommand(t, "devhub", "", hubEnvironment(dir), append(args, file)...); r.Code != 0 {
		t.Fatalf("publishing %s: got another exit status, want 0: %s", name, r.Stderr)
	}
}

// Fault switches a fault of the hub.
func (h *Hub) Fault(name string, on bool) {
	h.t.Helper()
	position := "off"
	if on {
		position = "on"
	}
	if r := runCommand(h.t, "devhub", "", hubEnvironment(h.Dir), "fault", "--dir", h.Dir, name, position); r.Code != 0 {
		h.t.Fatalf("switching %s %s: got another exit status, want 0: %s", name, position, r.Stderr)
	}
}

// Hosts of a hub: its own, and the artifact host.
const (
	HubHost      = "localhost"
	ArtifactHost = "127.0.0.1"
)

// ArtifactRequests returns the lines of the hub's log about requests for artifacts at host.
func (h *Hub) ArtifactRequests(host string) []string {
	h.t.Helper()
	var found []string
	for line := range strings.Lines(h.Output()) {
		if strings.Contains(line, `"host": "`+host+`"`) && strings.Contains(line, `"route": "GET /artifacts/`) {
			found = append(found, line)
		}
	}
	return found
}

// PublishSmall is PublishInert with a model of a few kilobytes.
func (h *Hub) PublishSmall() []byte {
	h.t.Helper()
	return h.PublishInert(40_000)
}

// PublishInert offers a model of that many bytes and a runtime, both well-formed but unable to run, which is enough for
// everything before a spawn. It returns the model's bytes.
func (h *Hub) PublishInert(size int) []byte {
	h.t.Helper()
	model := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(model) // no two parts are alike; never fails
	copy(model, "GGUF")
	h.publishPair("inert", model, "not a program")
	return model
}

// PublishHostile offers the runtime of e2e/hostile, with a model that is its script: the keys are those of
// hostile.Script.
func (h *Hub) PublishHostile(script map[string]any) {
	h.t.Helper()
	program := filepath.Join(TempDir(h.t), "hostile")
	build := exec.Command("go", "build", "-o", program, "companion/e2e/hostile")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		h.t.Fatalf("building the hostile runtime: %v\n%s", err, out)
	}
	body, err := os.ReadFile(program)
	if err != nil {
		h.t.Fatal(err)
	}
	model, err := json.Marshal(script)
	if err != nil {
		h.t.Fatal(err)
	}
	h.publishPair("script", model, string(body), "--unchecked")
}

// publishPair offers a model, and an archive whose only file is the runtime's program, as the defaults.
func (h *Hub) publishPair(name string, model []byte, program string, flags ...string) {
	h.t.Helper()
	file := filepath.Join(TempDir(h.t), name+".gguf")
	if err := os.WriteFile(file, model, 0o600); err != nil {
		h.t.Fatal(err)
	}
	h.Publish("model", name, file, append(flags, "--version", "1", "--default")...)
	h.Publish("runtime", RuntimeName, Archive(h.t, Entry{Name: "bin/llama-server", Body: program, Mode: 0o755}), "--version", "1", "--default")
}

// CertificateFile writes the certificate of a test server to a PEM file.
func CertificateFile(t testing.TB, server *httptest.Server) string {
	t.Helper()
	file := filepath.Join(TempDir(t), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
