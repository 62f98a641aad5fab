package enrich

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Expand replaces folders by the Markdown files in and below them, in order, without hidden ones, and patterns such
// as "notes/*.md" by what they match where no file has that name. A folder that is a symbolic link is
// searched, and a symbolic link to a Markdown file in that folder is a note. Inside a folder, a link to a folder is
// not followed, because such links can form circles, and a link out of the folder is not, because a vault from
// elsewhere could name any file of the user. One note is listed once, whatever its spellings.
// problems are the paths that could not be searched, each with its reason.
func Expand(ctx context.Context, paths []string) (notes []string, problems []Outcome, err error) {
	x := &expansion{ctx: ctx, seen: map[key]bool{}}
	for _, path := range paths {
		if err := x.path(path); err != nil {
			return nil, nil, err
		}
	}
	return x.notes, x.problems, nil
}

// expansion is the state of one Expand.
type expansion struct {
	ctx      context.Context
	notes    []string
	problems []Outcome
	seen     map[key]bool // by real path
}

func (x *expansion) path(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && strings.ContainsAny(path, "*?[") {
		matched, globErr := filepath.Glob(path)
		if globErr != nil {
			return fmt.Errorf("%s is not a valid pattern: %w", path, globErr)
		}
		for _, name := range matched {
			if err := x.match(fixedPart(path), name); err != nil {
				return err
			}
		}
		if len(matched) > 0 {
			return nil
		}
	}
	if path == Standard || err != nil || !info.IsDir() {
		x.add(path) // what cannot be read is reported as the failure of that note
		return nil
	}
	before := len(x.notes)
	found, err := x.folder(path)
	if err != nil {
		return err
	}
	if !found && len(x.notes) == before {
		return fmt.Errorf("looking for notes: no .md or .markdown file in %s", path)
	}
	return nil
}

// fixedPart is the folder of a pattern, up to its first folder with a special character.
func fixedPart(pattern string) string {
	return filepath.Dir(pattern[:strings.IndexAny(pattern, "*?[")] + "x")
}

// match adds what a pattern matches. The user named the pattern and not the match, so links are followed as in a folder.
func (x *expansion) match(root, name string) error {
	info, err := os.Lstat(name)
	switch {
	case err != nil:
		return x.path(name)
	case info.Mode()&fs.ModeSymlink != 0:
		x.link(root, name)
		return nil
	case !below(root, name): // a folder above it is a link
		x.problems = append(x.problems, Outcome{Path: name, Err: ErrLinkOut})
		return nil
	}
	return x.path(name)
}

// folder walks root, through the symbolic link that it may be. found reports whether it has any note or problem.
func (x *expansion) folder(root string) (found bool, err error) {
	start := root
	if info, err := os.Lstat(root); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		start = root + string(filepath.Separator) // WalkDir then reads what the link points to
	}
	err = filepath.WalkDir(start, func(name string, entry fs.DirEntry, err error) error {
		if x.ctx.Err() != nil {
			return context.Cause(x.ctx)
		}
		if err != nil {
			found = true
			x.problems = append(x.problems, Outcome{Path: name, Err: fmt.Errorf("looking for notes: %w", err)})
			if entry != nil && entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		hidden := strings.HasPrefix(entry.Name(), ".") && name != start
		switch {
		case entry.IsDir() && hidden:
			return filepath.SkipDir
		case entry.IsDir() || hidden:
		case entry.Type().IsRegular() && isMarkdown(name):
			found = true
			x.add(name)
		case entry.Type()&fs.ModeSymlink != 0:
			found = x.link(root, name) || found
		}
		return nil
	})
	return found, err
}

// link adds a note that is a link to a note under root. Other links to folders and Markdown files are reported as not
// followed.
func (x *expansion) link(root, name string) bool {
	info, err := os.Stat(name)
	switch {
	case err == nil && info.IsDir():
		x.problems = append(x.problems, Outcome{Path: name, Err: ErrLinkedFolder})
	case !isMarkdown(name):
		return false
	case err == nil && !leadsInto(root, name):
		x.problems = append(x.problems, Outcome{Path: name, Err: ErrLinkOut})
	default:
		x.add(name)
	}
	return true
}

// leadsInto reports whether the file that name links to is a Markdown file under root.
func leadsInto(root, name string) bool {
	target, err := realPath(name)
	return err == nil && isMarkdown(target) && below(root, name)
}

// below reports whether the real path of name is in the real folder root.
func below(root, name string) bool {
	realRoot, rootErr := realPath(root)
	target, err := realPath(name)
	if errors.Join(rootErr, err) != nil {
		return false
	}
	local, err := filepath.Rel(realRoot, target)
	return err == nil && filepath.IsLocal(local)
}

// Problems of links inside a folder, which Expand does not follow.
var (
	ErrLinkedFolder = errors.New("a link to a folder is not followed; name the folder itself to read its notes")
	ErrLinkOut      = errors.New("a link to a file outside the folder, or to one that is no Markdown file, is not followed; name that file itself to read it")
)

func (x *expansion) add(path string) {
	real := path
	if path != Standard {
		if resolved, err := realPath(path); err == nil {
			real = resolved
		} else if whole, err := filepath.Abs(path); err == nil {
			real = whole
		}
	}
	at := keyOf(real, "")
	if x.seen[at] {
		return
	}
	x.seen[at] = true
	x.notes = append(x.notes, path)
}

func isMarkdown(name string) bool {
	ext := strings.ToLower(filepath.Ext(name))
	return ext == ".md" || ext == ".markdown"
}
