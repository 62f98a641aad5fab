package spawn

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"companion/adapters/artifact"
	"companion/messages"
)

// L5: an embedding model computes each input as one batch, so a batch holds the whole context.
func TestBatchHoldsTheContextOfAnEmbeddingModel(t *testing.T) {
	for embedding, want := range map[bool]bool{true: true, false: false} {
		p := &preparation{spec: Spec{Model: messages.VerifiedModel{Embedding: embedding}, Context: 4096, MaxInFlight: 2}}
		args := strings.Join(p.arguments(places{model: "m"}), " ")
		if got := strings.Contains(args, "--embeddings --batch-size 4096 --ubatch-size 4096"); got != want {
			t.Errorf("embedding %v: got the arguments %s, want batches of 4096 tokens only for embeddings", embedding, args)
		}
	}
}

// L15: without sharing the runtime gets the context of all slots, which it divides among them. With it, one context.
func TestArgumentsOfTheContext(t *testing.T) {
	for shared, want := range map[bool]string{false: "--ctx-size 8192 --parallel 2", true: "--ctx-size 4096 --parallel 2"} {
		p := &preparation{spec: Spec{Context: 4096, MaxInFlight: 2, ShareContext: shared}}
		args := strings.Join(p.arguments(places{model: "m"}), " ")
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

// M17: what the target of a model says becomes arguments. The draft model is used only where the runtime guesses tokens.
func TestArgumentsOfTheTarget(t *testing.T) {
	of := places{model: "m", projector: "p", draft: "d", template: "t"}
	settings := messages.ModelSettings{Context: 512, ChatTemplate: "x", Sampling: map[string]string{"top_p": "0.95", "temperature": "0", "top_k": "20", "unknown": "1"}}
	draft := []messages.VerifiedPart{{Role: messages.RoleDraft}}
	for name, c := range map[string]struct {
		spec Spec
		want string
		not  string
	}{
		"settings":        {Spec{Model: messages.VerifiedModel{Settings: settings}}, "--mmproj p --no-mmproj-offload --jinja --chat-template-file t --temp 0 --top-k 20 --top-p 0.95", "unknown"},
		"on a GPU":        {Spec{GPU: true}, "--mmproj p --jinja", "--no-mmproj-offload"},
		"draft":           {Spec{Model: messages.VerifiedModel{Parts: draft}, Speculate: true, Features: Features{Draft: true, Speculation: true}}, "--spec-type draft-simple --model-draft d", "ngram"},
		"draft not used":  {Spec{Model: messages.VerifiedModel{Parts: draft}, Features: Features{Draft: true, Speculation: true}}, "--mmproj p", "--spec-type"},
		"an old runtime":  {Spec{Model: messages.VerifiedModel{Parts: draft}, Speculate: true, Features: Features{Speculation: true}}, "--spec-type ngram-simple", "--model-draft"},
		"no draft model":  {Spec{Speculate: true, Features: Features{Draft: true, Speculation: true}}, "--spec-type ngram-simple", "--model-draft"},
		"embedding model": {Spec{Model: messages.VerifiedModel{Parts: draft, Embedding: true}, Speculate: true, Features: Features{Draft: true}}, "--embeddings", "--model-draft"},
	} {
		args := strings.Join((&preparation{spec: c.spec}).arguments(of), " ")
		if !strings.Contains(args, c.want) || strings.Contains(args, c.not) {
			t.Errorf("%s: got the arguments %s, want %q and not %q", name, args, c.want, c.not)
		}
	}
	for name := range artifact.Sampling {
		if samplingOptions[name] == "" {
			t.Errorf("%s: got no option of the runtime, want one for each default of a target", name)
		}
	}
}
