package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"companion/adapters/completion/enrich"
	"companion/adapters/completion/lane"
	"companion/adapters/config"
)

// planned is one line of enrich --dry-run --json.
type planned struct {
	Path     string    `json:"path"`
	Lane     lane.Lane `json:"lane"`
	Where    string    `json:"where"`
	Requests int       `json:"requests"`
	Bytes    int       `json:"bytes"`
	Error    string    `json:"error,omitempty"`
}

// dryRun prints what enrich would send where, and sends nothing.
func (a *app) dryRun(ctx context.Context, s config.Settings, l lane.Lane, vocabulary, paths []string, problems []enrich.Outcome) error {
	e := &enrich.Enricher{Context: remoteContext, Vocabulary: vocabulary, Now: time.Now}
	where := "this machine"
	if l == lane.Local {
		e.Context = a.localContext(ctx, s)
	} else if where = configured(s, l).BaseURL; where == "" {
		return missingLane(s, l)
	}
	var requests, bytes, failed int
	one := func(p planned) error {
		if a.json {
			return a.printJSON(p)
		}
		if p.Error != "" {
			return print(a.out, fmt.Sprintf("%s: %s\n", oneLine(p.Path), oneLine(p.Error)))
		}
		return print(a.out, fmt.Sprintf("%s: %d requests, %d bytes by lane %s\n", oneLine(p.Path), p.Requests, p.Bytes, p.Lane))
	}
	for _, o := range problems {
		if err := one(planned{Path: o.Path, Error: o.Err.Error()}); err != nil {
			return err
		}
	}
	for _, path := range paths {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p := planned{Path: path, Lane: l, Where: where}
		if note, err := enrich.ReadNote(path); err != nil {
			p.Error = err.Error()
			failed++
		} else {
			p.Requests, p.Bytes = e.Calls(note), len(note.Body)
		}
		requests, bytes = requests+p.Requests, bytes+p.Bytes
		if err := one(p); err != nil {
			return err
		}
	}
	if !a.json && len(vocabulary) > 0 {
		a.say("each request also holds %d tags of --tags-from", len(vocabulary))
	}
	if !a.json {
		a.say("%d notes, %d requests, %d bytes of text to %s; nothing was sent", len(paths)-failed, requests, bytes, where)
	}
	return nil
}

func (a *app) enrichVerifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Check results against their notes, and say which are stale",
		Long: "Check a file or a folder of results against the notes that they name.\n\n" +
			"current: the note still has the text that was read. stale: it has changed since. missing: it is no longer there.\n" +
			"replaced: a later result of the same note stands in the file. unknown: standard input, or a note that cannot be read.\n" +
			"The last line says how many bytes were sent off this machine for all results.",
		Example: "  companion enrich verify enriched.jsonl",
		Args:    args(cobra.ExactArgs(1)),
		RunE:    func(cmd *cobra.Command, given []string) error { return a.enrichVerify(cmd.Context(), given[0]) },
	}
	a.jsonFlag(cmd)
	return exits(cmd)
}

func (a *app) enrichVerify(ctx context.Context, place string) error {
	counts := map[enrich.Standing]int{}
	var away int64
	unreceipted := 0
	err := enrich.Verify(ctx, place, func(v enrich.Verified) error {
		counts[v.Standing]++
		away += v.Result.SentAway()
		if v.Result.Provenance.BytesSent == nil && v.Result.Provenance.Lane != lane.Local {
			unreceipted++
		}
		if a.json {
			return a.printJSON(v)
		}
		if v.Standing == enrich.Current || v.Standing == enrich.Replaced {
			return nil
		}
		return print(a.out, fmt.Sprintf("%s: %s\n", v.Standing, oneLine(v.Path)))
	})
	if err != nil {
		return err
	}
	if !a.json {
		a.say("%d current, %d stale, %d missing, %d unknown, %d replaced; bytes sent off this machine: %d",
			counts[enrich.Current], counts[enrich.Stale], counts[enrich.Missing], counts[enrich.Unknown], counts[enrich.Replaced], away)
		if unreceipted > 0 {
			a.say("%d results of other lanes have no receipt: an earlier version wrote them", unreceipted)
		}
	}
	if stale := counts[enrich.Stale] + counts[enrich.Missing]; stale > 0 {
		return &failure{code: "stale_results", message: fmt.Sprintf("%d results do not match their notes", stale), exit: exitFailed,
			hint: "run `companion enrich` again with the same --output"}
	}
	return nil
}
