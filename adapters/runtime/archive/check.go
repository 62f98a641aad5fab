package archive

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"io/fs"
	"os"

	"companion/messages"
)

// Check compares the unpacked folder dir with the list: every file, link and folder must be there, of the right kind,
// size and mode, owned by the user, with one hard link, and nothing else. With hash it also compares the content of
// every file. Errors: *Error if dir is not what files lists, fs.ErrNotExist if there is no dir, the system's error, the
// cause of ctx's end.
func Check(ctx context.Context, dir string, files []messages.ArchiveFile, hash bool) error {
	list, err := newListing(files)
	if err != nil {
		return err
	}
	if info, err := os.Lstat(dir); err != nil {
		return fmt.Errorf("looking for an unpacked folder: %w", cause(err))
	} else if !info.IsDir() || !owned(info) {
		return refuse("not a folder, or owned by another user")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("opening an unpacked folder: %w", cause(err))
	}
	defer root.Close()
	found := 0
	err = fs.WalkDir(root.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("listing an unpacked folder: %w", cause(err))
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		info, err := root.Lstat(name)
		if err != nil {
			return fmt.Errorf("looking at %s: %w", name, cause(err))
		}
		if info.IsDir() {
			if name != "." && !list.Folders[name] || !sameMode(info, folderMode) || !owned(info) {
				return refuse("a folder that is not listed, or with another owner or mode")
			}
			return nil
		}
		found++
		return list.checkFile(ctx, root, name, info, hash)
	})
	if err != nil {
		return err
	}
	if found != len(list.Files) {
		return refuse("%d of %d files are there", found, len(list.Files))
	}
	return nil
}

func (l *listing) checkFile(ctx context.Context, root *os.Root, name string, info fs.FileInfo, hash bool) error {
	f, ok := l.Files[name]
	switch {
	case !ok:
		return refuse("a file that is not in the list")
	case !owned(info):
		return refuse("%s has another owner or a second hard link", name)
	case info.Mode().Type() == fs.ModeSymlink:
		target, err := root.Readlink(name)
		if err != nil || f.LinkTarget == "" || target != f.LinkTarget {
			return refuse("%s leads elsewhere", name)
		}
		return nil
	case !info.Mode().IsRegular() || f.LinkTarget != "":
		return refuse("%s is of another kind", name)
	case info.Size() != f.Size:
		return &Error{messages.ReasonSizeMismatch, name + " has another size"}
	case !sameMode(info, l.mode(f)):
		return refuse("%s has another mode", name)
	case !hash:
		return nil
	}
	in, err := root.Open(name)
	if err != nil {
		return fmt.Errorf("opening %s: %w", name, cause(err))
	}
	defer in.Close()
	digest := sha256.New()
	if _, err := io.Copy(digest, &bounded{ctx, in, f.Size}); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("reading %s: %w", name, cause(err))
	}
	if subtle.ConstantTimeCompare(digest.Sum(nil), f.SHA256[:]) != 1 {
		return &Error{messages.ReasonDigestMismatch, name + " has other content"}
	}
	return nil
}
