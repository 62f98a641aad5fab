package main

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"companion/adapters/door/controlsock"
	"companion/messages"
)

func (a *app) pullCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "pull [NAME]", Short: "Fetch and verify a model, or the selected model and runtime",
		Long: "Fetch and verify a model, or the selected model and runtime. The daemon fetches: Ctrl-C ends this command, and the\n" +
			"download goes on. With --json each line on standard output is one object: a transfer, or at the end the result.",
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
			last := a.showTransfers(cmd.Context(), client)
			reason, err := client.Pull(cmd.Context(), name)
			transfers := last()
			if errors.Is(err, context.Canceled) {
				a.sayGoesOn(transfers)
			}
			if err != nil {
				return err
			}
			if reason != messages.ReasonOK {
				return a.pullFailure(cmd.Context(), client, name, what, reason)
			}
			if a.json {
				return a.printLine(pullResult{name, reason})
			}
			a.say("Here and verified: %s.", oneLine(what))
			return nil
		},
	}
	a.jsonFlag(cmd)
	return exits(cmd, exitNotRunning, exitSignIn, exitIntegrity, exitKeychain)
}

// pullResult is the last line of `pull --json`. The lines before it are transfers.
type pullResult struct {
	Pulled string          `json:"pulled"` // empty: the selected model and runtime
	Reason messages.Reason `json:"reason"`
}

// printLine writes one JSON object as one line.
func (a *app) printLine(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return print(a.out, string(line)+"\n")
}

// sayGoesOn says what happens to the transfers after Ctrl-C.
func (a *app) sayGoesOn(transfers []messages.Transfer) {
	for _, t := range transfers {
		a.say("%s", plain(transferRow(t)))
	}
	a.say("The download goes on in the daemon; `companion pull` shows it again. If the daemon ends, what is here is kept.")
}

// showTransfers shows the daemon's transfers while a command runs: bars on a terminal, a line every five seconds
// elsewhere (X6), and with --json a line of JSON every second. The returned function ends it, waits for it, and returns the
// transfers that ran last.
func (a *app) showTransfers(ctx context.Context, client *controlsock.Client) (stop func() []messages.Transfer) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	var last []messages.Transfer // of the goroutine, until done is closed
	every := 5 * time.Second
	show := func(all []messages.Transfer) {
		for _, t := range all {
			a.say("%s", plain(transferRow(t)))
		}
	}
	finish := func() {}
	switch {
	case a.json:
		every = time.Second
		show = func(all []messages.Transfer) {
			for _, t := range all {
				_ = a.printLine(t) // a closed pipe shows at the last line
			}
		}
	case isTerminal(a.err):
		every = 200 * time.Millisecond
		bars := newBars(a)
		show, finish = bars.show, bars.finish
	}
	go func() {
		defer close(done)
		// The command's own error says more than this one's.
		_ = client.WatchEvery(ctx, every, func(s messages.Status) error {
			last = s.Transfers
			show(s.Transfers)
			return nil
		})
	}()
	return func() []messages.Transfer {
		cancel()
		<-done
		finish()
		return last
	}
}

// bars draws one bar for each transfer, with the rate and the time left that the daemon measures.
type bars struct {
	progress *mpb.Progress
	byName   map[string]*mpb.Bar

	mu   sync.Mutex // mpb draws in its own goroutine
	last map[string]messages.Transfer
}

func newBars(a *app) *bars {
	return &bars{
		progress: mpb.New(mpb.WithOutput(a.err), mpb.WithWidth(40)), byName: map[string]*mpb.Bar{},
		last: map[string]messages.Transfer{},
	}
}

func (b *bars) show(all []messages.Transfer) {
	for _, t := range all {
		b.mu.Lock()
		b.last[t.Name] = t
		b.mu.Unlock()
		bar := b.byName[t.Name]
		if bar == nil {
			bar = b.progress.AddBar(t.Total, mpb.PrependDecorators(decor.Name(oneLine(t.Name)+" ")),
				mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return b.figures(t.Name) })))
			b.byName[t.Name] = bar
		}
		bar.SetCurrent(t.Bytes)
	}
}

// figures are the numbers of a transfer after its bar.
func (b *bars) figures(name string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return transferFigures(b.last[name])
}

func (b *bars) finish() {
	for _, bar := range b.byName {
		if !bar.Completed() {
			bar.Abort(false)
		}
	}
	b.progress.Wait()
}
