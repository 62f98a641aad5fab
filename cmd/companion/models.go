package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/agext/levenshtein"
	"github.com/shirou/gopsutil/v3/disk"
	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"companion/adapters/door/controlsock"
	"companion/messages"
)

func (a *app) modelsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "models", Short: "List what the manifest offers, and what is here and verified",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.control()
			if err != nil {
				return err
			}
			list, err := client.Models(cmd.Context())
			if err != nil {
				return err
			}
			if err := refused("listing the models", list.Reason); err != nil {
				return err
			}
			if a.json {
				if list.Models == nil {
					list.Models = []messages.ModelRow{}
				}
				return a.printJSON(map[string]any{"models": list.Models})
			}
			return print(a.out, modelTable(list.Models))
		},
	}
	a.jsonFlag(cmd)
	return exits(cmd, exitNotRunning, exitSignIn, exitIntegrity, exitKeychain)
}

func modelTable(rows []messages.ModelRow) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "NAME\tVERSION\tSIZE\tHERE\t")
	for _, m := range rows {
		here := "no"
		switch {
		case m.Verified:
			here = "verified"
		case m.Here:
			here = "not verified"
		case m.PartialBytes > 0:
			here = progressText(m.PartialBytes, m.Size)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", oneLine(m.Name), oneLine(m.Version), bytesText(m.Size), here,
			strings.TrimSpace(mark(m.Selected, "selected ", "")+mark(m.Default, "default", "")))
	}
	_ = w.Flush() // into memory
	return b.String()
}

func (a *app) pullCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "pull [NAME]", Short: "Fetch and verify a model, or the selected model and runtime",
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: a.completeModels,
		RunE: func(cmd *cobra.Command, given []string) error {
			client, err := a.control()
			if err != nil {
				return err
			}
			name, what := "", "the selected model and runtime"
			if len(given) == 1 {
				name, what = given[0], given[0]
			}
			progress := a.showTransfers(cmd.Context(), client)
			reason, err := client.Pull(cmd.Context(), name)
			progress()
			if errors.Is(err, context.Canceled) {
				a.say("The download goes on in the daemon; `companion status --watch` shows it.")
			}
			if err != nil {
				return err
			}
			if reason != messages.ReasonOK {
				return a.pullFailure(cmd.Context(), client, name, what, reason)
			}
			a.say("Here and verified: %s.", oneLine(what))
			return nil
		},
	}
	return exits(cmd, exitNotRunning, exitSignIn, exitIntegrity, exitKeychain)
}

// pullFailure says why a download failed, with what the daemon's reason alone does not tell: near names, and the room
// that is needed.
func (a *app) pullFailure(ctx context.Context, client *controlsock.Client, name, what string, reason messages.Reason) error {
	f := &failure{code: string(reason), message: "fetching " + oneLine(what) + ": " + explain(reason), exit: exitOf(reason)}
	list, err := client.Models(ctx)
	if err != nil {
		return f
	}
	switch reason {
	case messages.ReasonNoSuchTarget:
		if near := nearest(name, list.Models); near != "" {
			f.hint = "did you mean `companion pull " + near + "`? `companion models` lists the names"
		}
	case messages.ReasonNoSpace:
		_, places, err := a.load()
		if err != nil {
			return f
		}
		f.message += ": " + roomText(places.Models, neededBytes(name, list.Models))
	}
	return f
}

// nearest is the model whose name is most like name; empty where none is.
func nearest(name string, rows []messages.ModelRow) string {
	best, bestAt := "", 4
	for _, row := range rows {
		far := levenshtein.Distance(strings.ToLower(name), strings.ToLower(row.Name), nil)
		if strings.HasPrefix(strings.ToLower(row.Name), strings.ToLower(name)) {
			far = 1
		}
		if far < bestAt {
			best, bestAt = row.Name, far
		}
	}
	return oneLine(best)
}

// neededBytes is what is still missing of the named model, or of the selected one; 0 where it is not known.
func neededBytes(name string, rows []messages.ModelRow) int64 {
	for _, row := range rows {
		if row.Name == name || name == "" && row.Selected {
			return max(0, row.Size-row.PartialBytes)
		}
	}
	return 0
}

// diskOf reads the disk of a folder, or of its nearest parent where it is not there yet.
func diskOf(folder string) (*disk.UsageStat, error) {
	for {
		usage, err := disk.Usage(folder)
		if err == nil || filepath.Dir(folder) == folder {
			return usage, err
		}
		folder = filepath.Dir(folder)
	}
}

// roomText says how much room a folder has, and how much is needed.
func roomText(folder string, needed int64) string {
	text := folder
	if usage, err := diskOf(folder); err == nil {
		text += " has " + bytesText(int64(min(usage.Free, math.MaxInt64))) + " free"
	}
	if needed > 0 {
		text += ", " + bytesText(needed) + " are needed"
	}
	return text
}

// showTransfers shows the daemon's transfers while a command runs: bars on a terminal, a line every five seconds
// elsewhere (X6). The returned function ends it and waits for it.
func (a *app) showTransfers(ctx context.Context, client *controlsock.Client) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	every := 5 * time.Second
	show := func(all []messages.Transfer) {
		for _, t := range all {
			a.say("%s", plain(transferRow(t)))
		}
	}
	finish := func() {}
	if isTerminal(a.err) {
		every = 200 * time.Millisecond
		bars := newBars(a)
		show, finish = bars.show, bars.finish
	}
	go func() {
		defer close(done)
		// The command's own error says more than this one's.
		_ = client.WatchEvery(ctx, every, func(s messages.Status) error {
			show(s.Transfers)
			return nil
		})
	}()
	return func() {
		cancel()
		<-done
		finish()
	}
}

// bars draws one bar for each transfer.
type bars struct {
	progress *mpb.Progress
	byName   map[string]*mpb.Bar
}

func newBars(a *app) *bars {
	return &bars{mpb.New(mpb.WithOutput(a.err), mpb.WithWidth(60)), map[string]*mpb.Bar{}}
}

func (b *bars) show(all []messages.Transfer) {
	for _, t := range all {
		bar := b.byName[t.Name]
		if bar == nil {
			bar = b.progress.AddBar(t.Total, mpb.PrependDecorators(decor.Name(oneLine(t.Name)+" ")),
				mpb.AppendDecorators(decor.CountersKibiByte("% .1f of % .1f"), decor.Percentage(decor.WC{W: 6})))
			b.byName[t.Name] = bar
		}
		bar.SetCurrent(t.Bytes)
	}
}

func (b *bars) finish() {
	for _, bar := range b.byName {
		if !bar.Completed() {
			bar.Abort(false)
		}
	}
	b.progress.Wait()
}
