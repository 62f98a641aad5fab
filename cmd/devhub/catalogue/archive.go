package catalogue

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"companion/adapters/artifact"
	"companion/messages"
)

// maxUnpacked bounds the content of a runtime archive, so that publish ends on a malformed file. Upstream's largest
// archive (CUDA) is much smaller.
const maxUnpacked = 8 << 30

const program = "llama-server"

// archive is the content of a runtime archive. odd is the first entry that is neither a file, a folder nor a symbolic
// link.
type archive struct {
	format string
	files  []messages.TargetFile
	odd    string
}

func listArchive(file string) (archive, error) {
	f, err := os.Open(file)
	if err != nil {
		return archive{}, fmt.Errorf("opening the archive: %w", err)
	}
	defer f.Close()
	magic := make([]byte, 2)
	if _, err := io.ReadFull(f, magic); err != nil {
		return archive{}, fmt.Errorf("reading the archive: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return archive{}, fmt.Errorf("reading the archive: %w", err)
	}
	switch string(magic) {
	case "\x1f\x8b":
		return listTar(f)
	case "PK":
		return listZip(f)
	}
	return archive{}, errors.New("the runtime is neither a tar.gz nor a zip archive")
}

func listTar(r io.Reader) (archive, error) {
	a := archive{format: "tar.gz"}
	gz, err := gzip.NewReader(r)
	if err != nil {
		return a, fmt.Errorf("reading the archive: %w", err)
	}
	in := tar.NewReader(io.LimitReader(gz, maxUnpacked))
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return a, fmt.Errorf("reading the archive: %w", err)
		}
		name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
		switch h.Typeflag {
		case tar.TypeDir:
		case tar.TypeSymlink:
			a.files = append(a.files, messages.TargetFile{Path: name, Link: h.Linkname})
		case tar.TypeReg:
			err = a.addFile(name, h.FileInfo().Mode(), in)
		default:
			a.note(name)
		}
		if err != nil {
			return a, err
		}
	}
}

func listZip(f *os.File) (archive, error) {
	a := archive{format: "zip"}
	info, err := f.Stat()
	if err != nil {
		return a, fmt.Errorf("reading the archive: %w", err)
	}
	in, err := zip.NewReader(f, info.Size())
	if err != nil {
		return a, fmt.Errorf("reading the archive: %w", err)
	}
	for _, entry := range in.File {
		if err := a.addZip(entry); err != nil {
			return a, err
		}
	}
	return a, nil
}

func (a *archive) addZip(entry *zip.File) error {
	mode := entry.Mode()
	if mode.IsDir() {
		return nil
	}
	r, err := entry.Open()
	if err != nil {
		return fmt.Errorf("reading the archive: %w", err)
	}
	defer r.Close()
	switch {
	case mode.IsRegular():
		return a.addFile(entry.Name, mode, io.LimitReader(r, maxUnpacked))
	case mode&os.ModeSymlink != 0:
		target, err := io.ReadAll(io.LimitReader(r, 4096))
		if err != nil {
			return fmt.Errorf("reading the archive: %w", err)
		}
		a.files = append(a.files, messages.TargetFile{Path: entry.Name, Link: string(target)})
	default:
		a.note(entry.Name)
	}
	return nil
}

func (a *archive) addFile(name string, mode os.FileMode, r io.Reader) error {
	hash := sha256.New()
	n, err := io.Copy(hash, r)
	if err != nil {
		return fmt.Errorf("reading the archive: %w", err)
	}
	a.files = append(a.files, messages.TargetFile{
		Path: name, SHA256: hex.EncodeToString(hash.Sum(nil)), Size: n, Executable: mode&0o100 != 0,
	})
	return nil
}

func (a *archive) note(name string) {
	if a.odd == "" {
		a.odd = name
	}
}

// check refuses archives that no client unpacks (M12), so that the error appears at publishing.
func (a archive) check(executable string) error {
	if a.odd != "" {
		return fmt.Errorf("the archive's %q is neither a file nor a symbolic link", a.odd)
	}
	files, err := artifact.Files(a.files)
	if err == nil {
		err = artifact.CheckFiles(files, executable)
	}
	if err != nil {
		return fmt.Errorf("no client would unpack this archive: %w", err)
	}
	return nil
}

// program returns the executable: the requested one, or the only file named llama-server.
func (a archive) program(asked string) (string, error) {
	var found []string
	for _, f := range a.files {
		if f.Link == "" && (f.Path == asked || asked == "" && strings.TrimSuffix(path.Base(f.Path), ".exe") == program) {
			found = append(found, f.Path)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("the archive holds %d files that can be the program: name it with --executable", len(found))
	}
	return found[0], nil
}
