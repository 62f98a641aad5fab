package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"companion/messages"
)

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use: "status", Short: "Say whether local inference is available, and what to do next",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.control()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			switch {
			case watch && a.json:
				return client.Watch(ctx, a.printStatusLine)
			case watch && isTerminal(a.out):
				return a.watchScreen(ctx, client.WatchEvery)
			case watch:
				return client.Watch(ctx, func(s messages.Status) error {
					return print(a.out, fmt.Sprintf("%s %s\n", time.Now().Format(time.TimeOnly), headline(s, false)))
				})
			}
			status, err := client.Status(ctx)
			if err != nil {
				return err
			}
			if a.json {
				return a.printStatusLine(status)
			}
			return print(a.out, screen(status, nil, colour(a.out)))
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "go on: redraw on a terminal, else a line at each change")
	a.jsonFlag(cmd)
	return exits(cmd, exitNotRunning)
}

func (a *app) printStatusLine(s messages.Status) error { return a.printJSON(s) }

// printJSON writes one value as one line.
func (a *app) printJSON(v any) error {
	encoded, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding the output: %w", err)
	}
	return print(a.out, safeJSON(encoded)+"\n")
}

// watchScreen redraws on the terminal's alternate screen until the context or the daemon ends.
func (a *app) watchScreen(ctx context.Context, watch func(context.Context, time.Duration, func(messages.Status) error) error) error {
	if err := print(a.out, "\x1b[?1049h\x1b[?25l"); err != nil {
		return err
	}
	defer func() { _ = print(a.out, "\x1b[?25h\x1b[?1049l") }()
	h := &history{}
	return watch(ctx, time.Second, func(s messages.Status) error {
		h.add(s.Runtime)
		// Home, the lines with their rests erased, then whatever stood below.
		text := strings.ReplaceAll(screen(s, h, colour(a.out)), "\n", "\x1b[K\n")
		return print(a.out, "\x1b[H"+text+"\x1b[J")
	})
}

// headline says in one line whether local inference works, and if not, why.
func headline(s messages.Status, colours bool) string {
	if s.CompanionAvailable {
		return paint(colours, green, "● available")
	}
	return paint(colours, yellow, "○ not available: ") + explain(s.Reason) + ", " + string(s.Lifecycle)
}

// screen is the one screen of `status`. It ends with what to do next.
func screen(s messages.Status, h *history, colours bool) string {
	var b strings.Builder
	row := func(label, format string, values ...any) {
		fmt.Fprintf(&b, "%s %s\n", paint(colours, dim, fmt.Sprintf("%-11s", label)), plain(fmt.Sprintf(format, values...)))
	}
	fmt.Fprintf(&b, "%s  %s\n\n", paint(colours, bold, "companion "+s.Version), headline(s, colours))
	if s.FrontDoor.BaseURL != "" {
		row("front door", "%s   %d running, %d waiting", s.FrontDoor.BaseURL, s.FrontDoor.InFlight, s.FrontDoor.Queued)
	} else {
		row("front door", "not open")
	}
	row("model", "%s", named(s.Model.Name, s.Model.Version)+mark(s.Model.Verified, ", verified", ", not verified")+mark(s.Model.Grace, ", manifest expired (grace)", ""))
	row("runtime", "%s", runtimeRow(s.Runtime))
	if s.Runtime.PID != 0 {
		row("", "memory %s %s  CPU %.0f%% %s%s", bytesText(s.Runtime.ResidentBytes), h.memory(), s.Runtime.CPUPercent, h.cpu(), mark(s.Runtime.GPUBytes > 0, "  GPU "+bytesText(s.Runtime.GPUBytes), ""))
	}
	if exit := s.Runtime.LastExit; exit != nil {
		row("last exit", "%s %s", exit.At.Local().Format(time.TimeOnly), strings.TrimSpace(explain(exit.Reason)+" "+exit.Signal))
		if len(exit.LastLines) > 0 && !s.CompanionAvailable {
			row("", "%s", exit.LastLines[len(exit.LastLines)-1])
		}
	}
	row("session", "%s", sessionRow(s.Session))
	row("manifest", "%s", manifestRow(s.Manifest))
	for _, t := range s.Transfers {
		row("transfer", "%s", transferRow(t))
	}
	for _, actor := range s.Actors {
		if actor.Restarts > 0 {
			row("actor", "%s restarted %d times: %s", actor.Name, actor.Restarts, actor.LastError)
		}
	}
	if n := s.FrontDoor.EndedRuntime; n > 0 {
		row("requests", "%d ended the runtime, refused for an hour after that", n)
	}
	if verdicts := refusals(s.FrontDoor.Verdicts); verdicts != "" {
		row("refused", "%s", verdicts)
	}
	fmt.Fprintf(&b, "\n%s %s\n", paint(colours, bold, "next:"), next(s))
	return b.String()
}

// next is what a person does now.
func next(s messages.Status) string {
	switch {
	case s.CompanionAvailable:
		return "companion chat   or   eval \"$(companion env)\" for the programs you have"
	case len(s.Transfers) > 0:
		return "wait for the transfer"
	case !s.Facts.Token:
		return "unlock or start the keychain; `companion config show` names the back end"
	case !s.Facts.Verified && s.Session.State != messages.SessionSignedIn:
		return "companion login"
	case !s.Facts.Verified:
		return "companion pull"
	case s.Runtime.Held:
		return "companion logs --actor runtime, then companion start"
	case s.Lifecycle == messages.StateStopped && s.Runtime.RetryAt == nil:
		return "companion start"
	}
	return "wait a moment: companion status --watch"
}

func named(name, version string) string {
	if name == "" {
		return "none"
	}
	return strings.TrimSpace(name + " " + version)
}

func mark(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

func runtimeRow(r messages.StatusRuntime) string {
	if r.Name == "" && r.PID == 0 {
		return "none"
	}
	text := named(r.Name, r.Version)
	if r.PID != 0 {
		text += fmt.Sprintf(", process %d, %s socket, Landlock %d, seccomp %s", r.PID, r.BackEnd, r.Sandbox.Landlock, mark(r.Sandbox.Seccomp, "on", "off"))
	}
	if r.Restarts > 0 {
		text += fmt.Sprintf(", %d restarts", r.Restarts)
	}
	if r.RetryAt != nil {
		text += ", again at " + r.RetryAt.Local().Format(time.TimeOnly)
	}
	return text + mark(r.Held, ", held after a crash loop", "") + mark(r.PID != 0 && !r.Pinned, ", NOT PINNED by the manifest", "")
}

func sessionRow(s messages.StatusSession) string {
	switch s.State {
	case messages.SessionSignedIn:
		return "signed in as " + s.User
	case messages.SessionSignedOut:
		return "signed out"
	}
	if s.Reason != "" && s.Reason != messages.ReasonOK {
		return "unknown: " + explain(s.Reason)
	}
	return "unknown"
}

func manifestRow(m messages.StatusManifest) string {
	text := "none"
	if m.Version > 0 {
		text = fmt.Sprintf("version %d", m.Version)
		if m.Expires != nil {
			text += ", expires " + m.Expires.Local().Format("2006-01-02 15:04")
		}
		if m.CheckedAt != nil {
			text += ", checked " + m.CheckedAt.Local().Format(time.TimeOnly)
		}
	}
	if m.Reason != "" && m.Reason != messages.ReasonOK {
		text += ", " + explain(m.Reason)
	}
	return text
}

func refusals(verdicts map[messages.Reason]int64) string {
	var parts []string
	for reason, n := range verdicts {
		if reason != messages.ReasonOK && n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", reason, n))
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
