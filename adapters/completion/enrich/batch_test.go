package enrich

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"companion/adapters/completion"
)

func notes(t *testing.T, n int) []string {
	t.Helper()
	dir := t.TempDir()
	var paths []string
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("note%02d.md", i))
		if err := os.WriteFile(path, fmt.Appendf(nil, "note %d", i), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// E7: at most the requested number of notes run at once; a failure is reported for its note and stops no other.
func TestBatchConcurrency(t *testing.T) {
	paths := notes(t, 9)
	paths = append(paths, filepath.Join(t.TempDir(), "missing.md"))
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running, most := 0, 0
		f := &fake{answer: func(_ context.Context, call int) (completion.Answer, error) {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			running--
			mu.Unlock()
			if call == 4 {
				return completion.Answer{}, &completion.Error{Status: 502, Code: "upstream_failed"}
			}
			return completion.Answer{Text: good}, nil
		}}
		var out strings.Builder
		var failed []string
		start := time.Now()
		err := Batch(t.Context(), enricher(f), paths, 3, Stream{&out}, func(o Outcome) {
			if o.Err != nil {
				failed = append(failed, filepath.Base(o.Path))
			}
		})
		if err != nil || most != 3 || time.Since(start) != 3*time.Second {
			t.Errorf("got %v, %d at once, after %v, want no error, 3 at once, after 3s", err, most, time.Since(start))
		}
		slices.Sort(failed)
		if len(failed) != 2 || failed[0] != "missing.md" || strings.Count(out.String(), "\n") != 8 {
			t.Errorf("failed %v, wrote %s, want missing.md and one more failed, 8 lines written", failed, out.String())
		}
	})
}

