//go:build linux

package store

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"companion/messages"
)

// M15: exactly the artifacts that are not in keep are removed, with their records; a partial download only if it was not
// changed for two weeks. A dry run lists the same items and removes none.
func TestPrune(t *testing.T) {
	s, m := open(t), model()
	t.Cleanup(func() { cleanup(s) })
	r, data := packedData(t, "library")
	must(t, put(s, m, content), put(s, r, data))
	_, err := s.Unpack(t.Context(), r)
	must(t, err)
	partial := func(first byte, age time.Duration) messages.Artifact {
		a := model()
		a.SHA256 = [32]byte{first}
		acc, err := s.Accumulate(a, source)
		must(t, err, acc.Begin(0, ""))
		_, err = acc.Write(content[:1000])
		at := time.Now().Add(-age)
		must(t, err, acc.Abort(), os.Chtimes(s.partial(a), at, at))
		return a
	}
	old, fresh, needed := partial(1, PartialLife+time.Hour), partial(2, PartialLife-time.Hour), partial(3, 2*PartialLife)
	must(t, os.WriteFile(filepath.Join(s.dir, "models", "notes.txt"), []byte("not ours"), 0o600))

	prune := func(dryRun bool, keep ...messages.Artifact) string {
		t.Helper()
		set := map[[32]byte]bool{needed.SHA256: true}
		for _, a := range keep {
			set[a.SHA256] = true
		}
		items, err := s.Prune(set, time.Now(), dryRun)
		must(t, err)
		var found []string
		for _, item := range items {
			found = append(found, fmt.Sprint(item.Kind, " ", item.Bytes))
		}
		slices.Sort(found)
		return fmt.Sprint(found)
	}
	if got, want := prune(true, m, r), "[partial 1000]"; got != want {
		t.Fatalf("dry run: got %s, want %s", got, want)
	}
	if s.Held(t.Context(), old).PartialBytes != 1000 {
		t.Fatalf("dry run: got %d partial bytes left, want 1000", s.Held(t.Context(), old).PartialBytes)
	}
	if got, want := prune(false, m, r), "[partial 1000]"; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	for name, a := range map[string]messages.Artifact{"fresh": fresh, "needed": needed} {
		if s.Held(t.Context(), a).PartialBytes != 1000 {
			t.Errorf("%s partial download: got %d bytes, want 1000", name, s.Held(t.Context(), a).PartialBytes)
		}
	}
	if !s.Held(t.Context(), m).Verified || !s.Held(t.Context(), r).Verified {
		t.Fatal("versions in keep: got one removed, want both verified")
	}
	if got, want := prune(false), fmt.Sprintf("[model %d runtime 14]", len(content)); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	if left := append(names(t, s, "runtimes"), names(t, s, "models")...); fmt.Sprint(left) != "[notes.txt]" {
		t.Fatalf("remaining files: got %v, want [notes.txt]", left)
	}
}
