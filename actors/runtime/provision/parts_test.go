//go:build unix

package provision

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"companion/actors/actorkit"
	"companion/adapters/artifact"
	"companion/messages"
)

// partBytes are the bytes of a part of a model.
func partBytes(n byte) []byte { return bytes.Repeat([]byte{'p', n, 'q', n}, 30_000) }

// split returns a model of the parts with these numbers, and more of its target.
func (h *host) split(t *testing.T, name string, numbers []byte, more func(*messages.TargetCustom)) messages.Artifact {
	t.Helper()
	first := h.model(name, partBytes(numbers[0]))
	custom := messages.TargetCustom{}
	for _, n := range numbers[1:] {
		data := partBytes(n)
		sum := sha256.Sum256(data)
		path := "part-" + hex.EncodeToString(sum[:4])
		h.files["/m/"+path] = data
		custom.Parts = append(custom.Parts, messages.TargetPart{
			Name: path, Length: int64(len(data)), SHA256: hex.EncodeToString(sum[:]), URLs: []string{h.URL + "/m/" + path}, Origins: []string{h.URL + "/m/"},
		})
	}
	if more != nil {
		more(&custom)
	}
	a, err := artifact.Compose(first, custom)
	must(t, err, artifact.Check(a))
	return a
}

func (h *harness) file(of messages.Artifact) string {
	return filepath.Join(h.dir, "models", hex.EncodeToString(of.SHA256[:])+".gguf")
}

func (h *harness) held(a messages.Artifact) messages.HeldArtifact {
	h.t.Helper()
	held, err := actorkit.Ask(context.Background(), h.inbox, func(reply chan<- []messages.HeldArtifact) messages.ToProvision {
		return messages.Held{Artifacts: []messages.Artifact{a}, Reply: reply}
	})
	must(h.t, err)
	return held[0]
}

// M17: a model of three parts is offered when all three are verified, with each file's identity. After a restart nothing is
// fetched again.
func TestPartsAreVerified(t *testing.T) {
	server, h := fetchHarness(t)
	settings := func(c *messages.TargetCustom) { c.Context = 512 }
	model := server.split(t, "split", []byte{1, 2, 3}, settings)
	h.start()
	want := messages.Want{Model: model, Runtime: server.runtime(t), MayFetch: true}
	h.inbox <- want
	v := h.verified().Model
	if v.SHA256 != model.SHA256 || v.Path != h.file(model.Parts[0]) || v.Settings.Context != 512 || len(v.Parts) != 2 {
		t.Fatalf("got %+v, want the three parts and their settings", v)
	}
	for i, p := range v.Parts {
		if p.Role != messages.RoleWeights || p.Path != h.file(model.Parts[i+1]) || p.Identity.Size != model.Parts[i+1].Size {
			t.Errorf("part %d: got %+v, want the file of its digest", i+2, p)
		}
	}
	if held := h.held(model); !held.Here || !held.Verified || held.PartialBytes != 0 {
		t.Errorf("got %+v, want the whole model here and verified", held)
	}
	h.stop()
	server.Close()
	h.start()
	want.MayFetch = false
	h.inbox <- want
	h.verified()
}

// M6, M17: one wrong part makes the model unavailable, with the part's name in the log. The right parts stay, are not fetched
// again, and the model is complete when the wrong one comes right.
func TestWrongPart(t *testing.T) {
	for name, reason := range map[string]messages.Reason{
		"wrong bytes": messages.ReasonDigestMismatch, "short": messages.ReasonSizeMismatch, "absent": messages.ReasonBadStatus,
	} {
		t.Run(name, func(t *testing.T) {
			server, h := fetchHarness(t)
			model := server.split(t, "split", []byte{1, 2, 3}, nil)
			bad := "/m/" + model.Parts[1].Name
			right := server.files[bad]
			switch name {
			case "wrong bytes":
				server.files[bad] = append(bytes.Clone(right[:len(right)-1]), 'x')
			case "short":
				server.files[bad] = right[:100]
			case "absent":
				server.fault = func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == bad {
						http.NotFound(w, r)
						return
					}
					server.serve(w, r)
				}
			}
			h.start()
			want := messages.Want{Model: model, Runtime: server.runtime(t), MayFetch: true}
			h.inbox <- want
			h.lost(loss(model, reason))
			if logged := h.logs.FilterMessage("artifact not available").All(); len(logged) == 0 || !strings.Contains(logged[0].ContextMap()["error"].(string), "file 2 of 3, "+model.Parts[1].Name) {
				t.Errorf("got the log %v, want the name of the part", logged)
			}
			if _, err := os.Stat(h.file(model.Parts[0])); err != nil {
				t.Errorf("the first part: got %v, want it kept", err)
			}
			if held := h.held(model); held.Here || held.Verified || held.PartialBytes < model.Parts[0].Size {
				t.Errorf("got %+v, want a part of the model", held)
			}
			server.mu.Lock()
			server.fault, server.files[bad] = nil, right
			server.mu.Unlock()
			h.inbox <- want
			h.verified()
			if n := server.asked("/m/split"); n != 1 {
				t.Errorf("got %d requests for the right part, want 1", n)
			}
		})
	}
}

