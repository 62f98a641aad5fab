package enrich

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

const (
	// lockPatience is how long Lines waits for another run that writes to the same file. A run holds the lock
	// for one line at a time.
	lockPatience = 30 * time.Second
	lockBeat     = 5 * time.Millisecond
)

// Lines is a Store in one file, one result a line (mode 0600). Several runs may use one file at the same time:
// each line is written under a lock, after the lines of other runs were read, so that the file holds each
// note once.
type Lines struct {
	name string
	read int64            // where the last line that was read ends
	done map[key]struct{} // what the file holds
	ours map[key]struct{} // results that this run has written
	cut  int64            // bytes of a torn line that were removed
}

// key is a digest of a note's path and the digest of its text.
type key [sha256.Size]byte

func keyOf(path, digest string) key { return sha256.Sum256([]byte(path + "\x00" + digest)) }

// OpenLines opens or creates the file. It removes an incomplete result at the end, which a crash or power loss left. A file
// with any other content is refused with ErrForeign.
func OpenLines(name string) (*Lines, error) {
	l := &Lines{name: name, done: map[key]struct{}{}, ours: map[key]struct{}{}}
	err := l.locked(func(*os.File) error { return nil })
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	return l, nil
}

// Cut returns the number of removed bytes of an incomplete line.
func (l *Lines) Cut() int64 { return l.cut }

// locked runs f with the file while no other run writes to it, after it has read what others wrote.
func (l *Lines) locked(f func(*os.File) error) error {
	file, err := l.lock()
	if err != nil {
		return err
	}
	if err = l.load(file); err == nil {
		err = f(file)
	}
	return errors.Join(err, file.Close())
}

// lock opens the file and takes its lock. A file that was replaced by another one of the same name while lock
// waited is opened again.
func (l *Lines) lock() (*os.File, error) {
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(lockBeat) {
		file, err := os.OpenFile(l.name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		locked, err := tryLock(file)
		if err == nil && locked && l.current(file) {
			return file, nil
		}
		if err == nil && time.Now().After(deadline) {
			err = fmt.Errorf("another run has kept it locked for %s", lockPatience)
		}
		if closed := file.Close(); err != nil {
			return nil, errors.Join(err, closed)
		}
	}
}

// current reports whether file is still the one that the name means.
func (l *Lines) current(file *os.File) bool {
	open, err := file.Stat()
	named, namedErr := os.Stat(l.name)
	return err == nil && namedErr == nil && os.SameFile(open, named)
}

// load reads the lines after the last one that was read, and leaves file at the end of the last whole line.
func (l *Lines) load(file *os.File) error {
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return errors.Join(err, ErrForeign)
	}
	if info.Size() < l.read { // the file was emptied or replaced
		l.read, l.done = 0, map[key]struct{}{}
	}
	if _, err := file.Seek(l.read, io.SeekStart); err != nil {
		return err
	}
	reader := bufio.NewReader(file)
	for {
		line, err := reader.ReadBytes('\n')
		ended := err == nil
		if !ended && !errors.Is(err, io.EOF) {
			return err
		}
		if result, err := decodeResult(line); err == nil {
			l.done[keyOf(result.Source.real(), result.Source.SHA256)] = struct{}{}
			l.read += int64(len(line))
			if !ended { // an editor left out the end of the last line
				return l.append(file, []byte("\n"))
			}
			continue
		}
		if ended || len(line) > 0 && !isTorn(line, l.read > 0) {
			return ErrForeign
		}
		l.cut += int64(len(line))
		return l.truncate(file)
	}
}

// isTorn reports whether line, which has no end, can be what a crash left of a result: its beginning, then zeros
// where the file system had allocated space and lost the data. At the start of a file only zeros count.
func isTorn(line []byte, afterResults bool) bool {
	const start = `{"source":{"path":"`
	text := bytes.TrimRight(line, "\x00")
	if len(text) == 0 {
		return true
	}
	return afterResults && (bytes.HasPrefix(text, []byte(start)) || strings.HasPrefix(start, string(text)))
}

// truncate removes the bytes after the last complete line.
func (l *Lines) truncate(file *os.File) error {
	if err := file.Truncate(l.read); err != nil {
		return err
	}
	_, err := file.Seek(l.read, io.SeekStart)
	return err
}

// append writes data after the last complete line. If that fails, no part of data remains.
func (l *Lines) append(file *os.File, data []byte) error {
	_, err := file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if err != nil {
		return errors.Join(err, l.truncate(file))
	}
	l.read += int64(len(data))
	return nil
}

// Done reports whether a line of this note and text is there, from this run or another one.
func (l *Lines) Done(n Note) (bool, error) {
	if info, err := os.Stat(l.name); err != nil || info.Size() != l.read {
		if err := l.locked(func(*os.File) error { return nil }); err != nil {
			return false, fmt.Errorf("%w: %w", ErrClosed, err)
		}
	}
	return l.has(n.Real, n.Digest) || l.has(n.Path, n.Digest), nil
}

func (l *Lines) has(path, digest string) bool {
	_, found := l.done[keyOf(path, digest)]
	return found
}

// Put appends a line and waits until it is on the disk. Where another run has written the same note meanwhile,
// that line stays the only one, unless bytes of the note left this machine for r: its receipt is not lost.
func (l *Lines) Put(r Result) error {
	line, err := encode(r)
	if err != nil {
		return err
	}
	at := keyOf(r.Source.real(), r.Source.SHA256)
	err = l.locked(func(file *os.File) error {
		if _, found := l.done[at]; found && r.SentAway() == 0 {
			return nil
		}
		if err := l.append(file, line); err != nil {
			return err
		}
		l.done[at] = struct{}{}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	l.ours[at] = struct{}{}
	return nil
}

// Close reads the file once more and fails unless it holds every result of this run.
func (l *Lines) Close() error {
	if len(l.ours) == 0 {
		return nil
	}
	l.read, l.done = 0, map[key]struct{}{}
	if err := l.locked(func(*os.File) error { return nil }); err != nil {
		return fmt.Errorf("checking %s: %w", l.name, err)
	}
	missing := 0
	for at := range l.ours {
		if _, found := l.done[at]; !found {
			missing++
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d results are no longer in %s: another program changed it; run the same command again", missing, len(l.ours), l.name)
	}
	return nil
}
