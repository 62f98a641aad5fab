package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"companion/adapters/completion"
	"companion/adapters/completion/enrich"
	"companion/adapters/completion/lane"
	"companion/adapters/config"
	"companion/adapters/door/controlsock"
	"companion/adapters/privatefs"
	"companion/messages"
)

const (
	// patience is how long one request may wait for room at a busy endpoint.
	patience = 10 * time.Minute
	// remoteContext is assumed for lanes that do not tell their context, in tokens.
	remoteContext = 8192
	// waitBeat is how often --wait asks the daemon.
	waitBeat = 500 * time.Millisecond
)

// enrichFlags are the flags of enrich.
type enrichFlags struct {
	output, lane, consentID              string
	write, since, tagsFrom               string
	jobs                                 int
	private, schema, dryRun, wait, watch bool
}

func (a *app) enrichCommand() *cobra.Command {
	var f enrichFlags
	cmd := &cobra.Command{
		Use: "enrich PATH...", Short: "Summarise notes: summary, tags and open questions as JSON",
		Long: "Summarise Markdown notes on this machine: summary, tags and open questions, one JSON object a line.\n\n" +
			"A PATH is a note, a folder of notes, a pattern, or - for standard input. Results go to standard output or to\n" +
			"--output: a file (one line each) or a folder (a file each). What is finished there is not done again, so the\n" +
			"same command continues an interrupted run. Several runs may share one --output.\n\n" +
			"--write frontmatter writes the result into the note, between markers, and changes no other byte of it;\n" +
			"--write sidecar writes NOTE.enrich.json next to it. --watch goes on with notes that change.\n\n" +
			"A note longer than the model's context is read in parts, in at most 24 requests; the result says how much was read.\n\n" +
			"Notes count as private unless --private=false. Another lane than local is used only when --lane names it,\n" +
			"and for private notes only with the owner's --consent-id. Each result says where the text was sent.",
		Example: "  companion enrich notes/ --output enriched.jsonl\n  companion enrich --dry-run notes/\n  companion enrich verify enriched.jsonl\n" +
			"  companion enrich --write frontmatter --watch notes/",
		RunE: func(cmd *cobra.Command, given []string) error {
			if f.schema {
				return print(a.out, enrich.Schema)
			}
			if len(given) == 0 {
				return &failure{code: "usage", message: "enrich needs a note, a folder or -", hint: "companion enrich note.md", exit: exitUsage}
			}
			if f.jobs < 0 {
				return &failure{code: "usage", message: fmt.Sprintf("--jobs must be 0 (as many as the endpoint takes) or more, not %d", f.jobs), exit: exitUsage}
			}
			if err := f.check(given); err != nil {
				return err
			}
			return a.enrich(cmd.Context(), given, f)
		},
	}
	cmd.Flags().StringVar(&f.output, "output", "", "a `FILE` or a folder (existing, or ending in /) for the results")
	cmd.Flags().StringVar(&f.write, "write", "", "write results to the notes: `frontmatter` or sidecar")
	cmd.Flags().BoolVar(&f.watch, "watch", false, "go on with notes that change, until Ctrl-C")
	cmd.Flags().StringVar(&f.since, "since", "", "only notes modified since: a duration such as 24h, a day, or an RFC 3339 `TIME`")
	cmd.Flags().StringVar(&f.tagsFrom, "tags-from", "", "use only the tags of this `FILE` (one a line) or of the notes in this folder")
	cmd.Flags().IntVar(&f.jobs, "jobs", 0, "notes at once; 0: as many as the endpoint takes")
	cmd.Flags().StringVar(&f.lane, "lane", "", "`LANE`: local, self_hosted, enterprise, openrouter, direct_provider")
	cmd.Flags().BoolVar(&f.private, "private", true, "the notes are private")
	cmd.Flags().StringVar(&f.consentID, "consent-id", "", "the owner's consent to send private notes by a managed lane")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "print lane, number of requests and size for each note, and send nothing")
	cmd.Flags().BoolVar(&f.wait, "wait", false, "wait until local inference is available")
	cmd.Flags().BoolVar(&f.schema, "schema", false, "print the JSON Schema of a result")
	a.jsonFlag(cmd)
	cmd.AddCommand(a.enrichVerifyCommand())
	return exits(cmd, exitNotRunning, exitUnavailable, exitKeychain, exitPolicy)
}