// M9, M17: parts that were altered, exchanged or removed on disk are all found at the next start, and no part of the model is
// offered. All that is wrong is replaced by the next fetch.
func TestSpoiltParts(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, files []string){
		"altered": func(t *testing.T, files []string) {
			must(t, os.Chmod(files[1], 0o600), os.WriteFile(files[1], bytes.Repeat([]byte("bad!"), 30_000), 0o600))
		},
		"exchanged": func(t *testing.T, files []string) {
			must(t, os.Rename(files[1], files[1]+".x"), os.Rename(files[2], files[1]), os.Rename(files[1]+".x", files[2]))
		},
		"removed": func(t *testing.T, files []string) { must(t, os.Remove(files[2])) },
		"a link":  func(t *testing.T, files []string) { must(t, os.Remove(files[2]), os.Symlink(files[1], files[2])) },
	} {
		t.Run(name, func(t *testing.T) {
			server, h := fetchHarness(t)
			model := server.split(t, "split", []byte{1, 2, 3}, nil)
			want := messages.Want{Model: model, Runtime: server.runtime(t), MayFetch: true}
			h.start()
			h.inbox <- want
			h.verified()
			h.stop()
			files := []string{h.file(model.Parts[0]), h.file(model.Parts[1]), h.file(model.Parts[2])}
			spoil(t, files)
			h.start()
			offline := want
			offline.MayFetch = false
			h.inbox <- offline
			if got, ok := h.next().(messages.IntegrityLost); !ok || got.SHA256 != model.SHA256 {
				t.Fatalf("got %#v, want the loss of the model", got)
			}
			if name == "a link" {
				must(t, os.Remove(files[2]))
			}
			h.inbox <- want
			for {
				if _, ok := h.next().(messages.ArtifactsVerified); ok {
					break
				}
			}
		})
	}
}

// M15, M17: two models may share a file. It is fetched once, and removing one model keeps what the other needs. A budget that the
// whole model would pass refuses its first byte.
func TestSharedParts(t *testing.T) {
	server, h := fetchHarness(t)
	one := server.split(t, "shared", []byte{1, 2}, nil)
	other := server.split(t, "shared", []byte{1, 2, 3}, nil)
	h.start()
	replies := make(chan messages.Reason, 2)
	h.inbox <- messages.Fetch{Artifact: one, Reply: replies}
	h.inbox <- messages.Fetch{Artifact: other, Reply: replies}
	for range 2 {
		if reason := <-replies; reason != messages.ReasonOK {
			t.Fatalf("got %s, want both models", reason)
		}
	}
	for _, path := range []string{"/m/shared", "/m/" + one.Parts[1].Name} {
		if n := server.asked(path); n != 1 {
			t.Errorf("got %d requests for a shared file, want 1", n)
		}
	}
	h.inbox <- messages.Want{Model: one, Runtime: server.runtime(t), MayFetch: true}
	h.verified()
	pruned := make(chan messages.PruneResult, 1)
	h.inbox <- messages.Prune{Reply: pruned}
	if r := <-pruned; len(r.Items) != 1 || r.Items[0].Bytes != other.Parts[2].Size {
		t.Errorf("got %+v removed, want only the part of the model that nothing uses", r.Items)
	}
	for i, p := range other.Parts {
		if _, err := os.Stat(h.file(p)); (err == nil) != (i < 2) {
			t.Errorf("part %d: got %v, want the parts of the wanted model kept, and the third removed", i+1, err)
		}
	}

	used, err := h.deps.Store.Used()
	must(t, err)
	h.deps.Store.SetBudget(used + 150_000)
	big := server.split(t, "big", []byte{4, 5}, nil)
	reply := make(chan messages.Reason, 1)
	h.inbox <- messages.Fetch{Artifact: big, Reply: reply}
	if reason := <-reply; reason != messages.ReasonOverBudget || server.asked("/m/big") != 0 {
		t.Errorf("got %s after %d requests, want over_budget before the first", reason, server.asked("/m/big"))
	}
}
