package process

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap"

	"companion/adapters/gguf"
	"companion/adapters/runtime/fileid"
	"companion/adapters/runtime/spawn"
	"companion/messages"
)

// headerFile writes the header of a model, or of part no of a split one.
func headerFile(t *testing.T, architecture string, no, of uint32) (string, messages.FileIdentity) {
	t.Helper()
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) } // to memory
	text := func(s string) { put(uint64(len(s))); b.WriteString(s) }
	b.WriteString("GGUF")
	put(uint32(3))
	put([]uint64{1, 3})
	text("general.architecture")
	put(uint32(8))
	text(architecture)
	for key, n := range map[string]uint32{"split.no": no, "split.count": of} {
		text(key)
		put([]uint32{4, n})
	}
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	id, err := fileid.Of(f)
	if err != nil {
		t.Fatal(err)
	}
	return path, id
}

// M17: a part that is missing, twice or in another one's place, and a projector or a draft model that is none, are refused before
// the runtime is started, as malformed_spec.
func TestPartsMatchTheirHeaders(t *testing.T) {
	type file struct {
		role         messages.PartRole
		architecture string
		no, of       uint32
	}
	const weights, projector, draft = messages.RoleWeights, messages.RoleProjector, messages.RoleDraft
	for name, c := range map[string]struct {
		files []file
		good  bool
	}{
		"one file":           {[]file{{weights, "llama", 0, 0}}, true},
		"three parts":        {[]file{{weights, "llama", 0, 3}, {weights, "llama", 1, 3}, {weights, "llama", 2, 3}}, true},
		"only the first":     {[]file{{weights, "llama", 0, 3}}, false},
		"one missing":        {[]file{{weights, "llama", 0, 3}, {weights, "llama", 1, 3}}, false},
		"one too many":       {[]file{{weights, "llama", 0, 2}, {weights, "llama", 1, 2}, {weights, "llama", 1, 2}}, false},
		"exchanged":          {[]file{{weights, "llama", 0, 3}, {weights, "llama", 2, 3}, {weights, "llama", 1, 3}}, false},
		"whole as a part":    {[]file{{weights, "llama", 0, 2}, {weights, "llama", 0, 0}}, false},
		"projector":          {[]file{{weights, "llama", 0, 0}, {projector, "clip", 0, 0}}, true},
		"model as projector": {[]file{{weights, "llama", 0, 0}, {projector, "llama", 0, 0}}, false},
		"draft":              {[]file{{weights, "llama", 0, 0}, {draft, "llama", 0, 0}}, true},
		"part as draft":      {[]file{{weights, "llama", 0, 0}, {draft, "llama", 0, 2}}, false},
		"projector as draft": {[]file{{weights, "llama", 0, 0}, {draft, "clip", 0, 0}}, false},
	} {
		m := messages.VerifiedModel{Name: "m"}
		for i, f := range c.files {
			path, id := headerFile(t, f.architecture, f.no, f.of)
			if i == 0 {
				m.Path, m.Identity = path, id
				continue
			}
			m.Parts = append(m.Parts, messages.VerifiedPart{Role: f.role, Name: "p", Path: path, Identity: id})
		}
		a := &Actor{Deps: Deps{Log: zap.NewNop()}, headers: map[[32]byte]gguf.Header{}}
		err := a.checkParts(m)
		var refusal *spawn.Error
		if (err == nil) != c.good || err != nil && (!errors.As(err, &refusal) || refusal.Reason != messages.ReasonMalformedSpec || refusal.Artifact != "m") {
			t.Errorf("%s: got %v, want accepted: %t, or malformed_spec of the model", name, err, c.good)
		}
	}
}
