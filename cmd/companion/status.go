package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"companion/adapters/config"
	"companion/adapters/door/controlsock"
	"companion/messages"
)

// statusFlags are those of `status`.
type statusFlags struct {
	watch, wait, exitCode bool
	timeout               time.Duration
}

func (a *app) statusCommand() *cobra.Command {
	var f statusFlags
	cmd := &cobra.Command{
		Use: "status", Short: "Say whether local inference is available, and what to do next",
		Long: "Say whether local inference is available, and what to do next.\n\n" +
			"  companion status --watch                  a dashboard, until q or Ctrl-C\n" +
			"  companion status --wait --timeout 2m      for scripts: until it is available\n" +
			"  companion status --exit-code              status 5 while it is not available",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.watch && f.wait {
				return usageFailure("--watch and --wait contradict each other", "give one of them")
			}
			if cmd.Flags().Changed("timeout") && !f.wait {
				return usageFailure("--timeout needs --wait", "companion status --wait --timeout 2m")
			}
			return a.status(cmd.Context(), f)
		},
	}
	cmd.Flags().BoolVar(&f.watch, "watch", false, "go on: a dashboard on a terminal, else a line at each change")
	cmd.Flags().BoolVar(&f.wait, "wait", false, "wait until local inference is available")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0, "with --wait: give up after this `DURATION`, such as 2m; 0: never")
	cmd.Flags().BoolVar(&f.exitCode, "exit-code", false, "exit with status 5 while local inference is not available")
	a.jsonFlag(cmd)
	return exits(cmd, exitNotRunning, exitUnavailable)
}

func (a *app) status(ctx context.Context, f statusFlags) error {
	s, places, err := a.load()
	if err != nil {
		return err
	}
	client := controlsock.Dial(places.ControlSocket)
	switch {
	case f.watch && a.json:
		return client.Watch(ctx, a.printStatusLine)
	case f.watch && isTerminal(a.out) && isTerminal(a.in):
		if err := a.watchScreen(ctx, s, places, client); !errors.Is(err, errNoScreen) {
			return err
		}
		fallthrough
	case f.watch:
		return client.Watch(ctx, func(status messages.Status) error {
			return print(a.out, fmt.Sprintf("%s %s\n", time.Now().Format(time.DateTime), headline(status, false)))
		})
	}
	var status messages.Status
	if f.wait {
		status, err = awaitAvailable(ctx, client, f.timeout)
	} else {
		status, err = client.Status(ctx)
	}
	if err != nil {
		return err
	}
	if a.json {
		err = a.printStatusLine(status)
	} else {
		step := nextConfigured(s, status)
		if lacksSpace(status) {
			step = spaceStep(ctx, client, places, status)
		}
		err = print(a.out, screen(status, colour(a.out), step))
	}
	if err == nil && f.exitCode && !status.CompanionAvailable {
		return silentExit(exitUnavailable)
	}
	return err
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

// headline says in one line whether local inference works, and if not, why.
func headline(s messages.Status, colours bool) string {
	if s.CompanionAvailable {
		return paint(colours, green, "● available"+mark(s.Runtime.Asleep, ", the model is asleep", ""))
	}
	return paint(colours, yellow, "○ "+stage(s))
}

// stage says what the daemon does, or why it does nothing.
func stage(s messages.Status) string {
	model := oneLine(named(s.Model.Name, ""))
	since := ""
	if !s.Since.IsZero() {
		since = fmt.Sprintf(" (%d s)", max(0, int(time.Since(s.Since).Seconds())))
	}
	switch {
	case s.Lifecycle == messages.StateStarting:
		return "starting: loading " + model + since
	case s.Lifecycle == messages.StateDraining:
		return "stopping: requests finish" + since
	case len(s.Transfers) > 0:
		return "not available: fetching " + transferRow(s.Transfers[0])
	case stoppedByUser(s):
		return "stopped"
	case s.Reason == messages.ReasonCrashLoop && s.Runtime.LastExit != nil:
		return "not available: " + explain(s.Reason) + ", last: " + exitText(*s.Runtime.LastExit)
	}
	return "not available: " + explain(s.Reason)
}

// stoppedByUser reports whether the runtime does not run because of `companion stop`: nothing is missing, and nothing
// is planned.
func stoppedByUser(s messages.Status) bool {
	return s.Lifecycle == messages.StateStopped && s.Facts.Verified && s.Facts.Token && s.Facts.Bound &&
		!s.Runtime.Held && s.Runtime.RetryAt == nil && (s.Reason == messages.ReasonNotReady || s.Reason == messages.ReasonProcessExited)
}

// exitText says how the runtime ended.
func exitText(exit messages.ExitReport) string {
	return strings.TrimSpace(explain(exit.Reason) + " " + exit.Signal)
}

// screen is the one screen of `status`. It ends with what to do next.
func screen(s messages.Status, colours bool, step string) string {
	var b strings.Builder
	row := func(label, format string, values ...any) {
		fmt.Fprintf(&b, "%s %s\n", paint(colours, dim, fmt.Sprintf("%-11s", label)), oneLine(fmt.Sprintf(format, values...)))
	}
	fmt.Fprintf(&b, "%s  %s\n\n", paint(colours, bold, "companion "+s.Version), headline(s, colours))
	if s.FrontDoor.BaseURL != "" {
		row("endpoint", "%s   %d running, %d waiting", s.FrontDoor.BaseURL, s.FrontDoor.InFlight, s.FrontDoor.Queued)
	} else {
		row("endpoint", "not open")
	}
	row("model", "%s", modelRow(s))
	row("runtime", "%s", runtimeRow(s.Runtime))
	if s.Runtime.PID != 0 {
		row("sandbox", "%s", sandboxRow(s.Runtime))
		row("", "memory %8s", bytesText(s.Runtime.ResidentBytes))
		if s.Runtime.ExpectedBytes > 0 {
			row("", "weights, full contexts and prompt cache take %s", bytesText(s.Runtime.ExpectedBytes))
		}
		row("", "CPU    %7.0f%%%s", s.Runtime.CPUPercent, mark(s.Runtime.GPUBytes > 0, "  GPU "+bytesText(s.Runtime.GPUBytes), ""))
	}
	if exit := s.Runtime.LastExit; exit != nil {
		row("last exit", "%s %s", exit.At.Local().Format(time.TimeOnly), exitText(*exit))
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
			row("actor", "%s restarted %s: %s", actor.Name, times(actor.Restarts), actor.LastError)
		}
	}
	for _, application := range s.FrontDoor.Applications {
		if application.LastRequest != nil {
			row("application", "%s %s, last at %s", application.Name, requestsText(application.Requests), application.LastRequest.Local().Format(time.TimeOnly))
		}
	}
	if n := s.FrontDoor.EndedRuntime; n > 0 {
		row("requests", "%d ended the runtime, refused for an hour after that", n)
	}
	if verdicts := refusals(s.FrontDoor.Verdicts); verdicts != "" {
		row("refused", "%s", verdicts)
	}
	if fields := counts(s.FrontDoor.Dropped); fields != "" {
		row("left out", "%s", fields)
	}
	fmt.Fprintf(&b, "\n%s %s\n", paint(colours, bold, "next:"), step)
	return b.String()
}

