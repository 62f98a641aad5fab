package archive

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
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

// maxListed bounds the content of an archive, so that List ends on a malformed file. Upstream's largest archive (CUDA)
// is much smaller.
const maxListed = 8 << 30

// server is the name of the program in a runtime archive.
const server = "llama-server"

// Listed is the content of a runtime archive, for the list of a manifest.
type Listed struct {
	Format string
	Files  []messages.TargetFile
	odd    string // the first entry that is neither a file, a folder nor a symbolic link
	heads  map[string][]byte
}

// List reads a whole archive and lists it. Check says whether it can be unpacked.
func List(file string) (Listed, error) {
	f, err := os.Open(file)
	if err != nil {
		return Listed{}, fmt.Errorf("opening the archive: %w", err)
	}
	defer f.Close()
	magic := make([]byte, 2)
	if _, err := io.ReadFull(f, magic); err != nil {
		return Listed{}, fmt.Errorf("reading the archive: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return Listed{}, fmt.Errorf("reading the archive: %w", err)
	}
	switch string(magic) {
	case "\x1f\x8b":
		return listTar(f)
	case "PK":
		return listZip(f)
	}
	return Listed{}, errors.New("the runtime is neither a tar.gz nor a zip archive")
}

func listTar(r io.Reader) (Listed, error) {
	a := Listed{Format: "tar.gz"}
	gz, err := gzip.NewReader(r)
	if err != nil {
		return a, fmt.Errorf("reading the archive: %w", err)
	}
	in := tar.NewReader(io.LimitReader(gz, maxListed))
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
			a.Files = append(a.Files, messages.TargetFile{Path: name, Link: h.Linkname})
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

func listZip(f *os.File) (Listed, error) {
	a := Listed{Format: "zip"}
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

func (a *Listed) addZip(entry *zip.File) error {
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
		return a.addFile(entry.Name, mode, io.LimitReader(r, maxListed))
	case mode&os.ModeSymlink != 0:
		target, err := io.ReadAll(io.LimitReader(r, 4096))
		if err != nil {
			return fmt.Errorf("reading the archive: %w", err)
		}
		a.Files = append(a.Files, messages.TargetFile{Path: entry.Name, Link: string(target)})
	default:
		a.note(entry.Name)
	}
	return nil
}

func (a *Listed) addFile(name string, mode os.FileMode, r io.Reader) error {
	hash, head := sha256.New(), &bytes.Buffer{}
	n, err := io.Copy(hash, io.TeeReader(io.LimitReader(r, headSize), head))
	if err == nil {
		var rest int64
		rest, err = io.Copy(hash, r)
		n += rest
	}
	if err != nil {
		return fmt.Errorf("reading the archive: %w", err)
	}
	if a.heads == nil {
		a.heads = map[string][]byte{}
	}
	a.heads[name] = head.Bytes()
	a.Files = append(a.Files, messages.TargetFile{
		Path: name, SHA256: hex.EncodeToString(hash.Sum(nil)), Size: n, Executable: mode&0o100 != 0,
	})
	return nil
}

func (a *Listed) note(name string) {
	if a.odd == "" {
		a.odd = name
	}
}

// Check refuses an archive that Unpack would refuse (M12).
func (a Listed) Check(executable string) error {
	if a.odd != "" {
		return fmt.Errorf("the archive's %q is neither a file nor a symbolic link", a.odd)
	}
	files, err := artifact.Files(a.Files)
	if err == nil {
		err = artifact.CheckFiles(files, executable)
	}
	if err != nil {
		return fmt.Errorf("this archive cannot be unpacked: %w", err)
	}
	return nil
}

// headSize is enough of a program to tell its platform.
const headSize = 512

// Platform returns the platform of a program of the archive, such as "linux/amd64", as far as its first bytes tell; empty:
// not known.
func (a Listed) Platform(path string) string {
	head := a.heads[path]
	if len(head) < headSize {
		return ""
	}
	machine := func(names map[uint32]string, value uint32) string { return names[value] }
	switch {
	case string(head[:4]) == "\x7fELF" && head[5] == 1: // little-endian
		return machine(map[uint32]string{62: "linux/amd64", 183: "linux/arm64", 243: "linux/riscv64", 3: "linux/386"}, uint32(head[18])|uint32(head[19])<<8)
	case string(head[:4]) == "\xcf\xfa\xed\xfe": // Mach-O, 64 bits
		return machine(map[uint32]string{0x01000007: "darwin/amd64", 0x0100000c: "darwin/arm64"}, binary.LittleEndian.Uint32(head[4:]))
	case string(head[:2]) == "MZ":
		at := binary.LittleEndian.Uint32(head[0x3c:])
		if at > headSize-6 {
			return "windows"
		}
		return machine(map[uint32]string{0x8664: "windows/amd64", 0xaa64: "windows/arm64"}, uint32(binary.LittleEndian.Uint16(head[at+4:])))
	}
	return ""
}

// Program returns the path of the executable: the requested one, or the only file named llama-server.
func (a Listed) Program(asked string) (string, error) {
	var found []string
	for _, f := range a.Files {
		if f.Link == "" && (f.Path == asked || asked == "" && strings.TrimSuffix(path.Base(f.Path), ".exe") == server) {
			found = append(found, f.Path)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return "", fmt.Errorf("the archive holds %d files named %s", len(found), server)
	case asked != "":
		return "", fmt.Errorf("the archive holds no file %s", asked)
	}
	return "", fmt.Errorf("the archive holds no %s", server)
}
