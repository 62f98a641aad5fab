package store

import (
	"errors"
	"os"
	"testing"

	"companion/adapters/runtime/fileid"
)

// M9: the check of an unchanged, pinned model of 5 GB, as at each start.
func BenchmarkPinned(b *testing.B) {
	s, err := Open(b.TempDir() + "/data")
	must(b, err)
	a := model()
	a.Size = 5_000_000_000
	path := s.final(a)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o400)
	must(b, err, f.Truncate(a.Size)) // it has no blocks on disk: an unchanged file is not read
	id, err := fileid.Of(f)
	must(b, errors.Join(err, s.pin(path, id), f.Close()))
	for b.Loop() {
		if _, err := s.Model(b.Context(), a, false); err != nil {
			b.Fatal(err)
		}
	}
}
