package logfile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap/zapcore"
)

// backupTime names rotated files: fine enough that their names sort in the order of their making.
const backupTime = "2006-01-02T15-04-05.000000000"

// longest is the longest line that the tail takes in; a longer one is passed over.
const longest = 1 << 20

// Filter says which records the tail hands on. The zero Filter hands on everything from info up.
type Filter struct {
	Actor string         // this actor, or a wing such as "runtime"; empty: all
	Level zapcore.Level  // at least
	Since time.Time      // not older
	Match *regexp.Regexp // against the whole line; nil: all
}

func (f Filter) allows(r Record) bool {
	return r.Level >= f.Level && !r.Time.Before(f.Since) &&
		(f.Actor == "" || r.Actor == f.Actor || strings.HasPrefix(r.Actor, f.Actor+"/")) &&
		(f.Match == nil || f.Match.Match(r.Line))
}

// Tail hands on the records of the log at path, oldest first, rotated files included (J3). With
// follow it goes on until ctx ends, across rotations; ctx's end is no error. It needs no daemon.
//
// A library's tail reopens a path when it is told of the rename, and so loses what was written
// between its last read and the rename, or in a file that came and went meanwhile. This one goes
// from file to file by identity.
func Tail(ctx context.Context, path string, follow bool, f Filter, emit func(Record) error) error {
	var changes <-chan fsnotify.Event
	if follow {
		watcher, err := fsnotify.NewWatcher()
		if err != nil {
			return fmt.Errorf("watching the log: %w", err)
		}
		defer func() { _ = watcher.Close() }()
		if err := watcher.Add(filepath.Dir(path)); err != nil {
			return fmt.Errorf("watching the log: %w", err)
		}
		changes = watcher.Events
	}
	t := tail{path: path, filter: f, emit: emit}
	defer t.close()
	for {
		if err := t.catchUp(ctx); err != nil || !follow {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-changes:
			if !ok {
				return errors.New("watching the log: the watcher ended")
			}
		}
	}
}

// tail is a place in the sequence of files: rotated ones by name, then the current one.
type tail struct {
	path    string
	filter  Filter
	emit    func(Record) error
	held    *os.File
	info    fs.FileInfo
	reader  *bufio.Reader
	partial []byte
	skip    bool // the rest of an overlong line
}

func (t *tail) close() {
	if t.held != nil {
		_ = t.held.Close()
	}
}

// catchUp reads to the end of the newest file.
func (t *tail) catchUp(ctx context.Context) error {
	for ctx.Err() == nil {
		// Asked before reading: a file that already has a successor gets no more lines.
		next, info, err := t.successor()
		if err != nil {
			return err
		}
		if t.held != nil {
			if err := t.readHeld(ctx); err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		if err := t.move(next, info); err != nil {
			return err
		}
	}
	return nil
}

// successor names the file after the held one, or nothing when it is the newest. The current file is
// looked at before the rotated ones are listed: so a held file that is no longer current is in the
// list, or was removed together with everything older.
func (t *tail) successor() (next string, nextInfo fs.FileInfo, err error) {
	type place struct {
		name string
		info fs.FileInfo
	}
	var places []place
	look := func(name string) {
		info, statErr := os.Stat(name)
		if statErr == nil {
			places = append(places, place{name, info})
		} else if !errors.Is(statErr, fs.ErrNotExist) { // rotated or removed since
			err = fmt.Errorf("listing the log: %w", statErr)
		}
	}
	look(t.path)
	ext := filepath.Ext(t.path)
	names, globErr := filepath.Glob(strings.TrimSuffix(t.path, ext) + "-*" + ext)
	slices.Sort(names)
	for _, name := range slices.Backward(names) {
		look(name)
	}
	for _, at := range places {
		if t.info != nil && os.SameFile(at.info, t.info) || t.info == nil && at.info.ModTime().Before(t.filter.Since) {
			break
		}
		next, nextInfo = at.name, at.info
	}
	return next, nextInfo, errors.Join(err, globErr)
}

// move opens the next file, unless a rotation has put another one under that name meanwhile: then
// the caller asks again.
func (t *tail) move(next string, info fs.FileInfo) error {
	file, err := os.Open(next)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	opened, err := file.Stat()
	if err != nil || !os.SameFile(opened, info) {
		return errors.Join(err, file.Close())
	}
	t.close()
	t.held, t.info, t.reader, t.partial, t.skip = file, opened, bufio.NewReader(file), nil, false
	return nil
}

func (t *tail) readHeld(ctx context.Context) error {
	for ctx.Err() == nil {
		piece, err := t.reader.ReadSlice('\n')
		t.partial = append(t.partial, piece...)
		if len(t.partial) > longest {
			t.partial, t.skip = t.partial[:0], true
		}
		if err == nil {
			if err := t.line(); err != nil {
				return err
			}
			continue
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("reading the log: %w", err)
		}
	}
	return nil
}

func (t *tail) line() error {
	line := bytes.Clone(t.partial)
	skip := t.skip
	t.partial, t.skip = t.partial[:0], false
	if skip {
		return nil
	}
	record, err := Parse(line)
	if err != nil || !t.filter.allows(record) {
		return nil // a torn line of a crash is no reason to stop
	}
	return t.emit(record)
}