// E7: after an interruption and a new start, finished notes are skipped and changed notes are done again.
func TestBatchResumes(t *testing.T) {
	stores := map[string]func(t *testing.T, place string) (Store, func()){
		"folder": func(t *testing.T, place string) (Store, func()) {
			if err := os.MkdirAll(place, 0o755); err != nil {
				t.Fatal(err)
			}
			f, err := OpenFolder(place)
			if err != nil {
				t.Fatal(err)
			}
			return f, func() {}
		},
		"lines": func(t *testing.T, place string) (Store, func()) {
			l, err := OpenLines(place)
			if err != nil {
				t.Fatal(err)
			}
			return l, func() { _ = l.Close() }
		},
	}
	for name, openStore := range stores {
		t.Run(name, func(t *testing.T) {
			paths := notes(t, 5)
			place := filepath.Join(t.TempDir(), "out")
			ctx, interrupt := context.WithCancel(t.Context())
			first := &fake{answer: func(ctx context.Context, call int) (completion.Answer, error) {
				if call == 3 {
					interrupt()
				}
				if ctx.Err() != nil {
					return completion.Answer{}, ctx.Err()
				}
				return completion.Answer{Text: good}, nil
			}}
			store, closeStore := openStore(t, place)
			if err := Batch(ctx, enricher(first), paths, 1, store, func(Outcome) {}); !errors.Is(err, context.Canceled) {
				t.Fatalf("interrupted: got %v, want context.Canceled", err)
			}
			closeStore()
			if err := os.WriteFile(paths[0], []byte("changed"), 0o600); err != nil {
				t.Fatal(err)
			}
			if name == "lines" { // a crash in mid-write
				file, err := os.OpenFile(place, os.O_APPEND|os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				_, err = file.WriteString(`{"source":{"pa`)
				if err := errors.Join(err, file.Close()); err != nil {
					t.Fatal(err)
				}
			}
			second := &fake{}
			var skipped []string
			store, closeStore = openStore(t, place)
			defer closeStore()
			err := Batch(t.Context(), enricher(second), paths, 2, store, func(o Outcome) {
				if o.Skipped {
					skipped = append(skipped, o.Path)
				}
			})
			if err != nil || !slices.Equal(skipped, paths[1:2]) || len(second.turns) != 4 {
				t.Errorf("got %v, skipped %v, asked %d times, want no error, %v, 4 times", err, skipped, len(second.turns), paths[1:2])
			}
			for _, path := range paths {
				n, err := ReadNote(path)
				if err != nil {
					t.Fatal(err)
				}
				if done, err := store.Done(n); err != nil || !done {
					t.Errorf("%s: got done false, %v, want done", path, err)
				}
			}
		})
	}
}

// E6: no file of the user is overwritten, whatever its content.
func TestForeignPlaces(t *testing.T) {
	dir := t.TempDir()
	whole := line(t)
	for _, text := range []string{
		"my shopping list", "my shopping list\n", `{"source":1}` + "\n", good + "\n",
		`{"source":`, `{"source":{"path":"of mine"}}`, whole + "my shopping list", whole + `{"mine":`,
	} {
		place := filepath.Join(dir, "list")
		if err := os.WriteFile(place, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenLines(place); !errors.Is(err, ErrForeign) {
			t.Errorf("%q: got %v, want ErrForeign", text, err)
		}
		if got, err := os.ReadFile(place); err != nil || string(got) != text {
			t.Errorf("got %q, want %q unchanged", text, got)
		}
	}
}

// E7: a complete last line without a newline counts as a result, and the next result begins on a new line.
func TestLineWithoutEnd(t *testing.T) {
	place := filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(place, []byte(strings.TrimSuffix(line(t), "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l, err := OpenLines(place)
		if err != nil {
			t.Fatal(err)
		}
		if done, err := l.Done(note(t, "Body.")); err != nil || !done {
			t.Errorf("an existing result: got done false, %v, want done", err)
		}
		if err := errors.Join(Batch(t.Context(), enricher(&fake{}), notes(t, 1), 1, l, func(Outcome) {}), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(place); err != nil || strings.Count(string(got), "\n") != 3 {
		t.Errorf("got %s, %v, want 3 lines", got, err)
	}
}

// E6, E7: a folder of the user's choice may be open to others, or be a link; the results in it are not open.
// A file that enrich did not write fails its own note, before a request to the model, and no other note.
func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	folder, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	paths := notes(t, 3)
	if err := os.WriteFile(folder.name(Source{Path: paths[0]}), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &fake{}
	var failed []string
	err = Batch(t.Context(), enricher(f), paths, 1, folder, func(o Outcome) {
		if errors.Is(o.Err, ErrForeign) {
			failed = append(failed, o.Path)
		} else if o.Err != nil {
			t.Error(o.Err)
		}
	})
	if err != nil || !slices.Equal(failed, paths[:1]) || len(f.turns) != 2 {
		t.Errorf("got %v, failed %v, asked %d times, want no error, %v, 2 times", err, failed, len(f.turns), paths[:1])
	}
	if got, err := os.ReadFile(folder.name(Source{Path: paths[0]})); err != nil || string(got) != "mine" {
		t.Errorf("got %q, %v, want the existing file unchanged", got, err)
	}
	if info, err := os.Stat(folder.name(Source{Path: paths[1]})); err != nil {
		t.Error(err)
	} else if info.Mode() != 0o600 {
		t.Errorf("got mode %v of the result, want 0600", info.Mode())
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 3 {
		t.Errorf("got %d files, %v, want 3", len(all), err)
	}
	for _, bad := range []string{folder.name(Source{Path: paths[0]}), "/dev/null/x", "/proc/self"} {
		if _, err := OpenFolder(bad); err == nil {
			t.Errorf("OpenFolder(%q) = nil, want an error", bad)
		}
	}
}

// full is a writer that accepts a number of writes and then fails.
type full int

func (f *full) Write(p []byte) (int, error) {
	if *f--; *f < 0 {
		return 0, syscall.ENOSPC
	}
	return len(p), nil
}

// E7: if no more results can be written, the batch ends and reports the note for which that failed.
func TestClosedStore(t *testing.T) {
	paths := notes(t, 9)
	out := full(2)
	f := &fake{}
	var ended []Outcome
	err := Batch(t.Context(), enricher(f), paths, 1, Stream{&out}, func(o Outcome) { ended = append(ended, o) })
	if !errors.Is(err, ErrClosed) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want ErrClosed and ENOSPC", err)
	}
	if len(ended) < 3 || ended[1].Err != nil || !errors.Is(ended[2].Err, ErrClosed) || len(f.turns) == len(paths) {
		t.Errorf("got %+v, asked %d times, want the first done, the third ErrClosed, fewer than %d requests", ended, len(f.turns), len(paths))
	}
}

// line is an encoded result of the note n.md.
func line(t *testing.T) string {
	t.Helper()
	result, err := enricher(&fake{}).Note(t.Context(), note(t, "Body."))
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := encode(result)
	if err != nil {
		t.Fatal(err)
	}
	return string(encoded)
}

func TestExpand(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.md", "a.MD", "sub/c.markdown", "sub/d.txt", ".hidden/e.md", ".f.md"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	got, _, err := Expand(t.Context(), []string{dir, filepath.Join(dir, "b.md"), filepath.Join(dir, "sub/d.txt"), "-"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		got[i] = strings.TrimPrefix(got[i], dir+"/")
	}
	if want := []string{"a.MD", "b.md", "sub/c.markdown", "sub/d.txt", "-"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, _, err := Expand(t.Context(), []string{t.TempDir()}); err == nil {
		t.Error("a folder without notes: got no error, want one")
	}
}
