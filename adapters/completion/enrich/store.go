package enrich

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"companion/adapters/private"
)

// ErrForeign is in the chain when the place for results holds something that enrich did not write.
var ErrForeign = errors.New("it holds something else than results of enrich, which is not overwritten")

// Stream is a Store that writes one result a line, and remembers nothing.
type Stream struct{ Out io.Writer }

// Done reports false: what went by is gone.
func (Stream) Done(Note) bool { return false }

// Put writes one line.
func (s Stream) Put(r Result) error {
	line, err := encode(r)
	if err != nil {
		return err
	}
	if _, err := s.Out.Write(line); err != nil {
		return fmt.Errorf("writing a result: %w", err)
	}
	return nil
}

// Folder is a Store of one file for each note, 0600, written whole or not at all.
type Folder struct{ Dir string }

// Done reports whether the note's file holds a result of the same text.
func (f Folder) Done(n Note) bool {
	result, err := readResult(f.name(n.Path))
	return err == nil && result.Source.SHA256 == n.Digest
}

// Put replaces the note's file, if it is a result.
func (f Folder) Put(r Result) error {
	name := f.name(r.Source.Path)
	if _, err := readResult(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("writing %s: %w", name, ErrForeign)
	}
	line, err := encode(r)
	if err != nil {
		return err
	}
	if err := private.WriteFile(name, line); err != nil {
		return fmt.Errorf("writing a result: %w", err)
	}
	return nil
}

// name keeps notes of the same name in different folders apart.
func (f Folder) name(path string) string {
	if whole, err := filepath.Abs(path); err == nil && path != "-" {
		sum := sha256.Sum256([]byte(whole))
		base := filepath.Base(path)
		return filepath.Join(f.Dir, strings.TrimSuffix(base, filepath.Ext(base))+"-"+hex.EncodeToString(sum[:4])+".json")
	}
	return filepath.Join(f.Dir, "standard-input.json")
}

func readResult(name string) (Result, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return Result{}, fmt.Errorf("reading a result: %w", err)
	}
	return decodeResult(data)
}

// Lines is a Store in one file, one result a line. Close it.
type Lines struct {
	file *os.File
	done map[string]bool // path and digest
}

// OpenLines opens or makes the file (0600). A last line without its end, left by a crash, is cut
// off; anything that is no result refuses the file with ErrForeign.
func OpenLines(name string) (*Lines, error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the results: %w", err)
	}
	l := &Lines{file: file, done: map[string]bool{}}
	if err := l.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening %s: %w", name, err), file.Close())
	}
	return l, nil
}

func (l *Lines) load() error {
	reader := bufio.NewReader(l.file)
	whole := int64(0)
	for {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			if len(line) > 0 && whole == 0 && !bytes.HasPrefix(line, []byte(`{"source":`)) {
				return ErrForeign
			}
			break
		}
		if err != nil {
			return err
		}
		result, err := decodeResult(line)
		if err != nil {
			return ErrForeign
		}
		l.done[key(result.Source.Path, result.Source.SHA256)] = true
		whole += int64(len(line))
	}
	if err := l.file.Truncate(whole); err != nil {
		return err
	}
	_, err := l.file.Seek(whole, io.SeekStart)
	return err
}

func key(path, digest string) string { return path + "\x00" + digest }

// Done reports whether a line of this note and text is there.
func (l *Lines) Done(n Note) bool { return l.done[key(n.Path, n.Digest)] }

// Put appends a line and waits until it is on the disk.
func (l *Lines) Put(r Result) error {
	line, err := encode(r)
	if err != nil {
		return err
	}
	if _, err := l.file.Write(line); err != nil {
		return fmt.Errorf("writing a result: %w", err)
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("writing a result: %w", err)
	}
	l.done[key(r.Source.Path, r.Source.SHA256)] = true
	return nil
}

// Close closes the file.
func (l *Lines) Close() error { return l.file.Close() }

func encode(r Result) ([]byte, error) {
	line, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding a result: %w", err)
	}
	return append(line, '\n'), nil
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
