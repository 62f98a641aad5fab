package artifact

import (
	"io/fs"
	"path"
	"strings"

	"companion/messages"
)

// List is a checked list of the files of a runtime archive.
type List struct {
	Files   map[string]messages.ArchiveFile
	Folders map[string]bool // every parent of a file, without "."
	Bytes   int64           // of all files
}

// CheckFiles refuses a list that no archive may have: with a path that is absolute, dotted or odd, two
// paths that differ in case alone, a file that is also a folder, a link that leaves the folder or ends
// at no file, or an executable that is not there and runnable.
func CheckFiles(files []messages.ArchiveFile, executable string) error {
	list, err := NewList(files)
	if err != nil {
		return err
	}
	if f, ok := list.Target(executable); !ok || !f.Executable {
		return refuse("the executable is not a program of the list")
	}
	return nil
}

// NewList checks files as CheckFiles does, except for the executable.
func NewList(files []messages.ArchiveFile) (*List, error) {
	if len(files) == 0 || len(files) > MaxFiles {
		return nil, refuse("%d files in the list", len(files))
	}
	l := &List{Files: map[string]messages.ArchiveFile{}, Folders: map[string]bool{}}
	folded := map[string]bool{}
	for _, f := range files {
		key := strings.ToLower(f.Path)
		switch {
		case !plain(f.Path):
			return nil, refuse("a path of the list is not plain")
		case folded[key]:
			return nil, refuse("%s is in the list twice", f.Path)
		case f.Size < 0 || f.Size > MaxUnpacked-l.Bytes:
			return nil, refuse("the list is too large")
		case f.LinkTarget != "" && f.Size != 0:
			return nil, refuse("%s is a link with a size", f.Path)
		}
		folded[key] = true
		l.Files[f.Path] = f
		l.Bytes += f.Size
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			l.Folders[dir] = true
		}
	}
	for dir := range l.Folders {
		if folded[strings.ToLower(dir)] {
			return nil, refuse("%s is a file and a folder", dir)
		}
	}
	for name := range l.Files {
		if _, ok := l.Target(name); !ok {
			return nil, refuse("%s leads to no file of the list", name)
		}
	}
	return l, nil
}

// Target follows links to the file that name means.
func (l *List) Target(name string) (messages.ArchiveFile, bool) {
	for range maxLinkHops {
		f, ok := l.Files[name]
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
	return p != "." && len(p) <= MaxPath && fs.ValidPath(p) && !strings.ContainsFunc(p, odd)
}

func relative(target string) bool {
	return !strings.HasPrefix(target, "/") && len(target) <= MaxPath && !strings.ContainsFunc(target, odd)
}

func odd(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`\:*?"<>|`, r) }
