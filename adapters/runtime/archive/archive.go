// Package archive unpacks a runtime artifact and checks the folder that it becomes (contract M12).
// Nothing of the archive's own say decides where or how a file is written: the signed list of the
// manifest names every file, its size, its digest, whether it is a program and where a link leads; the
// archive must hold exactly that. Modes, owners and times of the archive are dropped, set-id bits with
// them. Everything happens inside an os.Root, which keeps each path in the folder even where a check
// here were wrong.
package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"companion/messages"
)

// Bounds of any archive. Upstream's have about forty files and unpack to some hundred megabytes, to
// three times their packed size; the bounds leave room for GPU libraries and stop bombs.
const (
	maxEntries  = 4096
	maxBytes    = 16 << 30
	maxRatio    = 200
	maxPath     = 512
	maxLinkHops = 8
)

// The modes of an unpacked runtime: for its user alone, and read-only.
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

// listing is a checked list of files.
type listing struct {
	files   map[string]messages.ArchiveFile
	folders map[string]bool // every parent of a file; "." is not in it
	bytes   int64
}

// CheckList refuses a list that no archive may have: with a path that is absolute, dotted or odd, two
// paths that differ in case alone, a file that is also a folder, a link that leaves the folder or ends
// at no file, or an executable that is not there and runnable.
func CheckList(files []messages.ArchiveFile, executable string) error {
	list, err := newListing(files)
	if err != nil {
		return err
	}
	if f, ok := list.target(executable); !ok || !f.Executable {
		return refuse("the executable is not a program of the list")
	}
	return nil
}

func newListing(files []messages.ArchiveFile) (*listing, error) {
	if len(files) == 0 || len(files) > maxEntries {
		return nil, refuse("%d files in the list", len(files))
	}
	l := &listing{files: map[string]messages.ArchiveFile{}, folders: map[string]bool{}}
	folded := map[string]bool{}
	for _, f := range files {
		key := strings.ToLower(f.Path)
		switch {
		case !plain(f.Path):
			return nil, refuse("a path of the list is not plain")
		case folded[key]:
			return nil, refuse("%s is in the list twice", f.Path)
		case f.Size < 0 || f.Size > maxBytes-l.bytes:
			return nil, refuse("the list is too large")
		case f.LinkTarget != "" && f.Size != 0:
			return nil, refuse("%s is a link with a size", f.Path)
		}
		folded[key] = true
		l.files[f.Path] = f
		l.bytes += f.Size
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			l.folders[dir] = true
		}
	}
	for dir := range l.folders {
		if folded[strings.ToLower(dir)] {
			return nil, refuse("%s is a file and a folder", dir)
		}
	}
	for name := range l.files {
		if _, ok := l.target(name); !ok {
			return nil, refuse("%s leads to no file of the list", name)
		}
	}
	return l, nil
}

// target follows links to the file that name means.
func (l *listing) target(name string) (messages.ArchiveFile, bool) {
	for range maxLinkHops {
		f, ok := l.files[name]
		if !ok || f.LinkTarget == "" {
			return f, ok
		}
		if !relative(f.LinkTarget) {
			return f, false
		}
		name = path.Join(path.Dir(name), f.LinkTarget)
	}
	return messages.ArchiveFile{}, false
}

// plain reports whether p is a path that every system reads alike: relative, slash separated, without
// dot or empty segments, in printable ASCII without the characters that Windows treats specially.
func plain(p string) bool {
	return p != "." && len(p) <= maxPath && fs.ValidPath(p) && !strings.ContainsFunc(p, odd)
}

func relative(target string) bool {
	return !strings.HasPrefix(target, "/") && len(target) <= maxPath && !strings.ContainsFunc(target, odd)
}

func odd(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`\:*?"<>|`, r) }

func (l *listing) mode(f messages.ArchiveFile) fs.FileMode {
	if f.Executable {
		return programMode
	}
	return fileMode
}

// foldersDeepestFirst is for making folders read-only after what they hold.
func (l *listing) foldersDeepestFirst() []string {
	dirs := make([]string, 0, len(l.folders))
	for d := range l.folders {
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
