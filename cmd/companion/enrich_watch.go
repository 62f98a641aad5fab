package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"companion/adapters/completion/enrich"
)

const (
	// watchBeat is the shortest pause between two looks at the notes. A look may take a twentieth of the time.
	watchBeat  = 2 * time.Second
	watchShare = 20
	// watchRetry is when a note that failed is tried again, though it has not changed.
	watchRetry = time.Minute
)

// seenNote is what a look found of one note.
type seenNote struct {
	modified time.Time
	size     int64
}

// noteWatch finds notes that have changed. It looks at modification time and size, so that it works on every file
// system.
type noteWatch struct {
	given []string
	since time.Time
	last  map[string]seenNote  // of the last look
	done  map[string]seenNote  // as enriched
	retry map[string]time.Time // notes that failed
}

func newNoteWatch(given []string, since time.Time) *noteWatch {
	return &noteWatch{given: given, since: since, last: map[string]seenNote{}, done: map[string]seenNote{}, retry: map[string]time.Time{}}
}

// first returns all notes, and the paths that could not be searched.
func (w *noteWatch) first(ctx context.Context) ([]string, []enrich.Outcome, error) {
	paths, problems, err := enrich.Expand(ctx, w.given)
	if err != nil {
		return nil, nil, err
	}
	paths = noteSince(paths, w.since)
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			w.last[path] = seenNote{info.ModTime(), info.Size()}
		}
	}
	return paths, problems, nil
}

// look returns the notes that have changed and were the same at two looks, so that a note is not read while an
// editor writes it.
func (w *noteWatch) look(ctx context.Context, now time.Time) ([]string, error) {
	var paths []string
	for _, given := range w.given { // each by itself: one folder may be away or empty now
		found, _, err := enrich.Expand(ctx, []string{given})
		if ctx.Err() != nil {
			return nil, err
		}
		paths = append(paths, found...)
	}
	found := map[string]seenNote{}
	var changed []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if _, twice := found[path]; twice || err != nil || info.ModTime().Before(w.since) {
			continue
		}
		seen := seenNote{info.ModTime(), info.Size()}
		found[path] = seen
		again, failed := w.retry[path]
		if seen == w.last[path] && (seen != w.done[path] || failed && !now.Before(again)) {
			changed = append(changed, path)
		}
	}
	w.last = found
	return changed, nil
}

// ended notes what became of a note. One that failed is tried again later.
func (w *noteWatch) ended(o enrich.Outcome, now time.Time) {
	w.done[o.Path] = w.last[o.Path]
	delete(w.retry, o.Path)
	if o.Err != nil {
		w.retry[o.Path] = now.Add(watchRetry)
	}
	if info, err := os.Stat(o.Path); err == nil { // a block that this run wrote is no change
		if note, err := enrich.ReadNote(o.Path); err == nil && note.Block == note.Digest {
			w.done[o.Path] = seenNote{info.ModTime(), info.Size()}
		}
	}
}

// watch enriches the notes, and then those that change, until ctx ends.
func (a *app) watch(ctx context.Context, w *noteWatch, r *enrichRun) error {
	report := func(o enrich.Outcome) { w.ended(o, time.Now()) }
	paths, problems, err := w.first(ctx)
	if err != nil {
		return err
	}
	if err := a.watched(r.batch(ctx, paths, problems, report)); err != nil {
		return err
	}
	if !a.json {
		a.say("watching for changes; Ctrl-C ends it")
	}
	for pause := watchBeat; ; {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		started := time.Now()
		changed, err := w.look(ctx, started)
		if err != nil {
			return err
		}
		pause = max(watchBeat, watchShare*time.Since(started))
		if len(changed) == 0 {
			continue
		}
		if err := a.watched(r.again(ctx, changed, report)); err != nil {
			return err
		}
	}
}

// noteSince keeps the notes that were modified at since or later. Standard input, and paths that cannot be read, stay.
func noteSince(paths []string, since time.Time) (kept []string) {
	for _, path := range paths {
		if info, err := os.Stat(path); path == enrich.Standard || err != nil || !info.ModTime().Before(since) {
			kept = append(kept, path)
		}
	}
	return kept
}

// sinceFlag reads the value of a --since flag: a duration before now, a day, or an RFC 3339 time.
func sinceFlag(value string, now time.Time) (time.Time, error) {
	if value == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(value); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.ParseInLocation(layout, value, now.Location()); err == nil {
			return at, nil
		}
	}
	return time.Time{}, &failure{
		code: "usage", message: fmt.Sprintf("--since: %q is not accepted", value), exit: exitUsage,
		hint: "accepted: a duration such as 10m, a day such as " + now.Format(time.DateOnly) + ", or a time such as " + now.UTC().Format(time.RFC3339),
	}
}
