package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"companion/adapters/config"
	"companion/adapters/door/controlsock"
	"companion/messages"
)

// The states of a check.
const (
	checkOK      = "ok"
	checkWarning = "warning"
	checkFailure = "failure"
)

// checkWithin bounds one check; all run at once, so that it bounds the command, too.
const checkWithin = 2500 * time.Millisecond

// finding is the result of one check.
type finding struct {
	Check string `json:"check"`
	State string `json:"state"`
	Text  string `json:"text"`
	Fix   string `json:"fix,omitempty"` // a command or a setting
}

// examination is the input of the checks.
type examination struct {
	app    *app
	s      config.Settings
	values []config.Value
	places config.Places
	status *messages.Status // nil: the daemon does not answer
	asked  error            // why not
}

// check is one precondition. Some report more than one finding.
type check struct {
	name string
	do   func(context.Context, *examination) []finding
}

// checks lists all, in the order in which a person mends them.
var checks = []check{
	{"configuration", checkConfiguration},
	{"folders", checkFolders},
	{"disk", checkDisk},
	{"keychain", checkKeychain},
	{"hub", checkHub},
	{"proxy", checkProxy},
	{"daemon", checkDaemon},
	{"session", checkSession},
	{"manifest", checkManifest},
	{"files", checkFilesHere},
	{"sandbox", checkSandbox},
	{"runtime", checkRuntime},
	{"gpu", checkGPU},
	{"endpoint", checkEndpoint},
	{"servers", checkOtherServers},
}

// checkOf names the check that explains an exit status.
var checkOf = map[int]string{
	exitNotRunning: "daemon", exitSignIn: "session", exitUnavailable: "runtime", exitIntegrity: "manifest", exitKeychain: "keychain",
}

// checkOfCode names the check that explains a code, where the exit status does not tell.
var checkOfCode = map[string]string{
	"not_answering": "daemon", "already_running": "daemon", "service_manager": "daemon",
	"not_private": "folders", "port_taken": "endpoint", "foreign_listener": "endpoint", "own_catalogue": "manifest",
	string(messages.ReasonBindFailed): "endpoint",
	string(messages.ReasonNoSpace):    "disk", string(messages.ReasonOverBudget): "disk",
	string(messages.ReasonHubUnreachable): "hub", string(messages.ReasonManifestUnreachable): "hub", string(messages.ReasonMetadataInvalid): "hub",
	string(messages.ReasonIssuerMismatch): "hub", string(messages.ReasonIssuerMissing): "hub", string(messages.ReasonRegistrationFailed): "hub",
	string(messages.ReasonTokenExchangeFailed): "hub", string(messages.ReasonInvalidTokenResponse): "hub", string(messages.ReasonUnsupportedPKCEMethod): "hub",
	string(messages.ReasonCallbackTimeout): "hub", string(messages.ReasonBadStatus): "manifest", string(messages.ReasonTransferFailed): "proxy",
	string(messages.ReasonAddressNotAllowed): "proxy", string(messages.ReasonNoSuchTarget): "manifest",
	string(messages.ReasonSizeMismatch): "files", string(messages.ReasonDigestMismatch): "files", string(messages.ReasonBinaryUntrusted): "files",
	string(messages.ReasonFileMissing): "files", string(messages.ReasonInvalidModelPath): "files", string(messages.ReasonInvalidBinaryPath): "files",
	string(messages.ReasonSandboxUnavailable): "sandbox", string(messages.ReasonInternalError): "daemon",
}

// explains is the check that explains a failure; empty for one that the message explains, such as a wrong command line.
func explains(f *failure) string {
	if name := checkOfCode[f.code]; name != "" {
		return name
	}
	return checkOf[f.exit]
}

