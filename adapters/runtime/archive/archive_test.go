//go:build unix

package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	malformed = messages.ReasonMalformedSpec
	size      = messages.ReasonSizeMismatch
	digest    = messages.ReasonDigestMismatch
)

var (
	goodList = []messages.ArchiveFile{
		program("bin/llama-server", "program"), listed("lib/libggml.so.0.17", "library"),
		linked("lib/libggml.so.0", "libggml.so.0.17"), linked("lib/libggml.so", "libggml.so.0"),
		linked("bin/libggml.so", "../lib/libggml.so"), listed("LICENSE", "text"),
	}
	goodMembers = []member{
		folder("bin"), link("bin/libggml.so", "../lib/libggml.so"),
		{name: "bin/llama-server", kind: tar.TypeReg, body: "program", mode: 0o6755},
		link("lib/libggml.so", "libggml.so.0"), link("lib/libggml.so.0", "libggml.so.0.17"),
		file("lib/libggml.so.0.17", "library"), file("LICENSE", "text"),
	}
)

// unpack runs Unpack in a folder next to the archive, and checks that nothing else was written and the archive is unchanged.
func unpack(t testing.TB, data []byte, format string, list []messages.ArchiveFile) (string, error) {
	t.Helper()
	base := t.TempDir()
	dir := filepath.Join(base, "folder")
	src := filepath.Join(base, "archive")
	must(t, os.Mkdir(dir, 0o700), os.WriteFile(src, data, 0o600))
	f, err := os.Open(src)
	must(t, err)
	defer f.Close()
	t.Cleanup(func() { must(t, Remove(dir)) })
	err = Unpack(context.Background(), f, format, list, dir)
	entries, readErr := os.ReadDir(base)
	must(t, readErr)
	if len(entries) != 2 {
		t.Fatalf("outside the folder: got %v, want only the archive", entries)
	}
	if now, readErr := os.ReadFile(src); readErr != nil || !bytes.Equal(now, data) {
		t.Fatal("archive: got it changed, want it unchanged")
	}
	return dir, err
}

// M12: an archive like llama.cpp's releases unpacks to exactly the list, read-only, without set-id bits.
func TestUnpack(t *testing.T) {
	for format, data := range map[string][]byte{"tar.gz": targz(t, goodMembers...), "zip": zipped(t, goodMembers...)} {
		t.Run(format, func(t *testing.T) {
			dir, err := unpack(t, data, format, goodList)
			must(t, err, Check(t.Context(), dir, goodList, true))
			for name, want := range map[string]fs.FileMode{
				".": fs.ModeDir | 0o500, "bin": fs.ModeDir | 0o500, "bin/llama-server": 0o500, "lib/libggml.so.0.17": 0o400,
				"lib/libggml.so": fs.ModeSymlink | 0o777,
			} {
				info, err := os.Lstat(filepath.Join(dir, name))
				must(t, err)
				if info.Mode() != want {
					t.Errorf("mode of %s: got %v, want %v", name, info.Mode(), want)
				}
			}
			body, err := os.ReadFile(filepath.Join(dir, "bin/libggml.so"))
			if err != nil || string(body) != "library" {
				t.Errorf("through two links: got %q, %v; want \"library\"", body, err)
			}
		})
	}
}

