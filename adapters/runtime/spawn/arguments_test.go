package spawn

import (
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
