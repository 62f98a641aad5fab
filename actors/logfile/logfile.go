// Package logfile owns the log file (J1). It is the only writer, it rotates the file, and it never blocks a
// logger: loggers put encoded lines into bounded buffers, and the actor writes them in batches, some milliseconds
// later, to the file and to the terminal if there is one. Lines that do not fit are dropped and counted, and the
// count is logged. Tail (J3) reads the file across rotations, from any process.
//
// A line is one JSON object with time, level, actor, event and, where there is one, reason. The actor is the zap
// logger's name, the event its message.
package logfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"companion/adapters/privatefs"
	"companion/messages"
)

// defaultActor is the actor of lines that no actor logs: those of the command itself.
const defaultActor = "companion"

// patience bounds the wait for a blocked terminal or disk when Serve ends and in Flush.
const patience = time.Second

var errStuck = errors.New("the file takes no more lines")

// Options configures the log file and the terminal output.
type Options struct {
	File    string // in a private folder, which Open creates
	MaxSize int64  // bytes, rounded up to whole MiB
	Backups int
	Level   zapcore.Level
	// Terminal also receives every line; nil: none. Readable renders lines for a person, otherwise they are
	// JSON. Colour needs Readable.
	Terminal io.Writer
	Readable bool
	Colour   bool
}

// Journal is the actor. Its buffers outlive restarts of Serve.
type Journal struct {
	options  Options
	file     *sink
	terminal *sink         // nil without a terminal
	showing  chan struct{} // capacity one: a lock for the terminal
	logger   *zap.Logger
}

// Open checks that folder and file are private (T17) and creates the actor. It writes nothing yet.
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

// Logger is the root of all loggers; the composition root names one for each actor with
// Logger().Named(string(messages.Actor…)). Writing never blocks.
func (j *Journal) Logger() *zap.Logger { return j.logger }

func (j *Journal) String() string { return string(messages.ActorJournal) }

// Serve writes lines until ctx ends, and then the lines that are still buffered.
func (j *Journal) Serve(ctx context.Context) error {
	file := newWriter(j.options)
	shown := background(func() {
		j.onTerminal(ctx, func() { j.terminal.pump(ctx, func() {}, j.show) })
	})
	j.file.pump(ctx, file.Check, file.Write)
	err := file.Close()
	within(shown)
	if err != nil {
		return fmt.Errorf("closing the log: %w", err)
	}
	return ctx.Err()
}

// Flush writes the lines that were logged after Serve ended. The composition root calls it last.
func (j *Journal) Flush() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	shown := background(func() {
		j.onTerminal(ctx, func() { j.terminal.drain(j.show) })
	})
	var err error
	written := background(func() {
		file := newWriter(j.options)
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

// onTerminal runs write with the terminal's lock. A goroutine of an earlier Serve may hold it, blocked in a write.
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

// background runs f in a goroutine and closes the returned channel when f returns.
func background(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return done
}

// within waits until done is closed, for at most patience, and reports whether it was. A full pipe without a reader
// blocks a write forever, and the standard streams have no write deadline; the shutdown must not wait for them (X7).
func within(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-time.After(patience):
		return false
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

// namedCore gives every line an actor (J1); zap omits the name of a logger without one.
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
		e.LoggerName = defaultActor
	}
	return c.Core.Write(e, fields)
}
