package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"companion/adapters/completion"
	"companion/adapters/completion/enrich"
	"companion/adapters/completion/lane"
	"companion/adapters/config"
)

// patience is how long one note may wait for room at a busy door.
const patience = 10 * time.Minute

// remoteContext is taken for lanes that do not tell their context, in tokens.
const remoteContext = 8192

// enrichFlags are the flags of enrich.
type enrichFlags struct {
	output, lane, consentID string
	jobs                    int
	private, schema         bool
}

func (a *app) enrichCommand() *cobra.Command {
	var f enrichFlags
	cmd := &cobra.Command{
		Use: "enrich PATH...", Short: "Summarise notes: summary, tags and open questions as JSON",
		Long: "Summarise Markdown notes, on this machine: summary, tags and open questions, one JSON object a line.\n\n" +
			"A PATH is a note, a folder of notes, or - for standard input. Results go to standard output or to\n" +
			"--output: a file (one line each), or a folder (a file each). What is finished there is not done again.\n\n" +
			"Notes count as private unless --private=false. Another lane than local is used only when --lane names it,\n" +
			"and for private notes only with the owner's --consent-id.",
		RunE: func(cmd *cobra.Command, given []string) error {
			if f.schema {
				return print(a.out, enrich.Schema)
			}
			if len(given) == 0 {
				return &failure{code: "usage", message: "no note is named", hint: "companion enrich note.md", exit: exitUsage}
			}
			if f.jobs < 0 {
				return &failure{code: "usage", message: "--jobs is negative", hint: "accepted: 0, as many as are admitted, or more", exit: exitUsage}
			}
			return a.enrich(cmd.Context(), given, f)
		},
	}
	cmd.Flags().StringVar(&f.output, "output", "", "a `FILE` or a folder (existing, or ending in /) for the results")
	cmd.Flags().IntVar(&f.jobs, "jobs", 0, "notes at once; 0: as many as are admitted")
	cmd.Flags().StringVar(&f.lane, "lane", "", "`LANE`: local, self_hosted, enterprise, openrouter, direct_provider")
	cmd.Flags().BoolVar(&f.private, "private", true, "the notes are private")
	cmd.Flags().StringVar(&f.consentID, "consent-id", "", "the owner's consent to send private notes by a managed lane")
	cmd.Flags().BoolVar(&f.schema, "schema", false, "print the JSON Schema of a result")
	a.jsonFlag(cmd)
	return exits(cmd, exitNotRunning, exitUnavailable, exitKeychain)
}

func (a *app) enrich(ctx context.Context, given []string, f enrichFlags) error {
	s, places, err := a.load()
	if err != nil {
		return err
	}
	chosen, err := enrichLane(ctx, s, places, f.lane)
	if err != nil {
		return err
	}
	if err := consented(s, chosen, f.private, f.consentID); err != nil {
		return err
	}
	paths, err := enrich.Expand(given)
	if err != nil {
		return err
	}
	e, client, jobs, err := a.enricher(ctx, s, chosen)
	if err != nil {
		return err
	}
	defer client.Close()
	if f.jobs > 0 {
		jobs = f.jobs
	}
	store, closeStore, err := a.openStore(f.output)
	if err != nil {
		return err
	}
	p := &enrichProgress{app: a, total: len(paths), redraw: isTerminal(a.err)}
	err = enrich.Batch(ctx, e, paths, jobs, store, p.note)
	return errors.Join(p.result(err), closeStore())
}

// enrichLane is the lane that was asked for, or local. When local cannot compute now, the next one
// is named but not taken: nothing falls through silently to a lane further away (E5).
func enrichLane(ctx context.Context, s config.Settings, places config.Places, asked string) (lane.Lane, error) {
	if asked != "" {
		if l := lane.Lane(asked); l.Valid() {
			return l, nil
		}
		return "", &failure{code: "usage", message: "--lane: there is no such lane", exit: exitUsage,
			hint: "accepted: local, self_hosted, enterprise, openrouter, direct_provider"}
	}
	c, err := chooseLane(ctx, s, places)
	if err != nil || c.Lane == lane.Local || c.Lane == lane.Disabled {
		return lane.Local, err
	}
	for _, p := range c.Passed {
		if p.Lane == lane.Local {
			return "", &failure{code: "local_not_available", message: "local inference is not available: " + p.Why, exit: exitUnavailable,
				hint: "`companion status` says why; --lane " + string(c.Lane) + " would send the notes there"}
		}
	}
	return "", &failure{code: "lane_not_named", message: "in organisation privacy mode the lane would be " + string(c.Lane), exit: exitUsage,
		hint: "say --lane " + string(c.Lane) + ", or --lane local to stay on this machine"}
}

