package enrich

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// put writes a file and the folders that it needs.
func put(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func symlink(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

// T15, E6, E7: a vault from elsewhere names no file outside of it. A link that leaves the folder, or that gives another file
// the name of a note, is neither read nor written; one to a note of the folder is read, also where the folder is a link.
func TestLinksOutOfTheFolder(t *testing.T) {
	home := t.TempDir()
	shell := put(t, filepath.Join(home, ".bashrc"), "export SECRET=hunter2\n")
	put(t, filepath.Join(home, "diary.md"), "private\n")
	vault := filepath.Join(home, "vault")
	put(t, filepath.Join(vault, "deep", "a.md"), "hello\n")
	put(t, filepath.Join(vault, "data.bin"), "not a note\n")
	symlink(t, "../.bashrc", filepath.Join(vault, "shell.md"))
	symlink(t, filepath.Join(home, "diary.md"), filepath.Join(vault, "diary.md"))
	symlink(t, "data.bin", filepath.Join(vault, "data.md"))
	symlink(t, "deep/a.md", filepath.Join(vault, "z.md"))
	symlink(t, vault, filepath.Join(home, "named"))
	for _, root := range []string{vault, filepath.Join(home, "named")} {
		paths, problems, err := Expand(t.Context(), []string{root})
		if err != nil || len(paths) != 1 || filepath.Base(paths[0]) != "a.md" {
			t.Errorf("%s: got %v, %v, want the one note", root, paths, err)
		}
		out := map[string]bool{}
		for _, p := range problems {
			out[filepath.Base(p.Path)] = errors.Is(p.Err, ErrLinkOut)
		}
		if len(out) != 3 || !out["shell.md"] || !out["diary.md"] || !out["data.md"] {
			t.Errorf("%s: got %v, want three links that lead out", root, problems)
		}
	}
	// A shell expands vault/*.md to the link itself.
	f := &fake{}
	for _, store := range []Store{FrontMatter{}, Sidecar{}} {
		err := Batch(t.Context(), enricher(f), []string{filepath.Join(vault, "shell.md")}, 1, store, func(o Outcome) {
			if o.Err == nil || !strings.Contains(o.Err.Error(), "which is no Markdown file") {
				t.Errorf("got %v, want a refusal that says where the link leads", o.Err)
			}
		})
		if err != nil {
			t.Error(err)
		}
	}
	if got, err := os.ReadFile(shell); err != nil || string(got) != "export SECRET=hunter2\n" || len(f.turns) != 0 {
		t.Errorf("got %q, %v after %d requests, want the file as it was, and none", got, err, len(f.turns))
	}
	if _, err := os.Lstat(shell + sidecarSuffix); err == nil {
		t.Errorf("got a result next to %s, want none", shell)
	}
	if paths, _, err := Expand(t.Context(), []string{filepath.Join(vault, "diary.md")}); err != nil || len(paths) != 1 {
		t.Errorf("got %v, %v for a link that the user names, want it read", paths, err)
	}
}

// T15, E7: what a pattern matches is followed no further than what a folder holds.
func TestPatternThroughLinks(t *testing.T) {
	home := t.TempDir()
	put(t, filepath.Join(home, "private", "deep", "b.md"), "private\n")
	put(t, filepath.Join(home, "private", "diary.md"), "private\n")
	vault := filepath.Join(home, "vault")
	put(t, filepath.Join(vault, "a.md"), "hello\n")
	symlink(t, "../private", filepath.Join(vault, "x"))
	symlink(t, "../private/diary.md", filepath.Join(vault, "c.md"))
	symlink(t, "a.md", filepath.Join(vault, "z.md"))
	for pattern, want := range map[string]struct{ notes, problems int }{"*": {1, 2}, "*/*.md": {0, 1}, "*.md": {1, 1}, "?/deep/*": {0, 1}} {
		paths, problems, err := Expand(t.Context(), []string{filepath.Join(vault, pattern)})
		if err != nil || len(paths) != want.notes || len(problems) != want.problems {
			t.Errorf("%s: got %v, %v, %v, want %d notes and %d problems", pattern, paths, problems, err, want.notes, want.problems)
		}
	}
}
