//go:build unix

package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"companion/adapters/artifact"
)

// M12, M16: an archive whose files are larger together than the limit, or that has too many entries of any kind, ends the
// listing. A limit for each entry would not do: many entries may share the same compressed bytes.
func TestListIsBounded(t *testing.T) {
	many := make([]member, 0, 2*artifact.MaxFiles+1)
	for i := range 2*artifact.MaxFiles + 1 {
		many = append(many, folder(fmt.Sprintf("f%d", i)))
	}
	half := strings.Repeat("x", 6000)
	for name, pack := range map[string]func(testing.TB, ...member) []byte{"tar.gz": targz, "zip": zipped} {
		for what, c := range map[string]struct {
			members []member
			most    int64
			says    string
		}{
			"within":           {[]member{file("a/llama-server", half), file("b", half)}, 20_000, ""},
			"large together":   {[]member{file("a/llama-server", half), file("b", half)}, 11_000, "larger than any runtime"},
			"too many entries": {many, 1 << 30, "more than 8192 entries"},
		} {
			path := filepath.Join(t.TempDir(), "archive")
			if err := os.WriteFile(path, pack(t, c.members...), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := list(t.Context(), path, c.most)
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%s, %s: got %v, want %q", name, what, err, c.says)
			}
		}
	}
}

// X6: Ctrl-C ends the listing of a large archive.
func TestListEndsWithContext(t *testing.T) {
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	for name, data := range map[string][]byte{"tar.gz": targz(t, file("a", "x")), "zip": zipped(t, file("a", "x"))} {
		path := filepath.Join(t.TempDir(), "archive")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := List(ctx, path); !errors.Is(err, stopped) || len(got.Files) != 0 {
			t.Errorf("%s: got %+v, %v, want nothing and the cause of the end", name, got, err)
		}
	}
}
