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

// backupTime is the time in the names of rotated files, fine enough that the names sort by age.
const backupTime = "2006-01-02T15-04-05.000000000"

// longest is the longest line that the tail reads, in bytes; it skips longer ones.
const longest = 1 << 20

// Filter selects records. The zero Filter selects everything from info up.
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

// TailOptions configures Tail.
type TailOptions struct {
	Path   string
	Follow bool // go on until ctx ends, across rotation, truncation and removal
	Filter Filter
	// Notice gets one sentence when Tail has to work in a slower way than usual; nil: no notice.
	Notice func(string)
}

// pollEvery is how often a following tail lists the folder without an event: the kernel drops events when its queue
// overflows, and sends none for a removed folder. A poll costs a stat and one listing of the folder.
const pollEvery = time.Second

// Tail calls emit with the records of the log, oldest first, rotated files included (J3). With Follow it continues
// until ctx ends, which is not an error. It needs no daemon.
//
// Tail libraries open the path again when they learn of a rename. They lose the lines written between their last read
// and the rename, and files that were current only in between. This tail follows the files by identity.
func Tail(ctx context.Context, o TailOptions, emit func(Record) error) error {
	t := tail{path: o.Path, filter: o.Filter, emit: emit}
	defer t.close()
	if !o.Follow {
		return t.catchUp(ctx)
	}
	notice := o.Notice
	if notice == nil {
		notice = func(string) {}
	}
	changes, stop := watch(filepath.Dir(o.Path), notice)
	defer stop()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		if err := t.catchUp(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changes:
		case <-poll.C:
		}
	}
}

// watch returns a channel that receives after changes in dir; one receive may stand for several changes. When the
// kernel cannot watch dir (no inotify instances left, a removed folder), the channel never receives, notice gets the
// reason, and the caller relies on its poll.
func watch(dir string, notice func(string)) (changes <-chan struct{}, stop func()) {
	changed := make(chan struct{}, 1)
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		if err = watcher.Add(dir); err != nil {
			_ = watcher.Close()
		}
	}
	if err != nil {
		notice(fmt.Sprintf("the system reports no changes of the log (%v); looking every %v instead", err, pollEvery))
		return changed, func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		forward(watcher.Events, watcher.Errors, changed, notice)
	}()
	return changed, func() {
		_ = watcher.Close()
		<-done
	}
}

// forward turns events and errors into sends to changed, until both channels are closed. An error (the queue
// overflowed) also means that something changed. It must be received, because the library blocks on it otherwise.
func forward(events <-chan fsnotify.Event, errs <-chan error, changed chan<- struct{}, notice func(string)) {
	told := false
	for events != nil || errs != nil {
		select {
		case _, ok := <-events:
			if !ok {
				events = nil
				continue
			}
		case err, ok := <-errs:
			if !ok {
				errs = nil
				continue
			}
			if !told {
				told = true
				notice(fmt.Sprintf("the system dropped reports of changes (%v); looking every %v as well", err, pollEvery))
			}
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}

// tail is a position in the sequence of files: rotated ones by name, then the current one.
type tail struct {
	path    string
	filter  Filter
	emit    func(Record) error
	held    *os.File
	info    fs.FileInfo
	reader  *bufio.Reader
	read    int64 // bytes of the held file that were read
	partial []byte
	skip    bool // skip the rest of an overlong line
}

func (t *tail) close() {
	if t.held != nil {
		_ = t.held.Close()
	}
}

// catchUp reads to the end of the newest file.
func (t *tail) catchUp(ctx context.Context) error {
	for ctx.Err() == nil {
		// Look for the successor before reading: a file that has one gets no more lines.
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

// successor returns the file after the held one, or "" when the held one is the newest. It checks the current file
// before it lists the rotated ones: a held file that is not the current one is then either in the list, or was removed
// together with every older file.
func (t *tail) successor() (next string, nextInfo fs.FileInfo, err error) {
	type candidate struct {
		name string
		info fs.FileInfo
	}
	var candidates []candidate
	look := func(name string) {
		info, statErr := os.Stat(name)
		if statErr == nil {
			candidates = append(candidates, candidate{name, info})
		} else if !errors.Is(statErr, fs.ErrNotExist) { // rotated or removed since
			err = fmt.Errorf("listing the log: %w", statErr)
		}
	}
	look(t.path)
	for _, name := range slices.Backward(t.rotated()) {
		look(name)
	}
	for _, c := range candidates {
		if t.info != nil && os.SameFile(c.info, t.info) || t.info == nil && c.info.ModTime().Before(t.filter.Since) {
			break
		}
		next, nextInfo = c.name, c.info
	}
	return next, nextInfo, err
}

// rotated lists the rotated files, oldest first; the list of a removed folder is empty. It does not use filepath.Glob,
// which would interpret brackets in the folder's name.
func (t *tail) rotated() []string {
	dir, base := filepath.Split(t.path)
	ext := filepath.Ext(base)
	prefix := strings.TrimSuffix(base, ext) + "-"
	entries, _ := os.ReadDir(filepath.Clean(dir)) // sorted by name; a partial list is better than none
	var names []string
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), prefix) && strings.HasSuffix(entry.Name(), ext) {
			names = append(names, filepath.Join(dir, entry.Name()))
		}
	}
	return names
}

// move opens the next file. If a rotation has put another file under that name meanwhile, it opens none, and the
// caller calls successor again.
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
	t.held, t.info, t.reader, t.read, t.partial, t.skip = file, opened, bufio.NewReader(file), 0, nil, false
	return nil
}

func (t *tail) readHeld(ctx context.Context) error {
	if err := t.rewind(); err != nil {
		return err
	}
	for ctx.Err() == nil {
		piece, err := t.reader.ReadSlice('\n')
		t.read += int64(len(piece))
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

// rewind starts at the beginning when the held file is shorter than what was read from it, because it was truncated.
func (t *tail) rewind() error {
	info, err := t.held.Stat()
	if err != nil {
		return fmt.Errorf("reading the log: %w", err)
	}
	if info.Size() >= t.read {
		return nil
	}
	if _, err := t.held.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("reading the log: %w", err)
	}
	t.reader.Reset(t.held)
	t.read, t.partial, t.skip = 0, nil, false
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
	if err != nil {
		record, err = parseGlued(line)
	}
	if err != nil || !t.filter.allows(record) {
		return nil // skip a line that a crash has cut off
	}
	return t.emit(record)
}

// lineStart begins every line of the encoder. Inside a JSON string its quotes would be escaped.
var lineStart = []byte(`{"level":`)

// parseGlued reads the whole line that follows a partial one: a writer that was killed in the middle of a line wrote no
// line end.
func parseGlued(line []byte) (Record, error) {
	at := bytes.LastIndex(line, lineStart)
	if at <= 0 {
		return Record{}, errors.New("reading a log line: no whole line in it")
	}
	return Parse(line[at:])
}
