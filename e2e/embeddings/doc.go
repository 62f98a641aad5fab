// Package embeddings compares the vectors of a real embedding model, through the daemon and the real runtime, with those
// of the original model. `task test-embeddings` makes both from the model's package first (original.py), which takes
// minutes, so the task is not part of `task test`.
package embeddings
