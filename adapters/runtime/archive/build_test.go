//go:build unix

package archive

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"io"
	"io/fs"
	"testing"

	"companion/messages"
)

// member is one entry of a test archive, valid or invalid.
type member struct {
	name string
	kind byte // of tar
	body string
	link string
	mode int64
}

func file(name, body string) member {
	return member{name: name, kind: tar.TypeReg, body: body, mode: 0o644}
}
func link(name, target string) member {
	return member{name: name, kind: tar.TypeSymlink, link: target, mode: 0o777}
}
func folder(name string) member { return member{name: name, kind: tar.TypeDir, mode: 0o755} }

func targz(t testing.TB, members ...member) []byte {
	t.Helper()
	var out bytes.Buffer
	gz := gzip.NewWriter(&out)
	w := tar.NewWriter(gz)
	for _, m := range members {
		must(t, w.WriteHeader(&tar.Header{Name: m.name, Typeflag: m.kind, Linkname: m.link, Size: int64(len(m.body)), Mode: m.mode}))
		_, err := io.WriteString(w, m.body)
		must(t, err)
	}
	must(t, w.Close(), gz.Close())
	return out.Bytes()
}

func zipped(t testing.TB, members ...member) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, m := range members {
		h := &zip.FileHeader{Name: m.name, Method: zip.Deflate}
		mode, body := fs.FileMode(m.mode&0o777), m.body
		switch m.kind {
		case tar.TypeDir:
			mode |= fs.ModeDir
			h.Name += "/"
			h.Method = zip.Store
		case tar.TypeSymlink:
			mode, body = mode|fs.ModeSymlink, m.link
		case tar.TypeFifo:
			mode |= fs.ModeNamedPipe
		case tar.TypeChar:
			mode |= fs.ModeDevice | fs.ModeCharDevice
		}
		if m.mode&0o4000 != 0 {
			mode |= fs.ModeSetuid
		}
		h.SetMode(mode)
		f, err := w.CreateHeader(h)
		must(t, err)
		_, err = io.WriteString(f, body)
		must(t, err)
	}
	must(t, w.Close())
	return out.Bytes()
}

func listed(p, body string) messages.ArchiveFile {
	return messages.ArchiveFile{Path: p, SHA256: sha256.Sum256([]byte(body)), Size: int64(len(body))}
}

func program(p, body string) messages.ArchiveFile {
	f := listed(p, body)
	f.Executable = true
	return f
}

func linked(p, target string) messages.ArchiveFile {
	return messages.ArchiveFile{Path: p, LinkTarget: target}
}

func gzipOf(t *testing.T, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	gz := gzip.NewWriter(&out)
	_, err := gz.Write(data)
	must(t, err, gz.Close())
	return out.Bytes()
}
