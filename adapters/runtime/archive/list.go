package archive

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
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

// maxListed bounds the unpacked bytes of all entries together, so that List ends on a malformed file. Upstream's largest
// archive (CUDA) is much smaller.
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

// List reads a whole archive and lists it. Check says whether it can be unpacked. List ends with an error at the limits of
// package artifact, and when ctx ends.
func List(ctx context.Context, file string) (Listed, error) { return list(ctx, file, maxListed) }

func list(ctx context.Context, file string, most int64) (Listed, error) {
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
	l := lister{ctx: ctx, left: most}
	switch string(magic) {
	case "\x1f\x8b":
		l.Format = "tar.gz"
		err = l.tar(f)
	case "PK":
		l.Format = "zip"
		err = l.zip(f)
	default:
		return Listed{}, errors.New("the runtime is neither a tar.gz nor a zip archive")
	}
	if ctx.Err() != nil {
		return Listed{}, context.Cause(ctx)
	}
	return l.Listed, err
}

// lister lists one archive.
type lister struct {
	Listed
	ctx     context.Context
	left    int64 // unpacked bytes that may still be read
	entries int
}

// bound is a reader of unpacked bytes that ends with an error at the limit, and when ctx ends.
type bound struct {
	l *lister
	r io.Reader
}

func (b bound) Read(p []byte) (int, error) {
	if b.l.ctx.Err() != nil {
		return 0, context.Cause(b.l.ctx)
	}
	n, err := b.r.Read(p)
	if b.l.left -= int64(n); b.l.left < 0 {
		return n, errors.New("its unpacked files are larger than any runtime's")
	}
	return n, err
}

// entry counts one entry of any kind. Unpack has the same limit.
func (l *lister) entry() error {
	if l.entries++; l.entries > 2*artifact.MaxFiles {
		return fmt.Errorf("the archive has more than %d entries", 2*artifact.MaxFiles)
	}
	return nil
}

func (l *lister) tar(r io.Reader) error {
	gz, err := gzip.NewReader(r)
	if err != nil {
		return fmt.Errorf("reading the archive: %w", err)
	}
	in := tar.NewReader(bound{l, gz})
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the archive: %w", err)
		}
		if err := l.entry(); err != nil {
			return err
		}
		name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
		switch h.Typeflag {
		case tar.TypeDir:
		case tar.TypeSymlink:
			l.Files = append(l.Files, messages.TargetFile{Path: name, Link: h.Linkname})
		case tar.TypeReg:
			err = l.addFile(name, h.FileInfo().Mode(), in)
		default:
			l.note(name)
		}
		if err != nil {
			return err
		}
	}
}

func (l *lister) zip(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("reading the archive: %w", err)
	}
	in, err := zip.NewReader(f, info.Size())
	if err != nil {
		return fmt.Errorf("reading the archive: %w", err)
	}
	for _, entry := range in.File {
		if err := l.entry(); err != nil {
			return err
		}
		if err := l.addZip(entry); err != nil {
			return err
		}
	}
	return nil
}

func (l *lister) addZip(entry *zip.File) error {
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
		return l.addFile(entry.Name, mode, bound{l, r})
	case mode&os.ModeSymlink != 0:
		target, err := io.ReadAll(io.LimitReader(bound{l, r}, 4096))
		if err != nil {
			return fmt.Errorf("reading the archive: %w", err)
		}
		l.Files = append(l.Files, messages.TargetFile{Path: entry.Name, Link: string(target)})
	default:
		l.note(entry.Name)
	}
	return nil
}

func (l *lister) addFile(name string, mode os.FileMode, r io.Reader) error {
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
	if l.heads == nil {
		l.heads = map[string][]byte{}
	}
	l.heads[name] = head.Bytes()
	l.Files = append(l.Files, messages.TargetFile{
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
