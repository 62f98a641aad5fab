// Package tuftest makes small signed manifests for tests: a real TUF repository in memory, with its own keys, which can also
// sign invalid content.
package tuftest

import (
	"crypto"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"companion/messages"
)

// Repo is one repository. It serves the last publication; a test may change Files to simulate a broken or hostile server. A
// method that fails ends the test.
type Repo struct {
	tb   testing.TB
	keys map[string]ed25519.PrivateKey

	Root      *metadata.Metadata[metadata.RootType]
	Timestamp *metadata.Metadata[metadata.TimestampType]
	Snapshot  *metadata.Metadata[metadata.SnapshotType]
	Targets   *metadata.Metadata[metadata.TargetsType]

	mu sync.Mutex
	// Files by name below the prefix, such as "timestamp.json".
	Files map[string][]byte
	// Requests counts the requests by name; Authorization holds the header of the last one.
	Requests      map[string]int
	Authorization string
	// Fault, if set, handles a request; it returns false to serve the file.
	Fault func(w http.ResponseWriter, name string) bool
}

var roles = []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS}

// New makes an empty repository that expires in a day, and publishes it.
func New(tb testing.TB) *Repo {
	expires := time.Now().UTC().Add(24 * time.Hour).Truncate(time.Second)
	r := &Repo{
		tb: tb, keys: map[string]ed25519.PrivateKey{}, Files: map[string][]byte{}, Requests: map[string]int{},
		Root: metadata.Root(expires), Timestamp: metadata.Timestamp(expires),
		Snapshot: metadata.Snapshot(expires), Targets: metadata.Targets(expires),
	}
	r.Root.Signed.ConsistentSnapshot = true
	for _, role := range roles {
		r.newKey(role)
	}
	r.signRoot(r.keys[metadata.ROOT])
	r.Publish()
	return r
}

func (r *Repo) newKey(role string) {
	r.tb.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	r.check(err)
	key, err := metadata.KeyFromPublicKey(private.Public())
	r.check(err)
	r.check(r.Root.Signed.AddKey(key, role))
	r.keys[role] = private
}

func (r *Repo) check(err error) {
	r.tb.Helper()
	if err != nil {
		r.tb.Fatalf("tuftest: %v", err)
	}
}

// PinnedRoot returns the first root.
func (r *Repo) PinnedRoot() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Files["1.root.json"]
}

// Model returns the description of a valid model target (M2, M4) at https://models.example/v1/.
func Model(name string) messages.TargetCustom {
	return messages.TargetCustom{
		Kind: messages.KindModel, Name: name, Version: "1",
		URLs: []string{"https://models.example/v1/" + name + ".gguf"}, Origins: []string{"https://models.example/v1/"},
	}
}

// Runtime returns the description of a runtime target for a platform, with one executable.
func Runtime(name, platform string) messages.TargetCustom {
	return messages.TargetCustom{
		Kind: messages.KindRuntime, Name: name, Version: "1", Platform: platform, Format: "tar.gz", Executable: "bin/llama-server",
		URLs: []string{"https://models.example/v1/" + name + ".tar.gz"}, Origins: []string{"https://models.example/v1/"},
		Files: []messages.TargetFile{{Path: "bin/llama-server", SHA256: strings.Repeat("ab", 32), Size: 4, Executable: true}},
	}
}

// Add adds a target of 1000 bytes to the next publication, under the path of its description. custom may also be any other
// value, to sign invalid content; then path must be given.
func (r *Repo) Add(custom any, path ...string) {
	r.tb.Helper()
	raw, err := json.Marshal(custom)
	r.check(err)
	message := json.RawMessage(raw)
	file := metadata.TargetFile()
	file.Length = 1000
	file.Hashes = metadata.Hashes{"sha256": append(make([]byte, 31), 1)}
	file.Custom = &message
	name := ""
	switch c, ok := custom.(messages.TargetCustom); {
	case len(path) == 1:
		name = path[0]
	case ok && c.Kind == messages.KindRuntime:
		name = "runtime/" + c.Platform + "/" + c.Name
	case ok:
		name = "model/" + c.Name
	}
	r.Targets.Signed.Targets[name] = file
}

// AddDigest adds a target, as Add does, whose SHA-256 begins with the byte first and is zero otherwise.
func (r *Repo) AddDigest(custom messages.TargetCustom, first byte) {
	r.tb.Helper()
	before := maps.Clone(r.Targets.Signed.Targets)
	r.Add(custom)
	for name, file := range r.Targets.Signed.Targets {
		if before[name] != file {
			digest := make([]byte, 32)
			digest[0] = first
			file.Hashes = metadata.Hashes{"sha256": digest}
		}
	}
}

// AddKey publishes the next version of the root with an additional key for the role, which signs from then on.
func (r *Repo) AddKey(role string) {
	r.tb.Helper()
	r.newKey(role)
	r.Root.Signed.Version++
	r.signRoot(r.keys[metadata.ROOT])
}

