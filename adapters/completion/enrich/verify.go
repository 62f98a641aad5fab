package enrich

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"companion/adapters/completion/lane"
)

// Standing is the verdict of Verify about one result.
type Standing string

// The standings of a result against its note.
const (
	Current  Standing = "current"  // the note still has the text that was read
	Stale    Standing = "stale"    // the note has changed since
	Missing  Standing = "missing"  // there is no note at this path
	Unknown  Standing = "unknown"  // standard input, or a note that cannot be read
	Replaced Standing = "replaced" // the file has a later result of the same note
)

// Verified is one result and its standing.
type Verified struct {
	Path     string   `json:"path"`
	Standing Standing `json:"standing"`
	Result   Result   `json:"-"`
}

// SentAway returns the number of bytes of request bodies that left this machine for the result.
func (r Result) SentAway() int64 {
	var away int64
	for name, bytes := range r.Provenance.BytesSent {
		if lane.Lane(name) != lane.Local {
			away += bytes
		}
	}
	return away
}

// Verify compares a file or a folder of results with the notes that they name (E9), and reports each result in order.
// A line that is not a result is an error with its number.
func Verify(ctx context.Context, place string, report func(Verified) error) error {
	files, err := resultFiles(place)
	if err != nil {
		return err
	}
	for _, name := range files {
		if err := verifyFile(ctx, name, report); err != nil {
			return err
		}
	}
	return nil
}

// errNoResults is the error of a place that holds nothing to verify.
var errNoResults = errors.New("it holds no result of enrich")

// resultFiles lists the files to verify: place itself, the results in it, or the sidecars in and below it.
func resultFiles(place string) ([]string, error) {
	if info, err := os.Stat(place); err != nil || !info.IsDir() {
		return []string{place}, nil
	}
	var files []string
	err := filepath.WalkDir(place, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("looking for results: %w", err)
		case entry.IsDir() && name != place && strings.HasPrefix(entry.Name(), "."):
			return filepath.SkipDir
		case !entry.Type().IsRegular():
		case strings.HasSuffix(name, sidecarSuffix), filepath.Dir(name) == filepath.Clean(place) && strings.HasSuffix(name, ".json"):
			files = append(files, name)
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("verifying %s: %w", place, errNoResults)
	}
	return files, err
}

func verifyFile(ctx context.Context, name string, report func(Verified) error) error {
	last, err := lastLines(ctx, name)
	if err != nil {
		return err
	}
	return eachResult(ctx, name, func(number int, r Result) error {
		v := Verified{Path: r.Source.real(), Result: r, Standing: standing(r)}
		if last[noteKey(r.Source)] != number {
			v.Standing = Replaced
		}
		return report(v)
	})
}

// lastLines finds the number of the last line of each note.
func lastLines(ctx context.Context, name string) (map[key]int, error) {
	last := map[key]int{}
	err := eachResult(ctx, name, func(number int, r Result) error {
		last[noteKey(r.Source)] = number
		return nil
	})
	return last, err
}

// noteKey is the identity of a note among results. Texts of standard input have no path: each is a note of its own.
func noteKey(s Source) key {
	if s.Path == Standard {
		return keyOf(s.Path, s.SHA256)
	}
	return keyOf(s.real(), "")
}

func eachResult(ctx context.Context, name string, each func(number int, r Result) error) error {
	file, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("opening the results: %w", err)
	}
	defer func() { _ = file.Close() }()
	reader := bufio.NewReader(file)
	for number := 1; ; number++ {
		line, err := reader.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		if strings.TrimSpace(line) == "" && err != nil {
			return nil
		}
		r, bad := decodeResult([]byte(line))
		if bad != nil {
			return fmt.Errorf("%s:%d: this line is not a result of enrich", name, number)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if stop := each(number, r); stop != nil || err != nil {
			return stop
		}
	}
}

func standing(r Result) Standing {
	if r.Source.Path == Standard {
		return Unknown
	}
	note, err := ReadNote(r.Source.real())
	var system *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Missing
	case errors.As(err, &system):
		return Unknown
	case err == nil && note.Digest == r.Source.SHA256:
		return Current
	}
	return Stale // another text, or none
}