// M12, T6: one hostile archive per rule, in both formats.
func TestUnpackRefuses(t *testing.T) {
	list := []messages.ArchiveFile{program("bin/a", "aaaa"), listed("b", "bbbb"), linked("l", "b")}
	good := []member{file("bin/a", "aaaa"), file("b", "bbbb"), link("l", "b")}
	with := func(extra ...member) []member { return append(append([]member{}, good...), extra...) }
	only := func(m ...member) []member { return m }
	for name, c := range map[string]struct {
		members []member
		want    messages.Reason
	}{
		"parent path":          {with(file("../evil", "x")), malformed},
		"dots inside":          {with(file("bin/../../evil", "x")), malformed},
		"dotted known file":    {only(file("./b", "bbbb"), good[0], good[2]), malformed},
		"absolute path":        {with(file("/tmp/evil", "x")), malformed},
		"backslash path":       {with(file(`..\evil`, "x")), malformed},
		"extra file":           {with(file("extra", "x")), malformed},
		"extra folder":         {with(folder("extra")), malformed},
		"parent folder":        {with(folder("..")), malformed},
		"folder over file":     {only(folder("b"), good[0], good[2]), malformed},
		"missing file":         {only(good[0], good[2]), malformed},
		"missing link":         {only(good[0], good[1]), malformed},
		"nothing":              {nil, malformed},
		"twice":                {with(file("b", "bbbb")), malformed},
		"other case":           {with(file("B", "bbbb")), malformed},
		"link elsewhere":       {only(good[0], good[1], link("l", "/etc/passwd")), malformed},
		"link outward":         {only(good[0], good[1], link("l", "../../b")), malformed},
		"empty link":           {only(good[0], good[1], link("l", "")), malformed},
		"link for a file":      {only(good[0], link("b", "bin/a"), good[2]), malformed},
		"file for a link":      {only(good[0], good[1], file("l", "")), malformed},
		"link as folder":       {only(link("bin", "/tmp"), good[0], good[1], good[2]), malformed},
		"long link":            {only(good[0], good[1], link("l", strings.Repeat("x", 4096))), malformed},
		"device":               {only(good[0], member{name: "b", kind: tar.TypeChar, mode: 0o666}, good[2]), malformed},
		"fifo":                 {only(good[0], member{name: "b", kind: tar.TypeFifo, mode: 0o666}, good[2]), malformed},
		"longer file":          {only(good[0], file("b", "bbbbb"), good[2]), size},
		"shorter file":         {only(good[0], file("b", "bbb"), good[2]), size},
		"another content":      {only(good[0], file("b", "bbbc"), good[2]), digest},
		"another program":      {only(file("bin/a", "aaab"), good[1], good[2]), digest},
		"bomb in a known file": {only(file("b", strings.Repeat("b", 8<<20)), good[0], good[2]), size},
	} {
		for format, data := range map[string][]byte{"tar.gz": targz(t, c.members...), "zip": zipped(t, c.members...)} {
			_, err := unpack(t, data, format, list)
			if got := reasonOf(err); got != c.want {
				t.Errorf("%s in %s: got %v, want %s", name, format, err, c.want)
			}
		}
	}
	hard := member{name: "b", kind: tar.TypeLink, link: "/etc/passwd", mode: 0o644}
	if _, err := unpack(t, targz(t, good[0], hard, good[2]), "tar.gz", list); reasonOf(err) != malformed {
		t.Errorf("hard link: got %v, want malformed_spec", err)
	}
	whole := targz(t, good...)
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-6] ^= 1 // the checksum at the end of the gzip stream
	for name, data := range map[string][]byte{
		"empty": {}, "nonsense": []byte("nonsense"), "cut": whole[:len(whole)/2], "flipped": flipped,
		"trailing bomb": append(bytes.Clone(whole), gzipOf(t, make([]byte, 64<<20))...),
	} {
		if _, err := unpack(t, data, "tar.gz", list); reasonOf(err) != malformed {
			t.Errorf("%s: got %v, want malformed_spec", name, err)
		}
	}
	if _, err := unpack(t, whole, "zip", list); reasonOf(err) != malformed {
		t.Errorf("tar.gz as zip: got %v, want malformed_spec", err)
	}
	if _, err := unpack(t, whole, "rar", list); reasonOf(err) != malformed {
		t.Errorf("unknown format: got %v, want malformed_spec", err)
	}
}

// M12: a zip whose entry has another size than its headers say is refused.
func TestZipSizesLie(t *testing.T) {
	body := strings.Repeat("b", 1<<20)
	data := zipped(t, file("b", body))
	// Both size fields of the central directory's record are little-endian, 4 bytes each.
	central := bytes.LastIndex(data, []byte("PK\x01\x02"))
	copy(data[central+24:], []byte{4, 0, 0, 0})
	_, err := unpack(t, data, "zip", []messages.ArchiveFile{listed("b", "bbbb")})
	if err == nil {
		t.Fatal("got no error, want one")
	}
}

// M12: an archive with a larger ratio than maxRatio is refused.
func TestRatio(t *testing.T) {
	body := strings.Repeat("\x00", 4<<20)
	_, err := unpack(t, targz(t, file("b", body)), "tar.gz", []messages.ArchiveFile{listed("b", body)})
	if reasonOf(err) != malformed {
		t.Fatalf("Unpack: got %v, want malformed_spec", err)
	}
}

