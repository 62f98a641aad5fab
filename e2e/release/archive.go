package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// entry is one file of an archive. Archives name no owner, and the time of each file is the commit's.
type entry struct {
	name       string
	data       []byte
	executable bool
}

func (e entry) mode() int64 {
	if e.executable {
		return 0o755
	}
	return 0o644
}

// documents are the files of the source that an archive holds.
var documents = []string{"README.md", "CHANGELOG.md", "docs/operations.md", "docs/cli.md", "docs/reasons.md", "docs/api.md", "docs/security.md"}

// pack writes the archive of one platform: zip for Windows, tar.gz for the others.
func (s source) pack(file, folder, program, tree, pages string, p platform) (string, error) {
	entries, err := collect(program, tree, pages)
	if err != nil {
		return "", err
	}
	for i := range entries {
		entries[i].name = folder + "/" + entries[i].name
	}
	write := tarGzip
	if file += ".tar.gz"; p.os == "windows" {
		file, write = file[:len(file)-len(".tar.gz")]+".zip", zipped
	}
	var archive bytes.Buffer
	if err := write(&archive, entries, s.at); err != nil {
		return "", fmt.Errorf("packing %s: %w", filepath.Base(file), err)
	}
	if err := os.WriteFile(file, archive.Bytes(), 0o644); err != nil {
		return "", fmt.Errorf("writing an archive: %w", err)
	}
	return file, nil
}

// collect reads the files of an archive.
func collect(program, tree, pages string) ([]entry, error) {
	from := map[string]string{filepath.Base(program): program}
	for _, name := range documents {
		from[name] = filepath.Join(tree, name)
	}
	manuals, err := filepath.Glob(filepath.Join(pages, "*.1"))
	if err != nil || len(manuals) == 0 {
		return nil, fmt.Errorf("there are no man pages in %s", pages)
	}
	for _, page := range manuals {
		from["man/man1/"+filepath.Base(page)] = page
	}
	var entries []entry
	for name, path := range from {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading a file of the archive: %w", err)
		}
		entries = append(entries, entry{name, data, path == program})
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	return entries, nil
}

func tarGzip(out io.Writer, entries []entry, at time.Time) error {
	zipper, err := gzip.NewWriterLevel(out, gzip.BestCompression)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(zipper)
	for _, e := range entries {
		err := archive.WriteHeader(&tar.Header{Name: e.name, Size: int64(len(e.data)), Mode: e.mode(), ModTime: at, Format: tar.FormatPAX})
		if err != nil {
			return err
		}
		if _, err := archive.Write(e.data); err != nil {
			return err
		}
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return zipper.Close()
}

func zipped(out io.Writer, entries []entry, at time.Time) error {
	archive := zip.NewWriter(out)
	for _, e := range entries {
		header := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: at}
		header.SetMode(os.FileMode(e.mode()))
		file, err := archive.CreateHeader(header)
		if err != nil {
			return err
		}
		if _, err := file.Write(e.data); err != nil {
			return err
		}
	}
	return archive.Close()
}
