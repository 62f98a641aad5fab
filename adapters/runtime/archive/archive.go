// Package archive unpacks a runtime artifact and checks the unpacked folder (contract M12). The signed list of the
// manifest names every file with its size, its digest, whether it is executable, and the target of a link; the archive must
// contain exactly these files. Modes, set-id bits, owners and times in the archive are ignored. All writes go through an
// os.Root, which keeps each path in the folder even if a check here is wrong.
package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"companion/adapters/artifact"
	"companion/messages"
)

// maxRatio bounds the size of an unpacked runtime relative to its archive. llama.cpp's releases have a ratio of three.
const maxRatio = 200

// Modes of an unpacked runtime: read-only, for the user only.
const (
	fileMode    fs.FileMode = 0o400
	programMode fs.FileMode = 0o500
	folderMode  fs.FileMode = 0o500
)

// Error says why an archive or folder is refused. The only paths in its text are relative to the archive.
type Error struct {
	Reason messages.Reason // malformed_spec, size_mismatch or digest_mismatch
	what   string
}

func (e *Error) Error() string { return fmt.Sprintf("archive: %s (%s)", e.what, e.Reason) }

func refuse(format string, args ...any) error {
	return &Error{messages.ReasonMalformedSpec, fmt.Sprintf(format, args...)}
}

// listing is the checked list of an archive.
type listing struct{ *artifact.List }

func newListing(files []messages.ArchiveFile) (*listing, error) {
	list, err := artifact.NewList(files)
	if refused := (*artifact.Error)(nil); errors.As(err, &refused) {
		return nil, &Error{refused.Reason, refused.What}
	}
	return &listing{list}, err
}

func (l *listing) mode(f messages.ArchiveFile) fs.FileMode {
	if f.Executable {
		return programMode
	}
	return fileMode
}

// foldersDeepestFirst lists the folders so that each becomes read-only after its contents.
func (l *listing) foldersDeepestFirst() []string {
	dirs := make([]string, 0, len(l.Folders))
	for d := range l.Folders {
		dirs = append(dirs, d)
	}
	slices.SortFunc(dirs, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	return dirs
}

// Remove deletes an unpacked folder, which is read-only. A missing folder is not an error.
func Remove(dir string) error {
	info, err := os.Lstat(dir)
	if os.IsNotExist(err) {
		return nil
	}
	// A link may lead to a folder outside the store: remove only the link.
	if err == nil && info.IsDir() {
		makeWritable(dir)
	}
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		return fmt.Errorf("removing an unpacked folder: %w", cause(err))
	}
	return nil
}

// makeWritable makes dir writable, so that its entries can be deleted. Its errors are ignored: the deletion then fails.
func makeWritable(dir string) {
	_ = os.Chmod(dir, 0o700)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return
	}
	defer root.Close()
	_ = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = root.Chmod(p, 0o700)
		}
		return nil
	})
}