func (a *app) doctorCommand() *cobra.Command {
	var bundle string
	names := make([]string, len(checks))
	for i, c := range checks {
		names[i] = c.name
	}
	cmd := &cobra.Command{
		Use: "doctor [CHECK]...", Short: "Check every precondition, and say what mends it",
		Long: "Check every precondition, and say what mends it. The daemon need not run.\n\n" +
			"  companion doctor                     all checks\n" +
			"  companion doctor keychain hub        these alone\n" +
			"  companion doctor --bundle report.json    a redacted report for an issue\n\n" +
			"Checks: " + strings.Join(names, ", ") + ".\nIt ends with status 1 when a check failed; warnings alone end with 0.",
		ValidArgs: names,
		RunE: func(cmd *cobra.Command, given []string) error {
			for _, name := range given {
				if !slices.Contains(names, name) {
					return usageFailure(fmt.Sprintf("there is no check %q", oneLine(name)), "checks: "+strings.Join(names, ", "))
				}
			}
			found, x := a.examine(cmd.Context(), given)
			if bundle != "" {
				if err := a.writeBundle(bundle, found, x); err != nil {
					return err
				}
			}
			return a.report(found, bundle)
		},
	}
	cmd.Flags().StringVar(&bundle, "bundle", "", "also write a redacted report to a new `FILE`")
	a.jsonFlag(cmd)
	return exits(cmd)
}

// examine runs the named checks, or all.
func (a *app) examine(ctx context.Context, names []string) ([]finding, *examination) {
	x := &examination{app: a}
	var err error
	if x.s, x.values, x.places, err = a.loadValues(); err != nil {
		return []finding{{"configuration", checkFailure, described(err).message, "companion config check"}}, x
	}
	asking, cancel := context.WithTimeoutCause(ctx, checkWithin, errors.New("no answer in time"))
	defer cancel()
	if status, err := controlsock.Dial(x.places.ControlSocket).Status(asking); err != nil {
		x.asked = err
	} else {
		x.status = &status
	}
	results := make([][]finding, len(checks))
	var all sync.WaitGroup
	for i, c := range checks {
		if len(names) > 0 && !slices.Contains(names, c.name) {
			continue
		}
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, checkWithin)
			defer cancel()
			results[i] = c.do(ctx, x)
			for k := range results[i] {
				results[i][k].Check = c.name
			}
		})
	}
	all.Wait()
	return slices.Concat(results...), x
}

// report prints the findings and ends with failure when a check failed.
func (a *app) report(found []finding, bundle string) error {
	failed := 0
	for _, f := range found {
		if f.State == checkFailure {
			failed++
		}
	}
	if a.json {
		if err := a.printJSON(map[string]any{"ok": failed == 0, "checks": found}); err != nil {
			return err
		}
	} else if err := print(a.out, findingsText(found, colour(a.out), columns(a.out))); err != nil {
		return err
	}
	if bundle != "" {
		a.say("The report is in %s. Read it before you attach it to anything.", oneLine(bundle))
	}
	if failed > 0 {
		return silentExit(exitFailed)
	}
	return nil
}

func findingsText(found []finding, colours bool, width int) string {
	var b strings.Builder
	marks := map[string]string{checkOK: paint(colours, green, "ok     "), checkWarning: paint(colours, yellow, "warning"), checkFailure: paint(colours, red, "FAILURE")}
	for _, f := range found {
		fmt.Fprintf(&b, "%s  %-14s %s\n", marks[f.State], f.Check, wrapped(oneLine(f.Text), width, 24))
		if f.Fix != "" {
			fmt.Fprintf(&b, "%24s → %s\n", "", wrapped(oneLine(f.Fix), width, 27))
		}
	}
	return b.String()
}

func ok(format string, values ...any) finding {
	return finding{State: checkOK, Text: fmt.Sprintf(format, values...)}
}

func warning(fix, format string, values ...any) finding {
	return finding{State: checkWarning, Text: fmt.Sprintf(format, values...), Fix: fix}
}

func failed(fix, format string, values ...any) finding {
	return finding{State: checkFailure, Text: fmt.Sprintf(format, values...), Fix: fix}
}
