package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

func testSource() source {
	return source{commit: strings.Repeat("a1", 20), at: time.Unix(1700000000, 0).UTC(), version: "1.2.3"}
}

// files makes what an archive is packed from, with times of their own.
func files(t *testing.T, modified time.Time) (program, tree, pages string) {
	t.Helper()
	dir := t.TempDir()
	program, tree, pages = filepath.Join(dir, "bin", "companion"), filepath.Join(dir, "tree"), filepath.Join(dir, "man")
	for _, name := range append([]string{program, filepath.Join(pages, "companion.1"), filepath.Join(pages, "companion-status.1")}, inTree(tree)...) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(filepath.Base(name)), 0o600), os.Chtimes(name, modified, modified)); err != nil {
			t.Fatal(err)
		}
	}
	return program, tree, pages
}

func inTree(tree string) []string {
	var all []string
	for _, name := range documents {
		all = append(all, filepath.Join(tree, name))
	}
	return all
}

// The bytes of an archive depend on the content of the files alone, not on their folder, mode, owner or time.
func TestArchivesAreReproducible(t *testing.T) {
	for _, p := range []platform{{"linux", "amd64", true}, {"windows", "amd64", false}} {
		var sums []string
		for _, modified := range []time.Time{time.Unix(1, 0), time.Now()} {
			program, tree, pages := files(t, modified)
			archive, err := testSource().pack(filepath.Join(t.TempDir(), "x"), "x", program, tree, pages, p)
			if err != nil {
				t.Fatal(err)
			}
			list, err := checksums([]string{archive})
			if err != nil {
				t.Fatal(err)
			}
			sums = append(sums, list)
		}
		if err := same(sums[0], sums[1]); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	if err := same("00  a\n11  b\n", "00  a\n22  b\n"); err == nil || !strings.HasSuffix(err.Error(), ": b") {
		t.Errorf("got %v for two builds that differ in b, want an error that names it", err)
	}
}

// An archive holds the program as an executable, the documents and the man pages.
func TestArchiveContent(t *testing.T) {
	program, tree, pages := files(t, time.Now())
	archive, err := testSource().pack(filepath.Join(t.TempDir(), "x"), "companion_1", program, tree, pages, platforms[0])
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	modes := map[string]int64{}
	for reader := tar.NewReader(unzipped); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		modes[header.Name] = header.Mode
	}
	for name, want := range map[string]int64{"companion_1/companion": 0o755, "companion_1/README.md": 0o644, "companion_1/man/man1/companion-status.1": 0o644} {
		if modes[name] != want {
			t.Errorf("%s: got mode %o, want %o; the archive has %v", name, modes[name], want, modes)
		}
	}
	if _, err := collect(program, tree, t.TempDir()); err == nil {
		t.Error("got no error without man pages, want one")
	}
}

// A bill of materials lists the modules that Go recorded in a real program, and its parts refer to each other.
func TestBill(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	info.Deps = append(info.Deps, &debug.Module{Path: "example.org/m", Version: "v1.0.0", Sum: "h1:x="})
	made := testSource().billOf(info, [32]byte{1, 2, 3})
	encoded, err := json.Marshal(made)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := json.Marshal(testSource().billOf(info, [32]byte{1, 2, 3}))
	if !bytes.Equal(encoded, again) {
		t.Error("got two different bills of materials of one program, want equal ones")
	}
	if !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(made.SerialNumber) {
		t.Errorf("got the serial number %s, want a UUID", made.SerialNumber)
	}
	refs := map[string]bool{}
	for _, c := range made.Components {
		refs[c.Ref] = true
	}
	if !refs["std"] || !refs["pkg:golang/example.org/m@v1.0.0"] || len(refs) != len(info.Deps)+1 {
		t.Errorf("got the components %v, want std and the modules", refs)
	}
	for _, ref := range made.Dependencies[0].DependsOn {
		if !refs[ref] {
			t.Errorf("got a dependency on %s, want one of the components", ref)
		}
	}
	if len(made.Dependencies[0].DependsOn) != len(refs) {
		t.Errorf("got %d dependencies, want %d", len(made.Dependencies[0].DependsOn), len(refs))
	}
}
