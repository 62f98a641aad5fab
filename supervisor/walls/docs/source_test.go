package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// root is the top of the module, seen from this package.
const root = "../../.."

// line is one line of a document or of a Go comment.
type line struct {
	file   string // relative to root, with slashes
	number int
	text   string
}

// sources are all Go comments, all failure texts of tests and all lines of the documents, by file.
type sources struct {
	comments []line
	failures []line
	docs     []line
}

// readSources parses every Go file and every document once.
var readSources = sync.OnceValues(func() (sources, error) {
	var s sources
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if path != root && strings.HasPrefix(name, ".") && name != ".github" || name == "testdata" || name == "bin" {
				return filepath.SkipDir
			}
			return nil
		}
		file, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		file = filepath.ToSlash(file)
		switch filepath.Ext(name) {
		case ".go":
			return s.parse(path, file)
		case ".md":
			data, err := os.ReadFile(path)
			for i, text := range strings.Split(string(data), "\n") {
				s.docs = append(s.docs, line{file, i + 1, text})
			}
			return err
		}
		return nil
	})
	return s, err
})

// parse adds the comments and the failure texts of a Go file.
func (s *sources) parse(path, file string) error {
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	for _, group := range parsed.Comments {
		for _, comment := range group.List {
			s.comments = append(s.comments, linesOf(set, comment, file)...)
		}
	}
	s.failures = append(s.failures, failuresOf(set, parsed, file)...)
	return nil
}

func linesOf(set *token.FileSet, comment *ast.Comment, file string) []line {
	var lines []line
	first := set.Position(comment.Pos()).Line
	for i, text := range strings.Split(comment.Text, "\n") {
		lines = append(lines, line{file, first + i, text})
	}
	return lines
}

// load returns the sources and fails when so little was found that the tests would check nothing.
func load(t *testing.T) sources {
	t.Helper()
	s, err := readSources()
	if err != nil {
		t.Fatal(err)
	}
	if len(s.comments) < 5000 || len(s.docs) < 500 {
		t.Fatalf("found %d lines of comments and %d of documents; nothing would be checked", len(s.comments), len(s.docs))
	}
	return s
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