// M10, M12, T17: Check detects every difference between an unpacked folder and the list.
func TestCheckSeesEveryChange(t *testing.T) {
	data := targz(t, goodMembers...)
	writable := func(dir string) { must(t, os.Chmod(dir, 0o700), os.Chmod(filepath.Join(dir, "lib"), 0o700)) }
	readOnly := func(dir string) { must(t, os.Chmod(dir, 0o500), os.Chmod(filepath.Join(dir, "lib"), 0o500)) }
	library := func(dir string) string { return filepath.Join(dir, "lib/libggml.so.0.17") }
	for name, c := range map[string]struct {
		change func(dir string)
		want   messages.Reason // with hashing
		quick  messages.Reason // without
	}{
		"nothing": {func(string) {}, messages.ReasonOK, messages.ReasonOK},
		"content": {func(dir string) {
			must(t, os.Chmod(library(dir), 0o600), os.WriteFile(library(dir), []byte("librarY"), 0o600), os.Chmod(library(dir), 0o400))
		}, digest, messages.ReasonOK},
		"size": {func(dir string) {
			must(t, os.Chmod(library(dir), 0o600), os.WriteFile(library(dir), []byte("librar"), 0o600), os.Chmod(library(dir), 0o400))
		}, size, size},
		"mode":         {func(dir string) { must(t, os.Chmod(library(dir), 0o640)) }, malformed, malformed},
		"set-id":       {func(dir string) { must(t, os.Chmod(library(dir), 0o400|fs.ModeSetuid)) }, malformed, malformed},
		"folder mode":  {func(dir string) { must(t, os.Chmod(filepath.Join(dir, "lib"), 0o755)) }, malformed, malformed},
		"missing":      {func(dir string) { must(t, os.Remove(library(dir))) }, malformed, malformed},
		"extra file":   {func(dir string) { must(t, os.WriteFile(filepath.Join(dir, "lib/x"), nil, 0o400)) }, malformed, malformed},
		"extra folder": {func(dir string) { must(t, os.Mkdir(filepath.Join(dir, "x"), 0o500)) }, malformed, malformed},
		"extra link":   {func(dir string) { must(t, os.Symlink("LICENSE", filepath.Join(dir, "x"))) }, malformed, malformed},
		"link": {func(dir string) {
			must(t, os.Remove(filepath.Join(dir, "lib/libggml.so")), os.Symlink("/etc/passwd", filepath.Join(dir, "lib/libggml.so")))
		}, malformed, malformed},
		"link for a file": {func(dir string) { must(t, os.Remove(library(dir)), os.Symlink("../LICENSE", library(dir))) }, malformed, malformed},
		"hard link":       {func(dir string) { must(t, os.Link(library(dir), dir+".second")) }, malformed, malformed},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := unpack(t, data, "tar.gz", goodList)
			must(t, err)
			writable(dir)
			readOnlyAfter := name != "folder mode"
			c.change(dir)
			if readOnlyAfter {
				readOnly(dir)
			} else {
				must(t, os.Chmod(dir, 0o500))
			}
			if err := Check(t.Context(), dir, goodList, true); reasonOf(err) != c.want {
				t.Errorf("with hashing: got %v, want %s", err, c.want)
			}
			if err := Check(t.Context(), dir, goodList, false); reasonOf(err) != c.quick {
				t.Errorf("without hashing: got %v, want %s", err, c.quick)
			}
		})
	}
	if err := Check(t.Context(), filepath.Join(t.TempDir(), "none"), goodList, true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: got %v, want fs.ErrNotExist", err)
	}
	dir, err := unpack(t, data, "tar.gz", goodList)
	must(t, err, os.Symlink(dir, dir+"-link"))
	if err := Check(t.Context(), dir+"-link", goodList, true); reasonOf(err) != malformed {
		t.Errorf("folder behind a link: got %v, want malformed_spec", err)
	}
	if os.Geteuid() == 0 {
		must(t, os.Chown(library(dir), 12345, 12345))
		if err := Check(t.Context(), dir, goodList, false); reasonOf(err) != malformed {
			t.Errorf("another owner: got %v, want malformed_spec", err)
		}
	}
}

// T17: Remove does not follow a link.
func TestRemove(t *testing.T) {
	base := t.TempDir()
	theirs, link := filepath.Join(base, "theirs"), filepath.Join(base, "link")
	must(t, os.Mkdir(theirs, 0o500), os.Symlink(theirs, link), Remove(link), Remove(filepath.Join(base, "none")))
	if info, err := os.Lstat(theirs); err != nil || info.Mode().Perm() != 0o500 {
		t.Fatalf("folder behind the link: got %v, %v; want it unchanged", info, err)
	}
	if _, err := os.Lstat(link); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("link: got %v, want it removed", err)
	}
}

func TestUnpackCancelled(t *testing.T) {
	src := filepath.Join(t.TempDir(), "archive")
	must(t, os.WriteFile(src, targz(t, goodMembers...), 0o600))
	f, err := os.Open(src)
	must(t, err)
	defer f.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	replaced := errors.New("replaced")
	cancel(replaced)
	if err := Unpack(ctx, f, "tar.gz", goodList, t.TempDir()); !errors.Is(err, replaced) {
		t.Fatalf("Unpack: got %v, want %v", err, replaced)
	}
}

// M12: for any archive, nothing outside the folder changes, and success means that the folder equals the list.
func FuzzUnpack(f *testing.F) {
	f.Add(targz(f, goodMembers...), true)
	f.Add(zipped(f, goodMembers...), false)
	f.Add(targz(f, file("../evil", "x"), link("lib", "/tmp")), true)
	f.Add(zipped(f, file("../evil", "x"), link("lib", "/tmp")), false)
	f.Fuzz(func(t *testing.T, data []byte, isTar bool) {
		format := "zip"
		if isTar {
			format = "tar.gz"
		}
		dir, err := unpack(t, data, format, goodList)
		if err != nil {
			var own *Error
			if !errors.As(err, &own) {
				t.Fatalf("got %v, want an *Error", err)
			}
			return
		}
		must(t, Check(context.Background(), dir, goodList, true))
	})
}

func reasonOf(err error) messages.Reason {
	if err == nil {
		return messages.ReasonOK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