// check refuses combinations that mean nothing.
func (f *enrichFlags) check(given []string) error {
	bad := func(message, hint string) error {
		return &failure{code: "usage", message: message, hint: hint, exit: exitUsage}
	}
	standard := slices.Contains(given, enrich.Standard)
	switch {
	case f.write != "" && f.write != writeFrontMatter && f.write != writeSidecar:
		return bad(fmt.Sprintf("--write: %q is not accepted", f.write), "accepted: frontmatter, sidecar")
	case f.write != "" && standard:
		return bad("--write needs notes; standard input is no file", "leave out --write or name a file")
	case f.watch && standard:
		return bad("--watch needs notes; standard input is read once", "leave out --watch or name a folder")
	case f.watch && f.dryRun:
		return bad("--watch and --dry-run exclude each other", "use one of them")
	}
	return nil
}

func (a *app) enrich(ctx context.Context, given []string, f enrichFlags) error {
	s, places, err := a.load()
	if err != nil {
		return err
	}
	if f.wait && (f.lane == "" || f.lane == string(lane.Local)) {
		if err := a.awaitLocal(ctx, places); err != nil {
			return err
		}
	}
	chosen, err := enrichLane(ctx, s, places, f.lane)
	if err != nil {
		return err
	}
	// The vocabulary comes from the user's notes, so it is as private as they are.
	if err := consented(s, chosen, f.private || f.tagsFrom != "", f.consentID); err != nil {
		return err
	}
	since, err := sinceFlag(f.since, time.Now())
	if err != nil {
		return err
	}
	paths, problems, err := enrich.Expand(ctx, given)
	if err != nil {
		return err
	}
	paths = noteSince(paths, since)
	vocabulary, err := a.vocabulary(ctx, f.tagsFrom)
	if err != nil {
		return err
	}
	if f.dryRun {
		return a.dryRun(ctx, s, chosen, vocabulary, paths, problems)
	}
	r := &enrichRun{app: a, flags: f, lane: chosen, vocabulary: vocabulary}
	if f.watch {
		err = a.watch(ctx, newNoteWatch(given, since), r)
	} else {
		err = r.batch(ctx, paths, problems, func(enrich.Outcome) {})
	}
	return errors.Join(err, r.close())
}

// claim keeps other runs away from the notes that this one works on. Where that cannot be, the run goes on, and says so.
func (a *app) claim(e *enrich.Enricher, places config.Places) (closeClaims func()) {
	err := privatefs.EnsureDir(places.State)
	if err == nil {
		e.Claims, err = enrich.OpenClaims(places.Claims)
	}
	if err != nil {
		if !a.json {
			a.say("another run may send the same notes at the same time: %v", err)
		}
		return func() {}
	}
	return func() { _ = e.Claims.Close() }
}

// watched says the failure of single notes, which does not end --watch.
func (a *app) watched(err error) error {
	var f *failure
	if !errors.As(err, &f) || f.code != notesFailed {
		return err
	}
	if !a.json {
		a.say("%s; tried again in %s", f.message, watchRetry)
	}
	return nil
}

// vocabulary reads --tags-from.
func (a *app) vocabulary(ctx context.Context, path string) ([]string, error) {
	if path == "" {
		return nil, nil
	}
	tags, left, err := enrich.ReadVocabulary(ctx, path)
	if err != nil {
		return nil, err
	}
	if left > 0 && !a.json {
		a.say("%s: %d tags are used, %d are too rare, too long or not plain text", oneLine(path), len(tags), left)
	}
	return tags, nil
}

