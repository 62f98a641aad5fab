package enrich

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Store keeps results where the user asked for them. It is called by one goroutine at a time.
type Store interface {
	// Done reports whether the result of this very note is already there (E7); an error says that none
	// can be kept, before a model works for it.
	Done(Note) (bool, error)
	// Put keeps a result, so that it survives an interruption right after. ErrClosed in the chain of its
	// error ends the batch; any other is the failure of this note.
	Put(Result) error
}

// Outcome is what became of one note.
type Outcome struct {
	Path      string
	Skipped   bool // done earlier
	Truncated bool
	Err       error
}

// Batch enriches the notes at paths, at most jobs at once, and hands every result to store. report
// is called once per note, on the caller's goroutine, as they end. A note that fails does not stop
// the others; the end of ctx or of the store does, and is the error: what was not begun or broke off
// then is not reported.
func Batch(ctx context.Context, e *Enricher, paths []string, jobs int, store Store, report func(Outcome)) error {
	type finished struct {
		outcome Outcome
		result  *Result
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var todo []Note
	for _, path := range paths {
		note, err := ReadNote(path)
		done := false
		if err == nil {
			done, err = store.Done(note)
		}
		switch {
		case err != nil:
			report(Outcome{Path: path, Err: err})
		case done:
			report(Outcome{Path: path, Skipped: true})
		default:
			todo = append(todo, note)
		}
	}
	results := make(chan finished)
	var group errgroup.Group
	group.SetLimit(max(1, jobs) + 1) // and the one that hands out the work
	group.Go(func() error {
		for _, note := range todo {
			if ctx.Err() != nil {
				break
			}
			group.Go(func() error {
				result, err := e.Note(ctx, note)
				done := finished{outcome: Outcome{Path: note.Path, Err: err, Truncated: result.Truncated}}
				if err == nil {
					done.result = &result
				}
				results <- done
				return nil
			})
		}
		return nil
	})
	go func() {
		_ = group.Wait() // the jobs report their errors themselves
		close(results)
	}()
	for done := range results {
		if done.result == nil && ctx.Err() != nil {
			continue // it broke off with the batch
		}
		if done.result != nil {
			done.outcome.Err = store.Put(*done.result)
		}
		report(done.outcome)
		if errors.Is(done.outcome.Err, ErrClosed) {
			cancel(done.outcome.Err)
		}
	}
	return context.Cause(ctx)
}

// ReadNote reads one note; "-" is standard input.
func ReadNote(path string) (Note, error) {
	var in io.Reader = os.Stdin
	if path != "-" {
		info, err := os.Stat(path)
		if err != nil {
			return Note{}, fmt.Errorf("reading the note: %w", err)
		}
		if !info.Mode().IsRegular() {
			return Note{}, errors.New("reading the note: not a regular file")
		}
		file, err := os.Open(path)
		if err != nil {
			return Note{}, fmt.Errorf("reading the note: %w", err)
		}
		defer func() { _ = file.Close() }()
		in = file
	}
	data, err := io.ReadAll(io.LimitReader(in, MaxNote+1))
	if err != nil {
		return Note{}, fmt.Errorf("reading the note: %w", err)
	}
	return ParseNote(path, data)
}

// Expand replaces folders by the Markdown files in and below them, in order, without hidden ones.
func Expand(paths []string) ([]string, error) {
	var all []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if path == "-" || err != nil || !info.IsDir() {
			all = append(all, path) // what cannot be read is reported as that note's failure
			continue
		}
		before := len(all)
		err = filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			hidden := strings.HasPrefix(entry.Name(), ".") && name != path
			if entry.IsDir() && hidden {
				return filepath.SkipDir
			}
			if entry.Type().IsRegular() && !hidden && isMarkdown(name) {
				all = append(all, name)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("looking for notes: %w", err)
		}
		if len(all) == before {
			return nil, fmt.Errorf("looking for notes: no .md or .markdown file in %s", path)
		}
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(all, func(path string) bool {
		again := seen[path]
		seen[path] = true
		return again
	}), nil
}

func isMarkdown(name string) bool {
	ext := strings.ToLower(filepath.Ext(name))
	return ext == ".md" || ext == ".markdown"
}
