package logfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/DeRuina/timberjack"
)

// writer appends whole lines to the rotated log file. Only the goroutine of sink.pump or sink.drain calls it.
//
// It handles two cases that the rotation library leaves to its caller. It creates a log file again that was removed
// or replaced while open. And it ends a partial line (full disk, kill) before the next line, so that only the partial
// line is lost.
type writer struct {
	options Options
	file    *timberjack.Logger
	opened  fs.FileInfo // of the file that the library holds open; nil: not known
	torn    bool        // the file's last byte is not a newline
}

func newWriter(o Options) *writer {
	w := &writer{options: o}
	w.reopen()
	return w
}

// reopen makes a new object of the rotation library, whose first Write opens the file.
func (w *writer) reopen() {
	w.file = &timberjack.Logger{
		Filename:         w.options.File,
		MaxSize:          int(max(1, (w.options.MaxSize+1<<20-1)>>20)),
		MaxBackups:       w.options.Backups,
		FileMode:         os.FileMode(0o600),
		BackupTimeFormat: backupTime,
	}
	w.opened = nil
	w.torn = endsTorn(w.options.File)
}

// endsTorn reports whether the file ends in the middle of a line.
func endsTorn(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return false
	}
	last := make([]byte, 1)
	_, err = file.ReadAt(last, info.Size()-1)
	return (err == nil || errors.Is(err, io.EOF)) && last[0] != '\n'
}

// Check compares the path with the open file and opens the path again when they differ. It costs one stat, so the
// caller does it once for each batch of lines.
func (w *writer) Check() {
	if w.opened == nil {
		return
	}
	if now, err := os.Stat(w.options.File); err == nil && os.SameFile(now, w.opened) {
		return
	}
	// After a rotation by the library itself the path also names another file; opening it again is harmless.
	_ = w.file.Close()
	w.reopen()
}

// Write appends one line. An error means that the line is lost, whole or in part.
func (w *writer) Write(line []byte) (int, error) {
	if w.torn {
		if _, err := w.file.Write([]byte("\n")); err != nil {
			return 0, fmt.Errorf("writing the log: %w", err)
		}
		w.torn = false
	}
	n, err := w.file.Write(line)
	if err != nil {
		w.torn = w.torn || n > 0
		return n, fmt.Errorf("writing the log: %w", err)
	}
	if w.opened == nil {
		w.opened, _ = os.Stat(w.options.File)
	}
	return n, nil
}

func (w *writer) Close() error { return w.file.Close() }
