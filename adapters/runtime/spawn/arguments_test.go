package spawn

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"companion/messages"
)

// L5: an embedding model computes each input as one batch, so a batch holds the whole context.
func TestBatchHoldsTheContextOfAnEmbeddingModel(t *testing.T) {
	for embedding, want := range map[bool]bool{true: true, false: false} {
		p := &preparation{spec: Spec{Model: messages.VerifiedModel{Embedding: embedding}, Context: 4096, MaxInFlight: 2}}
		args := strings.Join(p.arguments("m"), " ")
		if got := strings.Contains(args, "--embeddings --batch-size 4096 --ubatch-size 4096"); got != want {
			t.Errorf("embedding %v: got the arguments %s, want batches of 4096 tokens only for embeddings", embedding, args)
		}
	}
}

// L15: without sharing the runtime gets the context of all slots, which it divides among them. With it, one context.
func TestArgumentsOfTheContext(t *testing.T) {
	for shared, want := range map[bool]string{false: "--ctx-size 8192 --parallel 2", true: "--ctx-size 4096 --parallel 2"} {
		p := &preparation{spec: Spec{Context: 4096, MaxInFlight: 2, ShareContext: shared}}
		args := strings.Join(p.arguments("m"), " ")
		if !strings.Contains(args, want) || strings.Contains(args, shareOption) != shared {
			t.Errorf("shared %v: got the arguments %s, want %s, and %s only if shared", shared, args, want, shareOption)
		}
	}
}

// L15: the option is found in the program or in one of its libraries, also where two parts of a file are read one after
// the other. Links, folders and other files do not count.
func TestCanShareContext(t *testing.T) {
	for name, c := range map[string]struct {
		file, text string
		want       bool
	}{
		"library":      {"libllama-common.so.0.1.0", "x" + shareOption + "y", true},
		"program":      {"llama-server", shareOption, true},
		"at an edge":   {"llama-server", strings.Repeat("x", 1<<20-5) + shareOption, true},
		"at the end":   {"llama-server", strings.Repeat("x", 3<<20) + shareOption, true},
		"absent":       {"llama-server", "--kv-unifie", false},
		"another file": {"README", shareOption, false},
		"empty":        {"llama-server", "", false},
	} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "bin"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "bin", c.file), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := CanShareContext(messages.VerifiedRuntime{Dir: dir, Executable: "bin/llama-server"}); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}
