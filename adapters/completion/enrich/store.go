package enrich

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"companion/adapters/privatefs"
)

// ErrForeign means that the file or folder for results contains data that enrich did not write.
var ErrForeign = errors.New("it holds something other than results of enrich, which is not overwritten")

// ErrClosed means that no further result can be stored.
var ErrClosed = errors.New("no more results can be written")

// Store keeps results where the user asked for them. It is called by one goroutine at a time.
type Store interface {
	// Done reports whether a result for this note and text exists (E7). An error means that no result can be stored; it
	// is returned before a request to the model.
	Done(Note) (bool, error)
	// Put stores a result durably. An error that wraps ErrClosed ends the batch; any other error is the failure of this
	// note.
	Put(Result) error
}

// Stream is a Store that writes one result a line, and remembers nothing.
type Stream struct{ Out io.Writer }

// Done reports false: a stream cannot be read back.
func (Stream) Done(Note) (bool, error) { return false, nil }

// Put writes one line.
func (s Stream) Put(r Result) error {
	line, err := encode(r)
	if err != nil {
		return err
	}
	if _, err := s.Out.Write(line); err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return nil
}

// Folder is a Store of one file for each note, mode 0600, written whole or not at all. The user named the folder
// and decides who may enter it.
type Folder struct{ dir string }

// OpenFolder makes the folder (0700) where there is none, and checks that it can be written to before a model
// works.
func OpenFolder(dir string) (Folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Folder{}, fmt.Errorf("making the folder for the results: %w", err)
	}
	probe, err := os.CreateTemp(dir, ".enrich-*")
	if err == nil {
		err = errors.Join(probe.Close(), os.Remove(probe.Name()))
	}
	if err != nil {
		return Folder{}, fmt.Errorf("writing to the folder for the results: %w", err)
	}
	return Folder{dir}, nil
}

// Done reports whether the note's file holds a result of the same text. A file that is not a result of this note
// refuses the note.
func (f Folder) Done(n Note) (bool, error) {
	source := sourceOf(n)
	for _, name := range []string{f.name(source), f.formerName(n.Path)} {
		result, err := readResult(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return false, err
		case name == f.name(source) && result.Source.real() != source.real():
			return false, fmt.Errorf("writing to %s: it is the result of another note", name)
		case result.Source.SHA256 == n.Digest:
			return true, nil
		}
	}
	return false, nil
}

// Put replaces the note's file, if it is a result of this note.
func (f Folder) Put(r Result) error {
	name := f.name(r.Source)
	old, err := readResult(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	} else if err == nil && old.Source.real() != r.Source.real() {
		return fmt.Errorf("writing to %s: it is the result of another note", name)
	}
	line, err := encode(r.with(old.Provenance.BytesSent))
	if err != nil {
		return err
	}
	if err := privatefs.Replace(name, line); err != nil {
		return fmt.Errorf("writing a result: %w", err)
	}
	return nil
}

// with adds the bytes that were sent for an earlier result of the note, which r replaces.
func (r Result) with(earlier map[string]int64) Result {
	sent := maps.Clone(r.Provenance.BytesSent)
	for lane, bytes := range earlier {
		if sent == nil {
			sent = map[string]int64{}
		}
		sent[lane] += bytes
	}
	r.Provenance.BytesSent = sent
	return r
}

// name keeps notes of the same name in different folders apart, and texts of standard input, which have no name.
func (f Folder) name(s Source) string {
	if s.Path == Standard {
		return filepath.Join(f.dir, "standard-input-"+s.SHA256[:16]+".json")
	}
	base := filepath.Base(s.real())
	return filepath.Join(f.dir, strings.TrimSuffix(base, filepath.Ext(base))+"-"+fingerprint(s.real())+".json")
}

// formerName is the name that versions before the first release gave to a note's file.
func (f Folder) formerName(path string) string {
	whole, err := filepath.Abs(path)
	if err != nil || path == Standard {
		return filepath.Join(f.dir, "standard-input.json")
	}
	base := filepath.Base(path)
	return filepath.Join(f.dir, strings.TrimSuffix(base, filepath.Ext(base))+"-"+fingerprint(whole)[:8]+".json")
}

// fingerprint shortens a path to 24 hexadecimal digits.
func fingerprint(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:12])
}

// maxResult bounds the file of one result, in bytes.
const maxResult = 1 << 20

// readResult reads the file of one result. Something else of that name, such as a link to a device in a vault from
// elsewhere, is neither followed nor waited for.
func readResult(name string) (Result, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return Result{}, fmt.Errorf("reading a result: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxResult {
		return Result{}, fmt.Errorf("writing to %s: %w", name, ErrForeign)
	}
	file, err := os.OpenFile(name, os.O_RDONLY|openNoFollow, 0)
	if err != nil {
		return Result{}, fmt.Errorf("reading a result: %w", err)
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxResult+1))
	if err != nil {
		return Result{}, fmt.Errorf("reading a result: %w", err)
	}
	result, err := decodeResult(data)
	if err != nil {
		return Result{}, fmt.Errorf("writing to %s: %w", name, ErrForeign)
	}
	return result, nil
}

// encode makes one line of JSON in which every hidden character is escaped.
func encode(r Result) ([]byte, error) {
	line, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding a result: %w", err)
	}
	return append([]byte(escapeHidden(string(line))), '\n'), nil
}

func decodeResult(data []byte) (Result, error) {
	if err := validate(data); err != nil {
		return Result{}, err
	}
	var r Result
	if err := json.Unmarshal(data, &r); err != nil {
		return Result{}, fmt.Errorf("reading a result: %w", err)
	}
	return r, nil
}