// Publish increments the version of each file except the root, signs the files and serves them.
func (r *Repo) Publish() {
	r.tb.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Files["timestamp.json"] != nil {
		r.Targets.Signed.Version++
		r.Snapshot.Signed.Version++
		r.Timestamp.Signed.Version++
	}
	r.Snapshot.Signed.Meta["targets.json"] = metadata.MetaFile(r.Targets.Signed.Version)
	r.Timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(r.Snapshot.Signed.Version)
	r.sign(fmt.Sprintf("%d.targets.json", r.Targets.Signed.Version), sign(r, r.Targets, r.keys[metadata.TARGETS]))
	r.sign(fmt.Sprintf("%d.snapshot.json", r.Snapshot.Signed.Version), sign(r, r.Snapshot, r.keys[metadata.SNAPSHOT]))
	r.sign("timestamp.json", sign(r, r.Timestamp, r.keys[metadata.TIMESTAMP]))
}

func (r *Repo) sign(name string, data []byte) { r.Files[name] = data }

// SignTimestamp signs the current timestamp and serves it, without a new version.
func (r *Repo) SignTimestamp() {
	r.tb.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sign("timestamp.json", sign(r, r.Timestamp, r.keys[metadata.TIMESTAMP]))
}

// Rekey publishes the next version of the root with a new key for the role. For the role root, the old and the new key sign
// it. Call Publish afterwards.
func (r *Repo) Rekey(role string) {
	r.tb.Helper()
	old := r.keys[metadata.ROOT]
	id := r.Root.Signed.Roles[role].KeyIDs[0]
	r.check(r.Root.Signed.RevokeKey(id, role))
	r.newKey(role)
	r.Root.Signed.Version++
	r.signRoot(old, r.keys[metadata.ROOT])
}

func (r *Repo) signRoot(keys ...ed25519.PrivateKey) {
	r.tb.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sign(fmt.Sprintf("%d.root.json", r.Root.Signed.Version), sign(r, r.Root, keys...))
}

// Forge replaces the key of a role by one that is not in the root, so that the next publication has an untrusted signature.
func (r *Repo) Forge(role string) {
	_, private, err := ed25519.GenerateKey(nil)
	r.check(err)
	r.keys[role] = private
}

// Saved returns a copy of the served files. Restore serves them again, as an attacker with old files does.
func (r *Repo) Saved() map[string][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.Files)
}

// Restore serves files that Saved returned.
func (r *Repo) Restore(files map[string][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Files = maps.Clone(files)
}

// Set serves data under name; nil removes it.
func (r *Repo) Set(name string, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if data == nil {
		delete(r.Files, name)
		return
	}
	r.Files[name] = data
}

// SetFault sets Fault; nil removes it.
func (r *Repo) SetFault(fault func(w http.ResponseWriter, name string) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Fault = fault
}

// Count returns the number of requests for a file.
func (r *Repo) Count(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Requests[name]
}

// LastAuthorization returns the Authorization header of the last request.
func (r *Repo) LastAuthorization() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Authorization
}

// ServeHTTP serves the files by the last element of the path.
func (r *Repo) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	name := req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]
	r.mu.Lock()
	r.Requests[name]++
	r.Authorization = req.Header.Get("Authorization")
	data, fault := r.Files[name], r.Fault
	r.mu.Unlock()
	if fault != nil && fault(w, name) {
		return
	}
	if data == nil {
		http.NotFound(w, req)
		return
	}
	_, _ = w.Write(data)
}

func sign[T metadata.Roles](r *Repo, m *metadata.Metadata[T], keys ...ed25519.PrivateKey) []byte {
	r.tb.Helper()
	m.ClearSignatures()
	used := map[string]bool{}
	for _, key := range keys {
		id := hex.EncodeToString(key.Public().(ed25519.PublicKey))
		if used[id] {
			continue
		}
		used[id] = true
		signer, err := signature.LoadSigner(key, crypto.Hash(0))
		r.check(err)
		_, err = m.Sign(signer)
		r.check(err)
	}
	data, err := m.ToBytes(false)
	r.check(err)
	return data
}

// Sign signs the current metadata of a role and serves it under name, without a new version.
func (r *Repo) Sign(role, name string) {
	r.tb.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	key := r.keys[role]
	switch role {
	case metadata.ROOT:
		r.sign(name, sign(r, r.Root, key))
	case metadata.TIMESTAMP:
		r.sign(name, sign(r, r.Timestamp, key))
	case metadata.SNAPSHOT:
		r.sign(name, sign(r, r.Snapshot, key))
	case metadata.TARGETS:
		r.sign(name, sign(r, r.Targets, key))
	}
}

// Revoke publishes a root with a new key for the role, and goes on signing the role with the old key.
func (r *Repo) Revoke(role string) {
	r.tb.Helper()
	old := r.keys[role]
	r.Rekey(role)
	r.keys[role] = old
}
