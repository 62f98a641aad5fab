package enrich

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// resultOf is a result for a note at path.
func resultOf(t *testing.T, path, summary string) Result {
	t.Helper()
	r, err := enricher(&fake{}).Note(t.Context(), note(t, "Body of "+path))
	if err != nil {
		t.Fatal(err)
	}
	r.Source.Path, r.Summary = path, summary
	return r
}

// E7: several runs write one file at the same time, in one process and in several; the file holds the union, each
// note once, and no line is damaged.
func TestConcurrentRuns(t *testing.T) {
	if at := os.Getenv("ENRICH_TEST_RUN"); at != "" {
		writeRun(t, at, os.Getenv("ENRICH_TEST_FILE"))
		return
	}
	place := filepath.Join(t.TempDir(), "out.jsonl")
	var group sync.WaitGroup
	for i := range 3 {
		group.Go(func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestConcurrentRuns$")
			cmd.Env = append(os.Environ(), "ENRICH_TEST_RUN="+strconv.Itoa(i), "ENRICH_TEST_FILE="+place)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("run %d: %v\n%s", i, err, out)
			}
		})
	}
	for i := 3; i < 5; i++ {
		group.Go(func() { writeRun(t, strconv.Itoa(i), place) })
	}
	group.Wait()
	data, err := os.ReadFile(place)
	if err != nil {
		t.Fatal(err)
	}
	// 5 runs write 20 notes of their own each, and 20 notes that all of them share.
	seen := map[string]int{}
	for line := range bytes.Lines(data) {
		r, err := decodeResult(line)
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		seen[r.Source.Path]++
	}
	if len(seen) != 120 {
		t.Errorf("got %d notes, want 120", len(seen))
	}
	for path, n := range seen {
		if n != 1 {
			t.Errorf("%s: got %d lines, want 1", path, n)
		}
	}
}

func writeRun(t *testing.T, run, place string) {
	l, err := OpenLines(place)
	if err != nil {
		t.Error(err)
		return
	}
	for i := range 20 {
		for _, path := range []string{fmt.Sprintf("/own/%s/%d.md", run, i), fmt.Sprintf("/shared/%d.md", i)} {
			if err := l.Put(resultOf(t, path, strings.Repeat("x", 1+i*13%250))); err != nil {
				t.Error(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// E7: an incomplete line that a crash or power loss left after complete results is removed and counted; the results stay.
func TestTornTail(t *testing.T) {
	whole := line(t)
	torn := []string{strings.Repeat("\x00", 4096), whole[:len(whole)-1][:len(whole)/2] + strings.Repeat("\x00", 100)}
	for i := 1; i < len(whole)-2; i += 7 {
		torn = append(torn, whole[:i])
	}
	for _, tail := range torn {
		place := filepath.Join(t.TempDir(), "out.jsonl")
		if err := os.WriteFile(place, []byte(whole+tail), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := OpenLines(place)
		if err != nil {
			t.Fatalf("tail %q: %v", tail, err)
		}
		if got, err := os.ReadFile(place); err != nil || string(got) != whole || l.Cut() != int64(len(tail)) {
			t.Errorf("tail %q: got %d bytes and %d cut, want %d and %d (%v)", tail, len(got), l.Cut(), len(whole), len(tail), err)
		}
	}
	place := filepath.Join(t.TempDir(), "out.jsonl")
	if err := os.WriteFile(place, make([]byte, 512), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLines(place); err != nil {
		t.Errorf("a file of zeros: %v", err)
	}
}

// E7: a run succeeds only if the file contains every result that it has written.
func TestLostResults(t *testing.T) {
	place := filepath.Join(t.TempDir(), "out.jsonl")
	l, err := OpenLines(place)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/a.md", "/b.md"} {
		if err := l.Put(resultOf(t, path, "s")); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(place)
	if err != nil {
		t.Fatal(err)
	}
	_, second, _ := bytes.Cut(data, []byte("\n"))
	if err := os.WriteFile(place, second, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err == nil || !strings.Contains(err.Error(), "1 of 2 results are no longer in") {
		t.Errorf("got %v, want the number of lost results", err)
	}
}

// E7: one note has one result under every spelling of its path, and under a name that is not UTF-8.
func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	odd := filepath.Join(dir, "caf\xe9.md")
	for _, path := range []string{"a.md", odd} {
		if err := os.WriteFile(path, []byte("note"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a.md", "link.md"); err != nil {
		t.Fatal(err)
	}
	spellings := []string{"a.md", "./a.md", filepath.Join(dir, "a.md"), "link.md", odd, "caf\xe9.md"}
	listed, problems, err := Expand(t.Context(), append(spellings, "."))
	if err != nil || len(problems) != 0 || len(listed) != 2 {
		t.Errorf("got %q, %v, %v; want two notes", listed, problems, err)
	}
	for name, open := range map[string]func() (Store, func() error, error){
		"lines": func() (Store, func() error, error) {
			l, err := OpenLines(filepath.Join(dir, "out.jsonl"))
			return l, l.Close, err
		},
		"folder": func() (Store, func() error, error) {
			f, err := OpenFolder(filepath.Join(dir, "out"))
			return f, func() error { return nil }, err
		},
	} {
		f := &fake{}
		for _, path := range spellings {
			store, closeStore, err := open()
			if err != nil {
				t.Fatal(err)
			}
			err = errors.Join(Batch(t.Context(), enricher(f), []string{path}, 1, store, func(o Outcome) {
				if o.Err != nil {
					t.Errorf("%s: %q: got %v, want no error", name, path, o.Err)
				}
			}), closeStore())
			if err != nil {
				t.Fatal(err)
			}
		}
		if len(f.turns) != 2 {
			t.Errorf("%s: the model was asked %d times, want 2", name, len(f.turns))
		}
	}
}

// E7: results of versions before the first release, with the path as it was given, still count.
func TestFormerResults(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("n.md", []byte("Body."), 0o600); err != nil {
		t.Fatal(err)
	}
	const former = `{"source":{"path":"n.md","sha256":"%s"},"summary":"s","tags":[],"open_questions":[],"truncated":false,` +
		`"provenance":{"generated_by":"c","model":"m","model_version":"1","lane":"local","created_at":"2026-01-02T03:04:05Z","source_event_id":"e"}}`
	n, err := ReadNote("n.md")
	if err != nil {
		t.Fatal(err)
	}
	result := fmt.Sprintf(former, n.Digest)
	if err := os.WriteFile("out.jsonl", []byte(result+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lines, err := OpenLines("out.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	folder, err := OpenFolder("out")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(folder.formerName("n.md"), []byte(result), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, store := range map[string]Store{"lines": lines, "folder": folder} {
		if done, err := store.Done(n); err != nil || !done {
			t.Errorf("%s: got done %v, %v; want true", name, done, err)
		}
	}
}

// E7: two texts from standard input have two results, and a file name that belongs to another note is refused.
func TestFolderNames(t *testing.T) {
	folder, err := OpenFolder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		r := resultOf(t, Standard, "s")
		r.Source.SHA256 = strings.Repeat(strconv.Itoa(i), 64)
		if err := folder.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	other := resultOf(t, "/other.md", "keep")
	line, err := encode(other)
	if err != nil {
		t.Fatal(err)
	}
	mine := resultOf(t, "/mine.md", "s")
	if err := os.WriteFile(folder.name(mine.Source), line, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := folder.Put(mine); err == nil || !strings.Contains(err.Error(), "another note") {
		t.Errorf("got %v, want a refusal that names another note", err)
	}
	entries, err := os.ReadDir(folder.dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("got %d files (%v), want 3", len(entries), err)
	}
}
