package enrich

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// Outcome is the result for one note.
type Outcome struct {
	Path      string
	Skipped   bool // done earlier
	Truncated bool
	Bytes     int   // of the note's text
	Read      int   // bytes of it that the model got
	Sent      int64 // bytes of request bodies
	Err       error

	// Unfinished says that the end of the batch interrupted the note. Only Path and Sent are set.
	Unfinished bool
	// Waiting is the number of notes that other runs work on, and that this run waits for. Nothing else is set.
	Waiting int
}

// PanicError is the failure of a note whose processing panicked. Its text contains neither the panic value nor the note.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("enriching the note failed inside companion (%T)", e.Value)
}

// RefusalError is an Asker's refusal to send anything more. It ends a batch.
type RefusalError struct{ Err error }

func (e *RefusalError) Error() string { return e.Err.Error() }
func (e *RefusalError) Unwrap() error { return e.Err }

// Batch enriches the notes at paths, at most jobs at once, and hands every result to store. Notes are read one
// after the other as there is room for them, so that memory holds jobs+1 of them at most. Batch calls report
// once per note, on the caller's goroutine, when the note ends, and for what Unfinished and Waiting say. A note that fails
// does not stop the others. The
// end of ctx, a closed store or a RefusalError stops the batch and is its error; notes that had not begun or were interrupted
// are then not reported.
func Batch(ctx context.Context, e *Enricher, paths []string, jobs int, store Store, report func(Outcome)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b := &batch{e: e, store: store, work: make(chan Note), results: make(chan finished)}
	go b.feed(ctx, paths)
	for range max(1, jobs) {
		b.workers.Go(func() { b.run(ctx) })
	}
	ended := make(chan struct{})
	go func() {
		b.workers.Wait()
		close(ended)
	}()
	for {
		select {
		case done := <-b.results:
			if err := b.finish(ctx, done, report); err != nil {
				cancel(err)
			}
		case <-ended:
			b.mu.Lock()
			b.closed = true
			b.mu.Unlock()
			return context.Cause(ctx)
		}
	}
}

// batch is the state of one Batch. The feeder reads notes, the workers enrich them, the caller keeps results.
type batch struct {
	e       *Enricher
	mu      sync.Mutex // guards store and closed
	store   Store
	closed  bool // Batch has returned: the store belongs to its caller again
	work    chan Note
	results chan finished
	workers sync.WaitGroup
}

// finished is the end of a note, for the caller's goroutine. result is nil if there is none to store.
type finished struct {
	outcome Outcome
	note    Note // of which this run has the claim; zero for a note that was not begun
	result  *Result
}

const (
	// claimBeat is the pause before notes that other runs work on are looked at again.
	claimBeat = 200 * time.Millisecond
	// claimSilence is how long a batch waits for such notes before it reports that.
	claimSilence = 2 * time.Second
)

// feed reads the notes in order, and those that another run works on again after the others. It ends with ctx, except
// while a read blocks: Batch does not wait for it.
func (b *batch) feed(ctx context.Context, paths []string) {
	defer close(b.work)
	for waited := time.Duration(0); len(paths) > 0; waited += claimBeat {
		paths = b.pass(ctx, paths)
		if len(paths) == 0 {
			return
		}
		if waited == claimSilence {
			select {
			case b.results <- finished{outcome: Outcome{Waiting: len(paths)}}:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-time.After(claimBeat):
		case <-ctx.Done():
			return
		}
	}
}

// pass reads each note once, and returns those that another run works on.
func (b *batch) pass(ctx context.Context, paths []string) (later []string) {
	for _, path := range paths {
		if ctx.Err() != nil {
			return nil
		}
		note, state, err := b.open(path)
		if state == elsewhere {
			later = append(later, path)
			continue
		}
		if err != nil || state == skipped {
			select {
			case b.results <- finished{outcome: Outcome{Path: path, Skipped: state == skipped, Err: err}}:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case b.work <- note:
		case <-ctx.Done():
			return nil
		}
	}
	return later
}

// opened is what open found of a note.
type opened int

const (
	claimed   opened = iota // this run has the claim and makes the result
	skipped                 // the store has its result
	elsewhere               // another run works on it
)

// open reads a note, claims it and asks the store whether it is done.
func (b *batch) open(path string) (note Note, state opened, err error) {
	defer contain(&err)
	if note, err = ReadNote(path); err != nil {
		return note, claimed, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return note, claimed, context.Canceled
	}
	// Claim first: a result that another run stores before it gives back its claim is then seen.
	mine, err := b.e.Claims.take(note)
	if err != nil {
		return note, claimed, err
	}
	if !mine {
		return note, elsewhere, nil
	}
	done, err := b.store.Done(note)
	if done {
		state = skipped
	}
	if done || err != nil {
		b.e.Claims.release(note)
	}
	return note, state, err
}

// run enriches notes until there are no more. A worker always hands over what it has finished, also after ctx has
// ended, so that no finished result is lost.
func (b *batch) run(ctx context.Context) {
	for {
		select {
		case note, more := <-b.work:
			if !more {
				return
			}
			b.results <- b.enrich(ctx, note)
		case <-ctx.Done():
			return
		}
	}
}

func (b *batch) enrich(ctx context.Context, note Note) finished {
	done := finished{outcome: Outcome{Path: note.Path, Bytes: len(note.Body)}, note: note}
	result, err := func() (r Result, err error) {
		defer contain(&err)
		return b.e.Note(ctx, note)
	}()
	for _, sent := range result.Provenance.BytesSent { // also of a note that failed
		done.outcome.Sent += sent
	}
	if err != nil {
		done.outcome.Err = err
		return done
	}
	done.result = &result
	done.outcome.Truncated, done.outcome.Read = result.Truncated, result.Source.Read
	return done
}

// finish keeps a result and reports the note. Its error ends the batch.
func (b *batch) finish(ctx context.Context, done finished, report func(Outcome)) error {
	defer b.e.Claims.release(done.note)
	var refusal *RefusalError
	refused := errors.As(done.outcome.Err, &refusal)
	if done.result == nil && done.outcome.Err != nil && (refused || ctx.Err() != nil) { // the end of the batch interrupted it
		if done.outcome.Sent > 0 {
			report(Outcome{Path: done.outcome.Path, Sent: done.outcome.Sent, Unfinished: true})
		}
		if refused && ctx.Err() == nil {
			return refusal
		}
		return nil
	}
	if done.result != nil {
		b.mu.Lock()
		done.outcome.Err = b.store.Put(*done.result)
		b.mu.Unlock()
	}
	report(done.outcome)
	if errors.Is(done.outcome.Err, ErrClosed) {
		return done.outcome.Err
	}
	return nil
}

// contain turns a panic into the failure of one note.
func contain(err *error) {
	if p := recover(); p != nil {
		*err = &PanicError{Value: p, Stack: debug.Stack()}
	}
}
