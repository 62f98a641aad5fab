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

	"companion/adapters/privatefs"
)

// ErrForeign is in the chain when the place for results holds something that enrich did not write.
var ErrForeign = errors.New("it holds something else than results of enrich, which is not overwritten")

// ErrClosed is in the chain of a Put after which no other result can be kept.
var ErrClosed = errors.New("no more results can be written")

// Stream is a Store that writes one result a line, and remembers nothing.
type Stream struct{ Out io.Writer }

// Done reports false: what went by is gone.
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

// Folder is a Store of one file for each note, 0600, written whole or not at all. Who may enter the
// folder is for the user to say, who named it.
type Folder struct{ dir string }

// OpenFolder makes the folder (0700) where there is none, and tries whether it can be written to: that
// is better known before a model has worked.
func OpenFolder(dir string) (Folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Folder{}, fmt.Errorf("making the folder for the results: %w", err)
	}
	probe, err := os.CreateTemp(dir, ".enrich-*")
	if err == nil {
		err = errors.Join(probe.Close(), os.Remove(probe.Name()))
	}
	if err != nil {
		return Folder{}, fmt.Errorf("trying the folder for the results: %w", err)
	}
	return Folder{dir}, nil
}

// Done reports whether the note's file holds a result of the same text. A file that is no result has no
// room for one.
func (f Folder) Done(n Note) (bool, error) {
	result, err := readResult(f.name(n.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && result.Source.SHA256 == n.Digest, err
}

// Put replaces the note's file, if it is a result.
func (f Folder) Put(r Result) error {
	name := f.name(r.Source.Path)
	if _, err := readResult(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	line, err := encode(r)
	if err != nil {
		return err
	}
	if err := privatefs.Replace(name, line); err != nil {
		return fmt.Errorf("writing a result: %w", err)
	}
	return nil
}

// name keeps notes of the same name in different folders apart.
func (f Folder) name(path string) string {
	if whole, err := filepath.Abs(path); err == nil && path != "-" {
		sum := sha256.Sum256([]byte(whole))
		base := filepath.Base(path)
		return filepath.Join(f.dir, strings.TrimSuffix(base, filepath.Ext(base))+"-"+hex.EncodeToString(sum[:4])+".json")
	}
	return filepath.Join(f.dir, "standard-input.json")
}

func readResult(name string) (Result, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return Result{}, fmt.Errorf("reading a result: %w", err)
	}
	result, err := decodeResult(data)
	if err != nil {
		return Result{}, fmt.Errorf("writing to %s: %w", name, ErrForeign)
	}
	return result, nil
}

// Lines is a Store in one file, one result a line. Close it.
type Lines struct {
	file  *os.File
	whole int64           // where the last whole line ends
	done  map[string]bool // path and digest
}

// OpenLines opens or makes the file (0600). After whole results, the beginning of one more, left by a
// crash, is cut off; anything else that is no result refuses the file with ErrForeign.
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
	if info, err := l.file.Stat(); err != nil || !info.Mode().IsRegular() {
		return errors.Join(err, ErrForeign)
	}
	reader := bufio.NewReader(l.file)
	for {
		line, err := reader.ReadBytes('\n')
		ended := err == nil
		if !ended && !errors.Is(err, io.EOF) {
			return err
		}
		if result, err := decodeResult(line); err == nil {
			l.done[key(result.Source.Path, result.Source.SHA256)] = true
			l.whole += int64(len(line))
			if !ended { // by an editor, say
				return l.append([]byte("\n"))
			}
			continue
		}
		if ended || len(line) > 0 && (l.whole == 0 || !beginsResult(line)) {
			return ErrForeign
		}
		return l.cut()
	}
}

// beginsResult reports whether line, which has no end, can be what a crash left of a result.
func beginsResult(line []byte) bool {
	const start = `{"source":{"path":"`
	return bytes.HasPrefix(line, []byte(start)) || strings.HasPrefix(start, string(line))
}

// cut removes what stands after the last whole line.
func (l *Lines) cut() error {
	if err := l.file.Truncate(l.whole); err != nil {
		return err
	}
	_, err := l.file.Seek(l.whole, io.SeekStart)
	return err
}

// append writes after the last whole line, and leaves no part of data where that fails.
func (l *Lines) append(data []byte) error {
	_, err := l.file.Write(data)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		return errors.Join(err, l.cut())
	}
	l.whole += int64(len(data))
	return nil
}

func key(path, digest string) string { return path + "\x00" + digest }

// Done reports whether a line of this note and text is there.
func (l *Lines) Done(n Note) (bool, error) { return l.done[key(n.Path, n.Digest)], nil }

// Put appends a line and waits until it is on the disk.
func (l *Lines) Put(r Result) error {
	line, err := encode(r)
	if err != nil {
		return err
	}
	if err := l.append(line); err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, err)
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