// nextConfigured is next, but a configuration that lacks the root of its hub comes first: no other step can help.
func nextConfigured(s config.Settings, status messages.Status) string {
	if missing := notConfigured(s); missing != "" && !status.CompanionAvailable && !status.Facts.Verified {
		return "set " + strings.TrimSuffix(missing, " is not set") + " in the configuration, restart the daemon"
	}
	return next(status)
}

// next is what a person does now.
func next(s messages.Status) string {
	switch {
	case s.CompanionAvailable:
		return "companion chat   or   eval \"$(companion env)\" for your programs"
	case len(s.Transfers) > 0:
		return "wait for the transfer"
	case !s.Facts.Token:
		return "unlock or start the keychain; `companion config show` names the back end"
	case !s.Facts.Verified && s.Manifest.AddedReason != "" && s.Session.State == messages.SessionNoHub:
		return "companion add FILE, which says what is wrong with your catalogue"
	case !s.Facts.Verified && (s.Reason == messages.ReasonNoHub || s.Reason == messages.ReasonFileMissing):
		return nextStep(s.Reason)
	case !s.Facts.Verified && s.Session.State != messages.SessionSignedIn && s.Session.State != messages.SessionNoHub:
		return "companion login"
	case !s.Facts.Verified && exitOf(s.Reason) == exitIntegrity && nextStep(s.Reason) != "":
		return nextStep(s.Reason)
	case !s.Facts.Verified && s.Reason == messages.ReasonOverBudget:
		return nextStep(s.Reason)
	case lacksSpace(s):
		return nextStep(messages.ReasonNoSpace)
	case !s.Facts.Verified:
		return "companion pull"
	case s.Runtime.Held:
		if exit := s.Runtime.LastExit; exit != nil && exit.Reason != messages.ReasonProcessExited && nextStep(exit.Reason) != "" {
			return nextStep(exit.Reason) + ", then companion start"
		}
		return "companion logs --actor runtime, then companion start"
	case s.Lifecycle == messages.StateStopped && s.Runtime.RetryAt == nil:
		return "companion start"
	}
	return "wait a moment: companion status --watch"
}

