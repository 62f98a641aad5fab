package e2e

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"companion/e2e/harness"
)

// L5: an embedding model on the real runtime, with its own pooling; an input may fill the context.
func TestEmbeddingModel(t *testing.T) {
	t.Parallel()
	parts, hub := harness.Parts(t), harness.NewHub(t)
	hub.Publish("model", harness.ModelName, pooled(t, parts.Model.File), "--version", parts.Model.Version, "--default", "--embedding")
	hub.Publish("runtime", harness.RuntimeName, parts.Runtime.File, "--version", parts.Runtime.Version, "--default")
	c := hub.Companion("[model]\ncontext = 1024\n")
	c.Start()
	c.SignIn()
	c.Available()
	door := c.Door()
	const word = " hello"
	for name, input := range map[string]string{"short": word, "more than 512 tokens": strings.Repeat(word, 800)} {
		reply := door.Do(t.Context(), http.MethodPost, "/embeddings", `{"input":"`+input+`"}`)
		var answer struct {
			Data []struct{ Embedding []float64 }
		}
		if err := json.Unmarshal([]byte(reply.Body), &answer); err != nil || reply.Status != http.StatusOK || len(answer.Data) != 1 {
			t.Fatalf("%s: got %d %.200s, want 200 with one entry", name, reply.Status, reply.Body)
		}
		square := 0.0
		for _, x := range answer.Data[0].Embedding {
			square += x * x
		}
		if n := len(answer.Data[0].Embedding); n < 64 || math.Abs(square-1) > 0.01 {
			t.Errorf("%s: got %d numbers with the squares' sum %v, want at least 64 with the sum 1", name, n, square)
		}
	}
	reply := door.Do(t.Context(), http.MethodPost, "/embeddings", `{"input":"`+strings.Repeat(word, 1100)+`"}`)
	if reply.Status != http.StatusBadRequest || !strings.Contains(reply.Body, "the context holds 1024") {
		t.Errorf("more than the context: got %d %.200s, want 400 that names the context", reply.Status, reply.Body)
	}
	c.Stop()
}

// pooled is a copy of a Gemma file that names its pooling, as the files of embedding models do. The addition
// is two alignment units long, so everything after it keeps its place.
func pooled(t *testing.T, file string) string {
	t.Helper()
	const counts, entries = 16, 24 // where the number of entries stands, and the entries
	model, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head := binary.LittleEndian.AppendUint64(model[:counts:counts], binary.LittleEndian.Uint64(model[counts:])+2)
	for _, entry := range []struct {
		name  string
		value uint32
	}{{"gemma3.pooling_type", 1}, {"test.padding0", 0}} {
		head = append(binary.LittleEndian.AppendUint64(head, uint64(len(entry.name))), entry.name...)
		head = binary.LittleEndian.AppendUint32(head, 4) // the value's type: of 32 bits, without a sign
		head = binary.LittleEndian.AppendUint32(head, entry.value)
	}
	if len(head) != entries+64 {
		t.Fatalf("the entries take %d bytes, want 64", len(head)-entries)
	}
	copied := filepath.Join(harness.TempDir(t), "pooled.gguf")
	if err := os.WriteFile(copied, append(head, model[entries:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	return copied
}
