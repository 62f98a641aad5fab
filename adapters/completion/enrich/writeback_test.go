package enrich

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"companion/adapters/completion/lane"
)

func resultFor(t testing.TB, path string) Result {
	t.Helper()
	note, err := ReadNote(path)
	if err != nil {
		t.Fatal(err)
	}
	return Result{
		Source: sourceOf(note), Summary: "A garden: \"beds\" & weeds.", Tags: []string{"garden", "a: b"}, OpenQuestions: []string{"who?\nwhen?"},
		Provenance: Provenance{
			GeneratedBy: "test", Model: "m", ModelVersion: "1", Lane: lane.Local, CreatedAt: time.Unix(1_800_000_000, 0).UTC(), SourceEventID: note.Event,
		},
	}
}

// shapes are notes with and without front matter, in each form that it can have.
var shapes = map[string]string{
	"no front matter":      "# Beds\n\nMove the tomatoes.\n",
	"no final newline":     "Move the tomatoes.",
	"YAML":                 "---\ntitle: Beds\ntags: [a]\n---\nMove the tomatoes.\n",
	"YAML, dots":           "---\ntitle: Beds\n...\nMove the tomatoes.\n",
	"YAML without a body":  "---\ntitle: Beds\n---",
	"YAML, block scalar":   "---\ntitle: |+\n  Beds\n\n---\nMove the tomatoes.\n",
	"YAML, comment at end": "---\ntitle: Beds\n# mine\n---\nMove the tomatoes.\n",
	"CRLF":                 "---\r\ntitle: Beds\r\n---\r\nMove the tomatoes.\r\n",
	"byte order mark":      "\ufeff---\ntitle: Beds\n---\nMove the tomatoes.\n",
	"mark, no header":      "\ufeffMove the tomatoes.\n",
	"TOML":                 "+++\ntitle = \"Beds\"\n[extra]\na = 1\n+++\nMove the tomatoes.\n",
	"prose between rulers": "---\nSubject: the beds\n---\nMove the tomatoes.\n",
	"text between markers": "---\n" + beginBlock + "\nmy text\n" + endBlock + "\n---\nText.\n",
	"markers in the text":  "Move.\n# companion:begin\nthe tomatoes\n# companion:end\n",
}

// E6: the block is in the front matter, every other byte is unchanged, the note keeps its digest, and a second write
// changes nothing.
func TestFrontMatterKeepsTheNote(t *testing.T) {
	for name, text := range shapes {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "note.md")
			if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
				t.Fatal(err)
			}
			before, err := ReadNote(path)
			if err != nil {
				t.Fatal(err)
			}
			r := resultFor(t, path)
			var first []byte
			for range 2 {
				if err := (FrontMatter{}).Put(r); err != nil {
					t.Fatal(err)
				}
				written, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if first != nil && !bytes.Equal(first, written) {
					t.Errorf("got %q after the second writing, want %q", written, first)
				}
				first = written
			}
			if plain, _ := withoutBlocks(first); string(plain) != text {
				t.Errorf("got %q outside the markers, want %q", plain, text)
			}
			after, err := ReadNote(path)
			if err != nil {
				t.Fatal(err)
			}
			if done, _ := (FrontMatter{}).Done(after); !done || after.Digest != before.Digest || after.Body != before.Body || after.Title != before.Title {
				t.Errorf("got %+v, want the same note, done", after)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("got mode %v (%v), want 0640", info.Mode().Perm(), err)
			}
			f, _ := findFrontMatter(first)
			parse := yamlHeader
			if f.toml {
				parse = tomlHeader
			}
			if head, ok := parse(first[f.start:f.end]); !ok || !slices.Contains(head.keys, blockKey) {
				t.Errorf("got %q, want front matter with the key %s", first, blockKey)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".enrich-*")); len(left) > 0 {
				t.Errorf("got %v in the folder, want no temporary file", left)
			}
		})
	}
}