// modelRow says which model is served or wanted.
func modelRow(s messages.Status) string {
	text := oneLine(named(s.Model.Name, s.Model.Version))
	switch {
	case s.Model.Name == "" && s.Model.Verified, s.Reason == messages.ReasonNoHub:
		return "none"
	case s.Model.Name == "":
		return "none yet"
	case s.Model.Verified:
		text += ", verified"
	default:
		text += " wanted, not here yet"
	}
	return text + mark(s.Model.Yours, ", yours", "") + contextText(s.Model) + mark(s.Model.Grace, ", manifest expired (grace)", "")
}

// contextText says how many tokens a request can use, and what limits them.
func contextText(m messages.StatusModel) string {
	if m.Context == 0 {
		return ""
	}
	text := fmt.Sprintf(", context %d tokens", m.Context)
	if m.ContextShare > 0 {
		text += fmt.Sprintf(", shared: a request has %d for certain", m.ContextShare)
	}
	trained := mark(m.ContextTrained > 0, fmt.Sprintf("it was trained for %d", m.ContextTrained), "")
	switch {
	case m.ContextBy == messages.ContextMemory:
		text += " (free memory; " + trained + ")"
	case m.ContextAsked > m.Context:
		text += fmt.Sprintf(" (model.context is %d; %s)", m.ContextAsked, trained)
	case m.ContextBy == messages.ContextConfigured && trained != "":
		text += " (model.context; " + trained + ")"
	case m.ContextBy == messages.ContextPublished:
		text += " (the manifest; model.context sets another number)"
	case m.ContextBy == messages.ContextDefault:
		text += " (set model.context for another number)"
	}
	return text
}

// times is such as "once", "3 times".
func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func named(name, version string) string {
	if name == "" {
		return "none"
	}
	return strings.TrimSpace(name + " " + version)
}

func requestsText(n int64) string {
	if n == 1 {
		return "1 request"
	}
	return fmt.Sprintf("%d requests", n)
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
		text += fmt.Sprintf(", process %d", r.PID)
	}
	if r.Restarts > 0 {
		text += ", restarted " + times(r.Restarts)
	}
	if r.RetryAt != nil {
		text += ", again at " + r.RetryAt.Local().Format(time.TimeOnly)
	}
	return text + mark(r.Yours, ", yours", "") + mark(r.Held, ", held after repeated failures", "") + mark(r.PID != 0 && !r.Pinned, ", NOT PINNED by the manifest", "")
}

// sandboxRow says how the runtime is confined, as proved at its start.
func sandboxRow(r messages.StatusRuntime) string {
	return fmt.Sprintf("%s socket, Landlock %d, seccomp %s%s", r.BackEnd, r.Sandbox.Landlock,
		mark(r.Sandbox.Seccomp, "on", "off"), mark(r.Sandbox.Netns, ", own network", ""))
}

func sessionRow(s messages.StatusSession) string {
	row := sessionState(s)
	if s.Trouble != "" && s.Trouble != s.Reason {
		row += "; " + explain(s.Trouble)
	}
	if s.Unrevoked > 0 {
		row += "; " + unrevoked(s.Unrevoked)
	}
	return row
}

func unrevoked(sessions int) string {
	if sessions == 1 {
		return "the hub is yet to be told of 1 ended session"
	}
	return fmt.Sprintf("the hub is yet to be told of %d ended sessions", sessions)
}

func sessionState(s messages.StatusSession) string {
	switch s.State {
	case messages.SessionSignedIn:
		return "signed in as " + s.User
	case messages.SessionSignedOut:
		return "signed out"
	case messages.SessionNoHub:
		return "no hub"
	}
	if s.Reason != "" && s.Reason != messages.ReasonOK {
		return "unknown: " + explain(s.Reason)
	}
	return "unknown"
}

func manifestRow(m messages.StatusManifest) string {
	text := "none"
	if m.Reason == messages.ReasonNoHub {
		text, m.Reason = "no hub", ""
	}
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
		if m.RetryAt != nil {
			text += ", next try " + m.RetryAt.Local().Format(time.TimeOnly)
		}
	}
	if m.Added > 0 {
		text += fmt.Sprintf(", %d added by you", m.Added)
	}
	if m.AddedReason != "" {
		text += ", what you added cannot be used: " + explain(m.AddedReason)
	}
	return text
}

// counts lists names with their numbers.
func counts(of map[string]int64) string {
	var parts []string
	for name, n := range of {
		parts = append(parts, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
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
