// Package logfile owns the log file (J1): it is the only writer, it rotates, and it is never in
// anybody's way. Loggers put encoded lines into bounded buffers and go on; the actor writes them,
// together and some milliseconds later, to the file and, where there is one, to the terminal. What does
// not fit is dropped, counted, and the count is logged. The tail (J3) reads what the actor wrote, across
// rotations, from any process.
//
// A line is one JSON object with time, level, actor, event and, where there is one, reason. The
// actor is the zap logger's name, the event its message.
package logfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/DeRuina/timberjack"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"companion/adapters/privatefs"
	"companion/messages"
)

// nobody is the actor of lines from outside any actor: the command itself.
const nobody = "companion"

// patience bounds the wait for a terminal that nobody reads or a disk that takes nothing, at the end of
// Serve and in Flush.
const patience = time.Second

var errStuck = errors.New("the file takes no more lines")

// Options says where lines go.
type Options struct {
	File    string // in a private folder, which Open makes
	MaxSize int64  // bytes, rounded up to whole MiB
	Backups int
	Level   zapcore.Level
	// Terminal also receives every line; nil: none. Readable renders them for a person, else they
	// are JSON. Colour needs Readable.
	Terminal io.Writer
	Readable bool
	Colour   bool
}

// Journal is the actor. Its buffers outlive restarts of Serve.
type Journal struct {
	options  Options
	file     *sink
	terminal *sink         // nil without a terminal
	showing  chan struct{} // of capacity one: held by whoever writes to the terminal
	logger   *zap.Logger
}

// Open checks that folder and file are private (T17) and makes the actor. It writes nothing yet.
func Open(o Options) (*Journal, error) {
	if err := privatefs.EnsureDir(filepath.Dir(o.File)); err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	if err := privatefs.CheckFile(o.File); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	j := &Journal{options: o, file: newSink(), showing: make(chan struct{}, 1)}
	core := zapcore.NewCore(newEncoder(), j.file, o.Level)
	if o.Terminal != nil {
		j.terminal = newSink()
		core = zapcore.NewTee(core, zapcore.NewCore(newEncoder(), j.terminal, o.Level))
	}
	j.logger = zap.New(namedCore{core})
	return j, nil
}

// Logger is the root of all loggers; the wiring names one for each actor with
// Logger().Named(string(messages.Actor…)). Writing never blocks.
func (j *Journal) Logger() *zap.Logger { return j.logger }

func (j *Journal) String() string { return string(messages.ActorJournal) }

// Serve writes lines until ctx ends, then what is still buffered.
func (j *Journal) Serve(ctx context.Context) error {
	file := j.open()
	shown := beside(func() {
		j.onTerminal(ctx, func() { j.terminal.pump(ctx, j.show) })
	})
	j.file.pump(ctx, file.Write)
	err := file.Close()
	within(shown)
	if err != nil {
		return fmt.Errorf("closing the log: %w", err)
	}
	return ctx.Err()
}

// Flush writes what was logged after Serve ended. The composition root calls it last.
func (j *Journal) Flush() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	shown := beside(func() {
		j.onTerminal(ctx, func() { j.terminal.drain(j.show) })
	})
	var err error
	written := beside(func() {
		file := j.open()
		j.file.drain(file.Write)
		err = file.Close()
	})
	defer within(shown)
	if !within(written) {
		return fmt.Errorf("writing the log: %w", errStuck)
	}
	if err != nil {
		return fmt.Errorf("closing the log: %w", err)
	}
	return nil
}

// onTerminal runs write when nobody else writes to the terminal: an earlier Serve may have left one
// behind that is stuck there.
func (j *Journal) onTerminal(ctx context.Context, write func()) {
	if j.terminal == nil {
		return
	}
	select {
	case j.showing <- struct{}{}:
		defer func() { <-j.showing }()
		write()
	case <-ctx.Done():
	}
}

// beside runs f in a goroutine, and closes the channel when it has ended.
func beside(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return done
}

// within waits for the end of what runs beside, and leaves it behind after patience: a pipe that nobody
// reads holds a write for good, and files of the standard streams know no deadline. The process is about
// to end; its shutdown must not wait for that reader (X7).
func within(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-time.After(patience):
		return false
	}
}

func (j *Journal) open() *timberjack.Logger {
	return &timberjack.Logger{
		Filename:         j.options.File,
		MaxSize:          int(max(1, (j.options.MaxSize+1<<20-1)>>20)),
		MaxBackups:       j.options.Backups,
		FileMode:         os.FileMode(0o600),
		BackupTimeFormat: backupTime,
	}
}

func (j *Journal) show(line []byte) (int, error) {
	if !j.options.Readable {
		return j.options.Terminal.Write(line)
	}
	record, err := Parse(line)
	if err != nil {
		return 0, err
	}
	return io.WriteString(j.options.Terminal, record.Text(j.options.Colour)+"\n")
}

func newEncoder() zapcore.Encoder {
	return zapcore.NewJSONEncoder(zapcore.EncoderConfig{
		TimeKey: "time", LevelKey: "level", NameKey: "actor", MessageKey: "event",
		LineEnding:     zapcore.DefaultLineEnding,
		EncodeTime:     func(t time.Time, e zapcore.PrimitiveArrayEncoder) { e.AppendString(t.UTC().Format(timeLayout)) },
		EncodeLevel:    zapcore.LowercaseLevelEncoder,
		EncodeDuration: zapcore.StringDurationEncoder,
	})
}

// namedCore gives every line an actor (J1): zap leaves the name out of a logger that has none.
type namedCore struct{ zapcore.Core }

func (c namedCore) With(fields []zapcore.Field) zapcore.Core { return namedCore{c.Core.With(fields)} }

func (c namedCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

func (c namedCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if e.LoggerName == "" {
		e.LoggerName = nobody
	}
	return c.Core.Write(e, fields)
}