// E6: any note is either refused, or unchanged byte for byte when the block is removed.
func TestFrontMatterProperty(t *testing.T) {
	pieces := []string{"---\n", "...\n", "+++\n", "title: a\n", "title = \"a\"\n", beginBlock + "\n", beginHeader + "\n", endBlock + "\n", "companion: 1\n",
		"\ufeff", "text\n", "\r\n", "  x: y\n", "\n", "a: |\n", "source_sha256: \"00\"\n"}
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 1, 12).Draw(t, "pieces"), "")
		note, err := ParseNote("n", []byte(text))
		if err != nil {
			return
		}
		plain, _ := withoutBlocks([]byte(text))
		written, err := withBlock([]byte(text), Result{Source: sourceOf(note), Tags: []string{}, OpenQuestions: []string{}})
		if err != nil {
			return
		}
		if back, source := withoutBlocks(written); !bytes.Equal(back, plain) || source != note.Digest {
			t.Fatalf("got %q made of %s, want %q made of %s", back, source, plain, note.Digest)
		}
	})
}

// E6: a note that cannot be written safely is refused and stays as it is.
func TestFrontMatterRefuses(t *testing.T) {
	const text = "---\ntitle: Beds\n---\nMove the tomatoes.\n"
	tests := []struct {
		name, text string
		change     func(t *testing.T, path string)
		want       string
	}{
		{"changed since", text, func(t *testing.T, path string) { must(t, os.WriteFile(path, []byte(text+"More.\n"), 0o600)) }, "changed since"},
		{"its own companion key", "---\ncompanion: me\n---\nText.\n", nil, `a key "companion"`},
		{"a key added to a block", "", func(t *testing.T, path string) {
			data, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, bytes.Replace(data, []byte(endBlock), []byte("rating: 5\n"+endBlock), 1), 0o600))
		}, "changed since"},
		{"a flow mapping", "---\n{title: Beds}\n---\nText.\n", nil, "--write sidecar"},
		{"hard links", text, func(t *testing.T, path string) { must(t, os.Link(path, path+".2")) }, "hard links"},
		{"gone", text, func(t *testing.T, path string) { must(t, os.Remove(path)) }, "no such file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "note.md")
			if tt.text == "" {
				tt.text = written(t, text)
			}
			must(t, os.WriteFile(path, []byte(tt.text), 0o600))
			r := resultFor(t, path)
			if tt.change != nil {
				tt.change(t, path)
			}
			before, _ := os.ReadFile(path)
			err := FrontMatter{}.Put(r)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			if note, err := ReadNote(path); err == nil && tt.want != "changed since" {
				if done, err := (FrontMatter{}).Done(note); done || err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got done %v, %v before a request to the model, want an error with %q", done, err, tt.want)
				}
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Errorf("got %q, want the note unchanged: %q", after, before)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// E6: a sidecar is a result next to the note; another program's file with that name is kept.
func TestSidecar(t *testing.T) {
	path := filepath.Join(t.TempDir(), "note.md")
	must(t, os.WriteFile(path, []byte("Move the tomatoes.\n"), 0o600))
	r := resultFor(t, path)
	note, err := ReadNote(path)
	must(t, err)
	if done, err := (Sidecar{}).Done(note); done || err != nil {
		t.Errorf("got done %v, %v before writing, want neither", done, err)
	}
	must(t, Sidecar{}.Put(r))
	if done, err := (Both{Sidecar{}, Sidecar{}}).Done(note); !done || err != nil {
		t.Errorf("got done %v, %v, want done", done, err)
	}
	if done, err := (Both{Sidecar{}, FrontMatter{}}).Done(note); done || err != nil {
		t.Errorf("got done %v, %v with one store missing, want neither", done, err)
	}
	must(t, os.WriteFile(path+sidecarSuffix, []byte("mine"), 0o600))
	if err := (Both{Sidecar{}, FrontMatter{}}).Put(r); !errors.Is(err, ErrForeign) {
		t.Errorf("got %v, want ErrForeign", err)
	}
	if kept, _ := os.ReadFile(path + sidecarSuffix); string(kept) != "mine" {
		t.Errorf("got %q, want the file of another program unchanged", kept)
	}
	if note, err = ReadNote(path); err != nil || note.Block != note.Digest {
		t.Errorf("got %+v, %v: want the other store written", note, err)
	}
}
