package archive

import (
	"archive/tar"
	"archive/zip"
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"companion/adapters/artifact"
	"companion/messages"
)

// Unpack writes the files of the archive src, whose digest has been verified, to dir, which must be an empty private
// folder, syncs it and makes it read-only. format is "tar.gz" or "zip". After an error the caller must Remove dir.
// Errors: *Error if the archive is not what files lists, the system's error otherwise (such as ENOSPC), the cause of
// ctx's end.
func Unpack(ctx context.Context, src *os.File, format string, files []messages.ArchiveFile, dir string) error {
	list, err := newListing(files)
	if err != nil {
		return err
	}
	info, err := src.Stat()
	if err != nil {
		return fmt.Errorf("reading the archive's size: %w", cause(err))
	}
	if list.Bytes > 1<<20 && list.Bytes/maxRatio > info.Size() {
		return refuse("the list promises more than %d times the archive", maxRatio)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("opening the folder to unpack into: %w", cause(err))
	}
	defer root.Close()
	u := &unpacker{ctx: ctx, root: root, list: list, seen: map[string]bool{}}
	switch format {
	case "tar.gz":
		err = u.tar(io.NewSectionReader(src, 0, info.Size()))
	case "zip":
		err = u.zip(src, info.Size())
	default:
		err = refuse("an unknown format")
	}
	if err == nil {
		err = u.finish()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

type unpacker struct {
	ctx  context.Context
	root *os.Root
	list *listing
	seen map[string]bool
}

// entry is one member of an archive. link is the target of a symbolic link.
type entry struct {
	name string
	mode fs.FileMode // only the type bits are used
	size int64
	link string
	body io.Reader
}

func (u *unpacker) tar(src io.Reader) error {
	gz, err := gzip.NewReader(src)
	if err != nil {
		return refuse("not gzip")
	}
	// Headers, padding and the end mark add to the bytes of the files.
	stream := &bounded{u.ctx, gz, u.list.Bytes + int64(len(u.list.Files)+len(u.list.Folders))*(8<<10) + 1<<20}
	t := tar.NewReader(stream)
	for range 2 * artifact.MaxFiles {
		h, err := t.Next()
		if err == io.EOF {
			// Reading to the end makes gzip check its checksum.
			if _, err := io.Copy(io.Discard, stream); err != nil {
				return damaged(err)
			}
			return nil
		}
		if err != nil {
			return damaged(err)
		}
		e := entry{name: h.Name, size: h.Size, body: t}
		switch h.Typeflag {
		case tar.TypeReg:
		case tar.TypeDir:
			e.mode = fs.ModeDir
		case tar.TypeSymlink:
			e.mode, e.link = fs.ModeSymlink, h.Linkname
		default:
			return refuse("an entry that is no file, folder or symbolic link")
		}
		if err := u.take(e); err != nil {
			return err
		}
	}
	return refuse("too many entries")
}

func (u *unpacker) zip(src io.ReaderAt, size int64) error {
	z, err := zip.NewReader(src, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return refuse("not a zip archive")
	}
	if len(z.File) > 2*artifact.MaxFiles {
		return refuse("too many entries")
	}
	for _, f := range z.File {
		if f.Flags&1 != 0 || f.UncompressedSize64 > artifact.MaxUnpacked {
			return refuse("an entry that is encrypted or too large")
		}
		e := entry{name: f.Name, mode: f.Mode().Type(), size: int64(f.UncompressedSize64)}
		if err := u.zipEntry(f, e); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) zipEntry(f *zip.File, e entry) error {
	if e.mode.IsDir() {
		return u.take(e)
	}
	body, err := f.Open()
	if err != nil {
		return refuse("an entry that cannot be read")
	}
	defer body.Close()
	e.body = &bounded{u.ctx, body, e.size}
	if e.mode == fs.ModeSymlink {
		target, err := io.ReadAll(io.LimitReader(e.body, artifact.MaxPath+1))
		if err != nil {
			return damaged(err)
		}
		e.link, e.size = string(target), 0
	}
	return u.take(e)
}

// take handles one entry. finish creates the links, so that nothing is written through a link.
func (u *unpacker) take(e entry) error {
	if err := u.ctx.Err(); err != nil {
		return err
	}
	if e.mode.IsDir() {
		name := e.name
		if n := len(name); n > 0 && name[n-1] == '/' {
			name = name[:n-1]
		}
		if !u.list.Folders[name] {
			return refuse("a folder that the list does not need")
		}
		return nil
	}
	f, ok := u.list.Files[e.name]
	switch {
	case !ok:
		return refuse("an entry that is not in the list")
	case u.seen[e.name]:
		return refuse("%s comes twice", f.Path)
	case e.mode == fs.ModeSymlink && (e.link == "" || e.link != f.LinkTarget):
		return refuse("%s leads elsewhere than the list says", f.Path)
	case e.mode != fs.ModeSymlink && (!e.mode.IsRegular() || f.LinkTarget != ""):
		return refuse("%s is of another kind than the list says", f.Path)
	case e.mode.IsRegular() && e.size != f.Size:
		return &Error{messages.ReasonSizeMismatch, f.Path + " has another size"}
	}
	u.seen[e.name] = true
	if e.mode == fs.ModeSymlink {
		return nil
	}
	return u.write(f, e.body)
}

func (u *unpacker) write(f messages.ArchiveFile, body io.Reader) error {
	if err := u.root.MkdirAll(path.Dir(f.Path), 0o700); err != nil {
		return fmt.Errorf("making a folder for %s: %w", f.Path, cause(err))
	}
	out, err := u.root.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("making %s: %w", f.Path, cause(err))
	}
	defer out.Close()
	digest := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, digest), io.LimitReader(body, f.Size+1))
	switch {
	case err != nil && errors.As(err, new(*fs.PathError)):
		return fmt.Errorf("writing %s: %w", f.Path, cause(err))
	case err != nil:
		return damaged(err)
	case n != f.Size:
		return &Error{messages.ReasonSizeMismatch, f.Path + " has another size"}
	case subtle.ConstantTimeCompare(digest.Sum(nil), f.SHA256[:]) != 1:
		return &Error{messages.ReasonDigestMismatch, f.Path + " has other content"}
	}
	if err := errors.Join(cause(out.Chmod(u.list.mode(f))), cause(out.Sync())); err != nil {
		return fmt.Errorf("finishing %s: %w", f.Path, err)
	}
	return nil
}

