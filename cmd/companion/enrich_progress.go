package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"companion/adapters/completion/enrich"
	"companion/adapters/completion/lane"
)

// notesFailed is the code of a run in which single notes failed.
const notesFailed = "notes_failed"

// enrichProgress reports each note on standard error: a line that is redrawn on a terminal, plain lines elsewhere
// (X6). Results go to standard output, so the two never share a line: where both are the same terminal, the
// progress is plain lines too.
type enrichProgress struct {
	app                          *app
	lane                         lane.Lane
	failures                     []noteFailure // for --json, under which nothing else is on standard error
	total, done, skipped, failed int
	bytes, read, truncated       int
	sent                         int64
	exit                         int    // of all failures so far, where it is the same
	hint                         string // likewise
	redraw                       bool
	started                      time.Time
}

func newEnrichProgress(a *app, total int, l lane.Lane) *enrichProgress {
	return &enrichProgress{
		app: a, lane: l, total: total, started: time.Now(), redraw: isTerminal(a.err) && !isTerminal(a.out),
	}
}

// problems reports the paths that could not be searched. A link that is not followed is not a failure: nothing was
// promised for it.
func (p *enrichProgress) problems(list []enrich.Outcome) {
	for _, o := range list {
		if !errors.Is(o.Err, enrich.ErrLinkedFolder) && !errors.Is(o.Err, enrich.ErrLinkOut) {
			p.total++
			p.note(o)
		} else if !p.app.json {
			p.app.say("%s: %s", oneLine(o.Path), oneLine(o.Err.Error()))
		}
	}
}

// waiting says that notes are left to another run. A run that was suspended keeps them until it ends.
func (p *enrichProgress) waiting(notes int) {
	if !p.app.json {
		p.app.say("waiting for another run of enrich, which works on %d of the notes", notes)
	}
}

func (p *enrichProgress) note(o enrich.Outcome) {
	p.done++
	p.bytes, p.read, p.sent = p.bytes+o.Bytes, p.read+o.Read, p.sent+o.Sent
	what := "done"
	switch {
	case o.Err != nil:
		p.failed++
		f := described(o.Err)
		p.failures = append(p.failures, noteFailure{o.Path, f.code, f.message})
		switch {
		case p.failed == 1:
			p.exit, p.hint = f.exit, f.hint
		case p.exit != f.exit || p.hint != f.hint:
			p.exit, p.hint = exitFailed, ""
		}
		what = f.message
	case o.Skipped:
		p.skipped++
		what = "done earlier"
	case o.Truncated:
		p.truncated++
		what = fmt.Sprintf("done; %d of %d bytes were read, the rest is more than one note may cost", o.Read, o.Bytes)
	}
	line := fmt.Sprintf("[%d/%d] %s: %s", p.done, p.total, oneLine(o.Path), oneLine(what))
	lasting := o.Err != nil || o.Truncated
	switch {
	case p.app.json:
	case p.redraw && p.total > 1:
		end := mark(lasting || p.done == p.total, "\n", "")
		_, _ = fmt.Fprintf(p.app.err, "\r\x1b[K%s%s%s", line, p.pace(), end)
	case p.total > 1 || lasting:
		p.app.say("%s", line)
	}
}

// pace is the rate and the time left. It is empty before two notes and a second, which are too little for an estimate.
func (p *enrichProgress) pace() string {
	worked := p.done - p.skipped
	elapsed := time.Since(p.started)
	if worked < 2 || elapsed < time.Second || p.done == p.total {
		return ""
	}
	each := elapsed / time.Duration(worked)
	left := each * time.Duration(p.total-p.done)
	return fmt.Sprintf("  (%.1f notes/min, %s left)", float64(time.Minute)/float64(each), left.Round(time.Second))
}

// summary says what a run did, and how much text left this machine.
func (p *enrichProgress) summary() {
	if p.app.json || p.total < 2 {
		return
	}
	parts := []string{fmt.Sprintf("%d of %d notes done", p.done-p.failed, p.total)}
	if p.skipped > 0 {
		parts = append(parts, fmt.Sprintf("%d of them earlier", p.skipped))
	}
	if p.truncated > 0 {
		parts = append(parts, fmt.Sprintf("%d not read whole", p.truncated))
	}
	p.app.say("%s; bytes sent off this machine: %d", strings.Join(parts, ", "), p.away())
}

// away is the number of bytes that were sent off this machine for the notes that ended.
func (p *enrichProgress) away() int64 {
	if p.lane == lane.Local {
		return 0
	}
	return p.sent
}

// result is the failure of the whole: the batch's own, or the failure of its notes. When every note failed alike,
// scripts get that exit status.
func (p *enrichProgress) result(err error) error {
	slices.SortFunc(p.failures, func(a, b noteFailure) int { return strings.Compare(a.Path, b.Path) })
	if err != nil {
		what := "stopped"
		if errors.Is(err, context.Canceled) {
			what = "interrupted"
		}
		if !p.app.json {
			p.app.say("%s after %d of %d notes; the same command continues; bytes sent off this machine for them: %d", what, p.done, p.total, p.away())
		}
		if errors.Is(err, context.Canceled) {
			return err
		}
		f := described(err)
		f.notes = p.failures
		return f
	}
	p.summary()
	if p.failed == 0 {
		return nil
	}
	f := &failure{code: notesFailed, message: fmt.Sprintf("%d of %d notes failed", p.failed, p.total), exit: exitFailed, notes: p.failures}
	if p.failed == p.total {
		f.exit, f.hint = p.exit, p.hint
	}
	return f
}
