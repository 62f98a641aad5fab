// Package archive unpacks a runtime artifact and checks the folder that it becomes (contract M12). The archive
// itself decides nothing about where or how a file is written: the signed list of the manifest names every file,
// its size, its digest, whether it is a program, and where a link leads; the archive must hold exactly that.
// Modes, set-id bits, owners and times of the archive are dropped. All writes go through an os.Root, which keeps
// each path in the folder even if a check here were wrong.
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

// maxRatio bounds how much larger an unpacked runtime is than its archive. Upstream's are three times as large.
const maxRatio = 200

// The modes of an unpacked runtime: read-only, for its user only.
const (
	fileMode    fs.FileMode = 0o400
	programMode fs.FileMode = 0o500
	folderMode  fs.FileMode = 0o500
)

// Error says why an archive or folder is refused. Its text holds archive-relative names at most.
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

// foldersDeepestFirst is for making folders read-only after what they hold.
func (l *listing) foldersDeepestFirst() []string {
	dirs := make([]string, 0, len(l.Folders))
	for d := range l.Folders {
		dirs = append(dirs, d)
	}
	slices.SortFunc(dirs, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	return dirs
}

// Remove deletes an unpacked folder, which is read-only. A folder that is not there is no error.
func Remove(dir string) error {
	info, err := os.Lstat(dir)
	if os.IsNotExist(err) {
		return nil
	}
	// Behind a link there may be anybody's folder: then the link alone goes.
	if err == nil && info.IsDir() {
		makeWritable(dir)
	}
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		return fmt.Errorf("removing an unpacked folder: %w", cause(err))
	}
	return nil
}

// makeWritable lets the entries of dir be deleted. Its failures show when they are.
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
