package enrich

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"companion/adapters/privatefs"
)

// sidecarSuffix follows the whole file name of a note.
const sidecarSuffix = ".enrich.json"

// Sidecar is a Store of one file next to each note, mode 0600.
type Sidecar struct{}

// Done reports whether the file next to the note holds a result of the same text.
func (Sidecar) Done(n Note) (bool, error) {
	result, err := readResult(n.Real + sidecarSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && result.Source.SHA256 == n.Digest, err
}

// Put replaces the file next to the note. A file there that is not a result is not changed.
func (Sidecar) Put(r Result) error {
	name := r.Source.real() + sidecarSuffix
	old, err := readResult(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r = r.with(old.Provenance.BytesSent)
	line, err := encode(r)
	if err != nil {
		return err
	}
	if err := privatefs.Replace(name, line); err != nil {
		return fmt.Errorf("writing a result: %w", err)
	}
	return nil
}

// FrontMatter is a Store in the notes themselves: a block between markers in their front matter. Every byte outside the
// markers stays as it is. A note that has changed since it was read is not written.
type FrontMatter struct{}

// Done reports whether the note's block was made of its present text. A note that cannot take a block is refused here,
// before a request to the model.
func (FrontMatter) Done(n Note) (bool, error) {
	if n.Block == n.Digest {
		return true, nil
	}
	now, err := withResult(Result{Source: sourceOf(n), Tags: []string{}, OpenQuestions: []string{}})
	if err != nil {
		return false, fmt.Errorf("writing to the note: %w", err)
	}
	return now.done, nil // another run may have written the block since n was read
}

// Put writes the block.
func (FrontMatter) Put(r Result) error {
	now, err := withResult(r)
	if err == nil {
		err = replaceNote(r.Source.real(), now.read, now.written)
	}
	if err != nil {
		return fmt.Errorf("writing to the note: %w", err)
	}
	return nil
}

// rewriting is what a note has to become.
type rewriting struct {
	written []byte
	read    fs.FileInfo // the file as it was read
	done    bool        // its block was made of its present text
}

// withResult returns what the note of r has to become. The file is closed then: Windows replaces no open file.
func withResult(r Result) (rewriting, error) {
	file, err := os.OpenFile(r.Source.real(), os.O_RDWR, 0) // a note that its owner made read-only is refused here
	if err != nil {
		return rewriting{}, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return rewriting{}, err
	}
	data, err := io.ReadAll(io.LimitReader(file, MaxNote+1))
	if err != nil {
		return rewriting{}, err
	}
	now, err := ParseNote(r.Source.real(), data)
	if err != nil {
		return rewriting{}, err
	}
	if now.Digest != r.Source.SHA256 {
		return rewriting{}, errors.New("it has changed since it was read; run the same command again")
	}
	if !replaceable(info) {
		return rewriting{}, errors.New("it has several names (hard links) or another owner; use --write sidecar")
	}
	written, err := withBlock(data, r)
	if err == nil && len(written) > MaxNote {
		err = fmt.Errorf("with the result it would be larger than %d MiB; use --write sidecar", MaxNote>>20)
	}
	return rewriting{written, info, now.Block == now.Digest}, err
}

// replaceNote replaces the file by written, with its mode, unless it has changed since read.
func replaceNote(name string, read fs.FileInfo, written []byte) error {
	dir := filepath.Dir(name)
	made, err := os.CreateTemp(dir, ".enrich-*")
	if err != nil {
		return err
	}
	_, err = made.Write(written)
	err = errors.Join(err, made.Chmod(read.Mode().Perm()), made.Sync(), made.Close())
	if err == nil {
		err = unchanged(name, read)
	}
	if err == nil {
		err = os.Rename(made.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(made.Name()))
	}
	return privatefs.SyncDir(dir)
}

// unchanged fails if the file of that name is not the one that was read, or was written to since.
func unchanged(name string, read fs.FileInfo) error {
	now, err := os.Lstat(name)
	if err == nil && (!os.SameFile(now, read) || now.Size() != read.Size() || !now.ModTime().Equal(read.ModTime())) {
		err = errors.New("it has changed since it was read; run the same command again")
	}
	return err
}

// Both is a Store that keeps each result in several stores.
type Both []Store

// Done reports whether the note is done in all of them. Each is asked: one that cannot store the result refuses the note before a
// request.
func (b Both) Done(n Note) (bool, error) {
	all := true
	for _, s := range b {
		done, err := s.Done(n)
		if err != nil {
			return false, err
		}
		all = all && done
	}
	return all, nil
}

// Put stores the result in each of them, also where another one fails, so that no result is lost.
func (b Both) Put(r Result) error {
	var failed error
	for _, s := range b {
		failed = errors.Join(failed, s.Put(r))
	}
	return failed
}
