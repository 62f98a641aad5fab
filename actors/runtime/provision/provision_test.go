//go:build unix

package provision

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"companion/messages"
)

func TestMain(m *testing.M) {
	if file := os.Getenv(benchHost); file != "" {
		serveBench(file)
		return
	}
	goleak.VerifyTestMain(m)
}

// M4–M7, M12: model and runtime are fetched, verified and reported; the next start needs no server.
func TestWant(t *testing.T) {
	server, h := fetchHarness(t)
	want := messages.Want{Model: server.model("g", modelBytes), Runtime: server.runtime(t), MayFetch: true}
	h.start()
	h.inbox <- want
	v := h.verified()
	data, err := os.ReadFile(v.Model.Path)
	must(t, err)
	if !bytes.Equal(data, modelBytes) || v.Model.Name != "g" || v.Model.SHA256 != want.Model.SHA256 || !v.Runtime.Pinned {
		t.Fatalf("got %+v, want model g and a pinned runtime", v)
	}
	if _, err := os.Stat(filepath.Join(v.Runtime.Dir, v.Runtime.Executable)); err != nil {
		t.Fatal(err)
	}
	h.stop()
	server.Close()
	h.start()
	want.MayFetch = false
	h.inbox <- want
	if again := h.verified(); !reflect.DeepEqual(again.Model, v.Model) {
		t.Fatalf("got %+v, want %+v", again, v)
	}
	h.inbox <- messages.ConfirmProvision{} // A9
	h.verified()
}

// M6, M8, T6: for each kind of bad response, the report to lifecycle and the number of requests.
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
			server, h := fetchHarness(t)
			want := messages.Want{Model: server.model("g", modelBytes), Runtime: server.runtime(t), MayFetch: true}
			server.times(1000, "/m/g", c.fault)
			h.start()
			h.inbox <- want
			h.lost(loss(want.Model, c.want))
			if n := server.asked("/m/g"); n > c.maxAsk {
				t.Errorf("got %d requests, want at most %d", n, c.maxAsk)
			}
			reply := make(chan []messages.HeldArtifact, 1)
			h.inbox <- messages.Held{Artifacts: []messages.Artifact{want.Model}, Reply: reply}
			if got := (<-reply)[0]; got.Here || got.Verified || got.PartialBytes != 0 {
				t.Errorf("got %+v, want nothing on disk", got)
			}
		})
	}
}

// M8: failures that a retry repairs, and where the retry continues.
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
			server, h := fetchHarness(t)
			server.times(1, "/m/g", c.fault)
			h.start()
			h.inbox <- messages.Want{Model: server.model("g", modelBytes), Runtime: server.runtime(t), MayFetch: true}
			h.verified()
			if n := server.asked("/m/g"); n != 2 {
				t.Errorf("got %d requests, want 2", n)
			}
			ranged := false
			for _, r := range server.ranges {
				ranged = ranged || strings.HasPrefix(r, "bytes=")
			}
			if ranged != c.resumes {
				t.Errorf("Range headers: got %q, want a range: %t", server.ranges, c.resumes)
			}
		})
	}
}

// M8: another URL is tried when a server fails permanently.
func TestNextURL(t *testing.T) {
	server, h := fetchHarness(t)
	m := server.model("g", modelBytes)
	m.URLs = []string{server.URL + "/m/none", m.URLs[0]}
	h.start()
	h.inbox <- messages.Want{Model: m, Runtime: server.runtime(t), MayFetch: true}
	h.verified()
}

// M1: without MayFetch no request is sent, and the reason is reported.
func TestMayNotFetch(t *testing.T) {
	server, h := fetchHarness(t)
	want := messages.Want{Model: server.model("g", modelBytes), Runtime: server.runtime(t)}
	h.start()
	reply := make(chan messages.Reason, 1)
	h.inbox <- messages.Fetch{Artifact: want.Runtime, Reply: reply}
	if r := <-reply; r != messages.ReasonOK {
		t.Fatalf("got %v, want %v", r, messages.ReasonOK)
	}
	h.inbox <- want
	h.lost(loss(want.Model, messages.ReasonSignInNeeded))
	want.FetchRefused = messages.ReasonManifestExpired
	h.inbox <- want
	h.lost(loss(want.Model, messages.ReasonManifestExpired))
	if n := server.asked("/m/g"); n != 0 {
		t.Fatalf("got %d requests, want none", n)
	}
	// X3: when the fetch is allowed, the reported reason is replaced.
	want.MayFetch = true
	h.inbox <- want
	h.lost(loss(want.Model, messages.ReasonNotReady))
	h.verified()
}

// M2, M4: the manifest's entries are checked before any request is sent.
func TestMalformed(t *testing.T) {
	server, h := fetchHarness(t)
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
			t.Errorf("%s: got %s, want malformed_spec, source_not_allowed or scheme_not_allowed", name, r)
		}
	}
	r := server.runtime(t)
	r.Executable = "../x"
	reply := make(chan messages.Reason, 1)
	h.inbox <- messages.Fetch{Artifact: r, Reply: reply}
	if r := <-reply; r != messages.ReasonMalformedSpec {
		t.Errorf("executable outside: got %s, want malformed_spec", r)
	}
	h.inbox <- messages.Want{Model: r, Runtime: r, MayFetch: true}
	h.lost(loss(r, messages.ReasonMalformedSpec))
	if len(server.requests) != 0 {
		t.Errorf("got requests %v, want none", server.requests)
	}
}

