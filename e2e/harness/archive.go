package harness

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// Entry is one member of an Archive: a file, or a symbolic link where Link is not empty.
type Entry struct {
	Name, Body, Link string
	Mode             int64
}

// Archive writes a tar.gz file with the entries unchecked, and returns its path.
func Archive(t testing.TB, entries ...Entry) string {
	t.Helper()
	path := filepath.Join(TempDir(t), "runtime.tar.gz")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	compressed := gzip.NewWriter(file)
	archive := tar.NewWriter(compressed)
	for _, e := range entries {
		header := &tar.Header{Name: e.Name, Mode: e.Mode, Size: int64(len(e.Body)), Typeflag: tar.TypeReg}
		if e.Link != "" {
			header.Typeflag, header.Linkname, header.Size = tar.TypeSymlink, e.Link, 0
		}
		if err := archive.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write([]byte(e.Body)); e.Body != "" && err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(archive.Close(), compressed.Close(), file.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}