// awaitLocal returns when the local lane can compute.
func (a *app) awaitLocal(ctx context.Context, places config.Places) error {
	said := false
	for {
		status, err := controlsock.Dial(places.ControlSocket).Status(ctx)
		if err == nil && status.CompanionAvailable || ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !said && !a.json {
			why := "the companion is not running"
			if err == nil {
				why = explain(status.Reason)
			}
			a.say("waiting for local inference: %s", why)
			said = true
		}
		select {
		case <-time.After(waitBeat):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// enrichLane is the lane that was asked for, or local. When local cannot compute now, the next one
// is named but not taken: nothing falls through silently to a lane further away (E5).
func enrichLane(ctx context.Context, s config.Settings, places config.Places, asked string) (lane.Lane, error) {
	if asked != "" {
		if l := lane.Lane(asked); l.Valid() {
			return l, nil
		}
		return "", noLane(asked)
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

// enricher builds what asks the lane, and says how many notes it takes at once: one more than the lane computes at once, so that
// the next request waits there while the last answer is stored, and no slot is idle.
func (a *app) enricher(ctx context.Context, s config.Settings, places config.Places, l lane.Lane, allow func() error) (*enrich.Enricher, *completion.Client, int, error) {
	e := &enrich.Enricher{GeneratedBy: "companion " + version, Lane: l, Patience: patience, Now: time.Now}
	if l != lane.Local {
		client, model, err := remoteClient(s, l, allow)
		if err != nil {
			return nil, nil, 0, err
		}
		served := enrich.Served{Model: model, Version: "unknown"}
		e.Served = func(context.Context) (enrich.Served, error) { return served, nil }
		e.Asker, e.Context = client, remoteContext
		return e, client, s.Runtime.MaxInFlight + 1, nil
	}
	d, err := a.openDoor(ctx)
	if err != nil {
		return nil, nil, 0, err
	}
	client, err := d.client(allow)
	if err != nil {
		return nil, nil, 0, err
	}
	e.Served = func(ctx context.Context) (enrich.Served, error) {
		status, err := controlsock.Dial(places.ControlSocket).Status(ctx)
		return servedBy(status), err
	}
	e.Asker, e.Context = client, contextOf(d.status)
	return e, client, d.status.FrontDoor.MaxInFlight + min(1, d.status.FrontDoor.QueueBound), nil
}

// servedBy identifies the verified model that a daemon serves. The digest never leaves the daemon; the signed
// manifest's version and the model's name and version identify the artifact.
func servedBy(status messages.Status) enrich.Served {
	served := enrich.Served{
		Model: status.Model.Name, Version: status.Model.Version, Control: strings.Join(status.Model.ControlTokens, "\n"),
	}
	if status.Model.Verified {
		catalogue := fmt.Sprintf("manifest %d", status.Manifest.Version)
		if status.Model.Yours { // the manifest is the hub's
			catalogue = "your own"
		}
		served.Artifact = fmt.Sprintf("%s %s, %s", served.Model, served.Version, catalogue)
	}
	return served
}

// The values of --write.
const (
	writeFrontMatter = "frontmatter"
	writeSidecar     = "sidecar"
)

// openStore opens where results go: --write, --output, both, or standard output.
func (a *app) openStore(output, write string) (enrich.Store, func() error, error) {
	none := func() error { return nil }
	var notes enrich.Store
	switch write {
	case writeFrontMatter:
		notes = enrich.FrontMatter{}
	case writeSidecar:
		notes = enrich.Sidecar{}
	case "":
		return a.openOutput(output)
	}
	if output == "" {
		return notes, none, nil
	}
	other, closeOther, err := a.openOutput(output)
	return enrich.Both{other, notes}, closeOther, err
}

func (a *app) openOutput(output string) (enrich.Store, func() error, error) {
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
	if cut := lines.Cut(); cut > 0 && !a.json {
		a.say("%s: removed %d bytes of a line that an earlier run had not finished", oneLine(output), cut)
	}
	return lines, lines.Close, nil
}