// M9, M6: Reverify hashes the files again. A wrong digest is reported and the file deleted. It is fetched again if that is
// allowed: at once for the first time, and with the next Want after that.
func TestReverify(t *testing.T) {
	server, h := fetchHarness(t)
	want := messages.Want{Model: server.model("g", modelBytes), Runtime: server.runtime(t), MayFetch: true}
	h.start()
	h.inbox <- want
	v := h.verified()
	h.inbox <- messages.Reverify{}
	h.verified()
	wrong := bytes.Clone(modelBytes)
	wrong[3] ^= 1
	alter := func() { must(t, os.Chmod(v.Model.Path, 0o600), os.WriteFile(v.Model.Path, wrong, 0o600)) }
	gone := func() {
		t.Helper()
		if _, err := os.Stat(v.Model.Path); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("altered file: got %v, want it deleted", err)
		}
	}
	alter()
	h.inbox <- messages.Reverify{}
	h.lost(loss(want.Model, messages.ReasonDigestMismatch))
	h.verified()
	if asked := server.asked("/m/g"); asked != 2 {
		t.Fatalf("got %d requests, want a second one", asked)
	}
	alter()
	h.inbox <- messages.Reverify{}
	h.lost(loss(want.Model, messages.ReasonDigestMismatch))
	gone()
	h.inbox <- want
	h.verified()
	alter()
	want.MayFetch, want.FetchRefused = false, messages.ReasonSignInNeeded
	h.inbox <- want
	h.lost(loss(want.Model, messages.ReasonDigestMismatch))
	gone()
}

// M10: a library of the unpacked runtime with a wrong bit, which sizes and modes do not show, is found by Reverify. The runtime
// is fetched again at once.
func TestRottenRuntimeIsFetchedAgain(t *testing.T) {
	server, h := fetchHarness(t)
	want := messages.Want{Model: server.model("g", modelBytes), Runtime: server.runtime(t), MayFetch: true}
	h.start()
	h.inbox <- want
	v := h.verified()
	program := filepath.Join(v.Runtime.Dir, v.Runtime.Executable)
	right, err := os.ReadFile(program)
	must(t, err, os.Chmod(program, 0o700), os.WriteFile(program, []byte("Program"), 0o700), os.Chmod(program, 0o500))
	h.inbox <- want
	h.verified() // not hashed here: each spawn does that
	h.inbox <- messages.Reverify{}
	h.lost(loss(want.Runtime, messages.ReasonDigestMismatch))
	h.verified()
	if got, err := os.ReadFile(program); err != nil || !bytes.Equal(got, right) || server.asked("/r/r") != 2 {
		t.Errorf("got %q, %v after %d requests; want %q after 2", got, err, server.asked("/r/r"), right)
	}
}

// The last Want counts: jobs that only the previous one needed end, and their bytes are kept. M12: a new version does not
// replace the files of the old one.
func TestLastWantStands(t *testing.T) {
	server, h := fetchHarness(t)
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
		t.Fatalf("old model: got %v, want it on disk", err)
	}
	h.inbox <- messages.Want{Model: old, Runtime: r, MayFetch: true}
	if v := h.verified(); !reflect.DeepEqual(v.Model, first.Model) {
		t.Fatalf("got %+v, want the first model", v)
	}
	select {
	case <-left:
	case <-time.After(3 * time.Second): // less than the client's own time-out
		t.Fatal("unneeded transfer: got it still running after 3s, want it cancelled")
	}
	server.mu.Lock()
	server.fault = nil
	server.mu.Unlock()
	h.inbox <- messages.Want{Model: slow, Runtime: r, MayFetch: true}
	h.verified()
	if _, err := os.Stat(first.Model.Path); err != nil {
		t.Fatalf("old model: got %v, want it on disk", err)
	}
}

// M10: the configured unpinned binary replaces the runtime of the manifest.
func TestUnpinned(t *testing.T) {
	server, h := fetchHarness(t)
	binary := filepath.Join(t.TempDir(), "llama-server")
	must(t, os.WriteFile(binary, []byte("#!"), 0o700))
	h.deps.Unpinned = binary
	h.start()
	want := messages.Want{Model: server.model("g", modelBytes), MayFetch: true}
	h.inbox <- want
	if v := h.verified(); v.Runtime.Pinned || filepath.Join(v.Runtime.Dir, v.Runtime.Executable) != binary {
		t.Fatalf("got %+v, want the unpinned binary", v.Runtime)
	}
	must(t, os.Chmod(binary, 0o777))
	h.inbox <- want
	h.lost(messages.IntegrityLost{Reason: messages.ReasonBinaryUntrusted})
}

// A lifecycle actor that does not read its mailbox does not delay other requests.
func TestSlowLifecycle(t *testing.T) {
	server, h := fetchHarness(t)
	h.start()
	want := messages.Want{Model: server.model("g", modelBytes), Runtime: server.runtime(t)}
	for range 20 {
		h.inbox <- want
		reply := make(chan []messages.HeldArtifact, 1)
		h.inbox <- messages.Held{Reply: reply}
		<-reply
	}
}
