//go:build linux

package store

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"companion/messages"
)

// T17: a file or folder that is not private is refused with a clear message, and not changed.
func TestNotPrivate(t *testing.T) {
	a := model()
	type change struct {
		change func(t *testing.T, path string)
		says   string
	}
	cases := map[string]change{
		"symbolic link": {func(t *testing.T, path string) {
			must(t, os.Rename(path, path+".x"), os.Symlink(path+".x", path))
		}, "a symbolic link"},
		"hard link": {func(t *testing.T, path string) { must(t, os.Link(path, path+".x")) }, "2 hard links"},
		"mode":      {func(t *testing.T, path string) { must(t, os.Chmod(path, 0o640)) }, "mode 0640"},
		"folder":    {func(t *testing.T, path string) { must(t, os.Remove(path), os.Mkdir(path, 0o700)) }, "something else"},
	}
	if os.Geteuid() == 0 { // only root can give a file away
		cases["owner"] = change{func(t *testing.T, path string) { must(t, os.Chown(path, 12345, 12345)) }, "owner 12345"}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			must(t, put(s, a, content))
			c.change(t, s.final(a))
			_, err := s.Model(t.Context(), a, false)
			if reasonOf(err) != messages.ReasonInvalidModelPath || (name != "folder" && !strings.Contains(err.Error(), c.says)) {
				t.Fatalf("Model: got %v, want an error with %q", err, c.says)
			}
			quiet(t, err, s, a)
			if _, err := os.Lstat(s.final(a)); err != nil {
				t.Fatalf("got %v, want the file still there", err)
			}

			s = open(t)
			acc, err := s.Accumulate(a, source)
			must(t, err, acc.Begin(0, `"one"`))
			_, err = acc.Write(content[:1000])
			must(t, err, acc.Abort())
			c.change(t, s.partial(a))
			if _, err := s.Accumulate(a, source); reasonOf(err) != messages.ReasonInvalidModelPath {
				t.Fatalf("Accumulate: got %v, want invalid_model_path", err)
			}
		})
	}
	for _, sub := range []string{"", "models", "archives", "runtimes", "partial"} {
		s := open(t)
		must(t, os.Chmod(filepath.Join(s.dir, sub), 0o755))
		if _, err := Open(s.dir); err == nil || !strings.Contains(err.Error(), "mode 0755") {
			t.Errorf("%q with mode 0755: got %v, want an error that names the mode", sub, err)
		}
	}
}

// M10: the binaries that may be used unpinned.
func TestUnpinned(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "llama-server")
	write := func(name string, mode fs.FileMode) string {
		p := filepath.Join(dir, name)
		must(t, os.WriteFile(p, []byte("#!"), 0o700), os.Chmod(p, mode))
		return p
	}
	write("llama-server", 0o755)
	must(t, os.Symlink(good, filepath.Join(dir, "link")))
	for path, want := range map[string]messages.Reason{
		good:                           messages.ReasonOK,
		"llama-server":                 messages.ReasonInvalidBinaryPath,
		"":                             messages.ReasonInvalidBinaryPath,
		dir + "/../x":                  messages.ReasonInvalidBinaryPath,
		dir:                            messages.ReasonInvalidBinaryPath,
		filepath.Join(dir, "link"):     messages.ReasonInvalidBinaryPath,
		filepath.Join(dir, "none"):     messages.ReasonInvalidBinaryPath,
		write("data", 0o644):           messages.ReasonInvalidBinaryPath,
		write("group-writable", 0o775): messages.ReasonBinaryUntrusted,
		write("world-writable", 0o757): messages.ReasonBinaryUntrusted,
	} {
		got, err := Unpinned(path)
		if reasonOf(err) != want {
			t.Errorf("%q: got %v, want %s", path, err, want)
		}
		if err == nil && (got.Pinned || filepath.Join(got.Dir, got.Executable) != good) {
			t.Errorf("got %+v, want the unpinned binary %s", got, good)
		}
	}
}

// quiet fails if the error's text contains a path or a digest.
func quiet(t *testing.T, err error, s *Store, a messages.Artifact) {
	t.Helper()
	digest, _, _ := strings.Cut(filepath.Base(s.final(a)), ".")
	if text := err.Error(); strings.Contains(text, s.dir) || strings.Contains(text, digest) {
		t.Errorf("got error %q, want it without path and digest", text)
	}
}