// finish refuses an archive with missing files, creates the links, syncs the folders and makes them read-only.
func (u *unpacker) finish() error {
	for name, f := range u.list.Files {
		if !u.seen[name] {
			return refuse("%s is missing", name)
		}
		if f.LinkTarget == "" {
			continue
		}
		if err := u.root.MkdirAll(path.Dir(name), 0o700); err != nil {
			return fmt.Errorf("making a folder for %s: %w", name, cause(err))
		}
		if err := u.root.Symlink(f.LinkTarget, name); err != nil {
			return fmt.Errorf("making the link %s: %w", name, cause(err))
		}
	}
	for _, dir := range append(u.list.foldersDeepestFirst(), ".") {
		d, err := u.root.Open(dir)
		if err != nil {
			return fmt.Errorf("opening a folder to sync it: %w", cause(err))
		}
		err = errors.Join(settleFolder(d), cause(d.Close()))
		if err != nil {
			return fmt.Errorf("finishing a folder: %w", err)
		}
	}
	return nil
}

// bounded reads at most left bytes and then fails, so that the rest of a decompression bomb is not read.
type bounded struct {
	ctx  context.Context
	src  io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.src.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		return 0, refuse("more bytes than the list allows")
	}
	return n, err
}

// damaged maps an error of the archive readers and decompressors to an *Error.
func damaged(err error) error {
	if own := (*Error)(nil); errors.As(err, &own) {
		return own
	}
	var corrupt flate.CorruptInputError
	if errors.As(err, &corrupt) || errors.Is(err, io.ErrUnexpectedEOF) {
		return refuse("the archive is damaged")
	}
	return refuse("the archive cannot be read")
}

// cause returns a system error without its path, which contains a digest.
func cause(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	if l := (*os.LinkError)(nil); errors.As(err, &l) {
		return l.Err
	}
	return err
}
