package logfile

import (
	"bytes"
	"context"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"companion/messages"
)

// bound is how many lines may wait: enough for a burst of some seconds at debug level, less than 1 MiB.
const bound = 4096

// gather is how long a line waits for more lines of the same batch. The delay also keeps the write, which wakes
// threads, from slowing down the operation that is logged.
const gather = 5 * time.Millisecond

// sink is a bounded buffer of encoded lines, with all loggers as senders and one goroutine as receiver.
type sink struct {
	lines   chan []byte
	dropped atomic.Int64 // lines that did not fit, or that could not be written
}

func newSink() *sink { return &sink{lines: make(chan []byte, bound)} }

// Write never blocks and never fails, so that a slow disk does not slow down a logger (J1).
func (s *sink) Write(line []byte) (int, error) {
	select {
	case s.lines <- bytes.Clone(line):
	default:
		s.dropped.Add(1)
	}
	return len(line), nil
}

// Sync does nothing: pump does the writing.
func (s *sink) Sync() error { return nil }

// pump writes lines until ctx ends, then the lines that are left. It calls before once per batch.
func (s *sink) pump(ctx context.Context, before func(), write func([]byte) (int, error)) {
	for {
		select {
		case line := <-s.lines:
			select {
			case <-time.After(gather):
			case <-ctx.Done():
			}
			before()
			s.put(line, write)
			for range len(s.lines) {
				s.put(<-s.lines, write)
			}
		case <-ctx.Done():
			before()
			s.drain(write)
			return
		}
	}
}

func (s *sink) drain(write func([]byte) (int, error)) {
	for {
		select {
		case line := <-s.lines:
			s.put(line, write)
		default:
			return
		}
	}
}

func (s *sink) put(line []byte, write func([]byte) (int, error)) {
	if n := s.dropped.Swap(0); n > 0 {
		if _, err := write(droppedLine(n)); err != nil {
			s.dropped.Add(n)
		}
	}
	if _, err := write(line); err != nil {
		s.dropped.Add(1)
	}
}

func droppedLine(n int64) []byte {
	entry := zapcore.Entry{Time: time.Now(), Level: zapcore.WarnLevel, LoggerName: string(messages.ActorJournal), Message: "log lines dropped"}
	line, err := newEncoder().EncodeEntry(entry, []zapcore.Field{zap.Int64("count", n)})
	if err != nil {
		return nil
	}
	defer line.Free()
	return bytes.Clone(line.Bytes())
}