// enricher builds what asks the lane, and says how many notes it takes at once.
func (a *app) enricher(ctx context.Context, s config.Settings, l lane.Lane) (*enrich.Enricher, *completion.Client, int, error) {
	e := &enrich.Enricher{GeneratedBy: "companion " + version, Lane: l, Patience: patience, Now: time.Now}
	if l != lane.Local {
		client, model, err := remoteClient(s, l)
		if err != nil {
			return nil, nil, 0, err
		}
		e.Asker, e.Model, e.ModelVersion, e.Context = client, model, "unknown", remoteContext
		return e, client, s.Runtime.MaxInFlight, nil
	}
	d, err := a.openDoor(ctx)
	if err != nil {
		return nil, nil, 0, err
	}
	client, err := d.client()
	if err != nil {
		return nil, nil, 0, err
	}
	e.Asker, e.Model, e.ModelVersion, e.Context = client, d.status.Model.Name, d.status.Model.Version, s.Model.Context
	return e, client, d.status.FrontDoor.MaxInFlight, nil
}

func (a *app) openStore(output string) (enrich.Store, func() error, error) {
	none := func() error { return nil }
	if output == "" {
		return enrich.Stream{Out: a.out}, none, nil
	}
	info, err := os.Stat(output)
	if err == nil && info.IsDir() || strings.HasSuffix(output, string(os.PathSeparator)) || strings.HasSuffix(output, "/") {
		folder, err := enrich.OpenFolder(output)
		return folder, none, err
	}
	lines, err := enrich.OpenLines(output)
	if errors.Is(err, enrich.ErrForeign) {
		return nil, nil, &failure{code: "output_exists", message: err.Error(), hint: "name another --output", exit: exitUsage}
	}
	if err != nil {
		return nil, nil, err
	}
	return lines, lines.Close, nil
}

// enrichProgress tells what becomes of each note, on standard error: a line that is redrawn on a
// terminal, plain lines elsewhere (X6).
type enrichProgress struct {
	app                          *app
	failures                     []noteFailure // for --json, under which there is nothing else on standard error
	total, done, skipped, failed int
	exit                         int
	redraw                       bool
}

func (p *enrichProgress) note(o enrich.Outcome) {
	p.done++
	what := "done"
	switch {
	case o.Err != nil:
		p.failed++
		f := described(o.Err)
		p.failures = append(p.failures, noteFailure{o.Path, f.code, f.message})
		if p.exit == 0 {
			p.exit = f.exit
		} else if p.exit != f.exit {
			p.exit = exitFailed
		}
		what = f.message
	case o.Skipped:
		p.skipped++
		what = "done earlier"
	case o.Truncated:
		what = "done; longer than the model's context, only its beginning was read"
	}
	line := fmt.Sprintf("[%d/%d] %s: %s", p.done, p.total, plain(o.Path), plain(what))
	lasting := o.Err != nil || o.Truncated
	switch {
	case p.app.json:
	case p.redraw && p.total > 1:
		end := mark(lasting || p.done == p.total, "\n", "")
		_, _ = fmt.Fprintf(p.app.err, "\r\x1b[K%s%s", line, end)
	case p.total > 1 || lasting:
		p.app.say("%s", line)
	}
}

// result is the failure of the whole: the batch's own, or that of its notes. When every note failed
// alike, scripts get that exit status.
func (p *enrichProgress) result(err error) error {
	if err != nil {
		what := "stopped"
		if errors.Is(err, context.Canceled) {
			what = "interrupted"
		}
		if !p.app.json {
			p.app.say("%s after %d of %d notes", what, p.done, p.total)
		}
		if errors.Is(err, context.Canceled) {
			return err
		}
		f := described(err)
		f.notes = p.failures
		return f
	}
	if p.failed == 0 {
		return nil
	}
	exit := exitFailed
	if p.failed == p.total {
		exit = p.exit
	}
	return &failure{code: "notes_failed", message: fmt.Sprintf("%d of %d notes failed", p.failed, p.total), exit: exit, notes: p.failures}
}
