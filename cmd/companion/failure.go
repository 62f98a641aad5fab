package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"companion/adapters/authority/keychain"
	"companion/adapters/authority/tuf"
	"companion/adapters/completion"
	"companion/adapters/config"
	"companion/adapters/door/controlsock"
	"companion/adapters/privatefs"
	"companion/messages"
)

// Exit statuses (docs/cli.md); scripts rely on them.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotRunning  = 3
	exitSignIn      = 4
	exitUnavailable = 5
	exitIntegrity   = 6
	exitKeychain    = 7
	exitRunning     = 8
	exitPolicy      = 9
	exitNotRunnable = 126
	exitNoProgram   = 127
	exitInterrupted = 130
)

var exitMeaning = map[int]string{
	exitDone: "done", exitFailed: "failed", exitUsage: "wrong usage or configuration",
	exitNotRunning: "the companion is not running", exitSignIn: "sign-in needed",
	exitUnavailable: "local inference is not available", exitIntegrity: "integrity check failed, or manifest refused",
	exitKeychain: "keychain unavailable", exitRunning: "already running", exitPolicy: "consent or lane policy refuses it",
	exitInterrupted: "interrupted",
	exitNotRunnable: "the program cannot be run", exitNoProgram: "there is no such program",
}

// hints are the next steps for errors without a reason or a hint of their own.
var hints = map[int]string{
	exitNotRunning:  "start it with `companion run`",
	exitSignIn:      "sign in with `companion login`",
	exitUnavailable: "`companion status` says why, and what to do",
	exitIntegrity:   "nothing that failed a check is used; `companion logs --level warn` tells more",
	exitKeychain:    "unlock or start it; `companion config show` names the back end",
	exitRunning:     "use the one that runs: `companion status`",
}

// failure is an error as the user sees it: what was wrong, and the next step.
type failure struct {
	code    string
	message string
	hint    string
	exit    int
	notes   []noteFailure // those of enrich
	err     error
}

// noteFailure says why one note of many was not enriched (E7).
type noteFailure struct {
	Path    string `json:"path"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (f *failure) Error() string { return f.message }
func (f *failure) Unwrap() error { return f.err }

var errInterrupted = &failure{code: "interrupted", message: "interrupted", exit: exitInterrupted}

// childExit is the exit status of a program that exec ran, or could not run (126, 127, as shells do).
type childExit int

func (c childExit) Error() string { return fmt.Sprintf("the program ended with status %d", int(c)) }

// silentExit is an exit status without a message: the output has said it.
type silentExit int

func (s silentExit) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// refused is the failure of a command that the daemon answered with a reason; nil for ReasonOK.
func refused(what string, r messages.Reason) error {
	if r == messages.ReasonOK {
		return nil
	}
	return &failure{code: string(r), message: what + ": " + explain(r), exit: exitOf(r)}
}

// exitOf maps every reason to its exit status. It is the only place that does.
func exitOf(r messages.Reason) int {
	switch r {
	case messages.ReasonOK, messages.ReasonAllow, messages.ReasonSessionValid:
		return exitDone
	case messages.ReasonSignInNeeded, messages.ReasonSessionRefresh, messages.ReasonRefreshInterrupted:
		return exitSignIn
	case messages.ReasonCloudConsentRequired, messages.ReasonLanePolicyDenied:
		return exitPolicy
	case messages.ReasonUnknownAccount, messages.ReasonInvalidSecret, messages.ReasonSecretTooLarge,
		messages.ReasonKeychainUnavailable, messages.ReasonKeychainLocked, messages.ReasonKeychainDenied,
		messages.ReasonKeychainTimeout, messages.ReasonKeychainFull, messages.ReasonKeychainNoCollection:
		return exitKeychain
	case messages.ReasonMalformedSpec, messages.ReasonSourceNotAllowed, messages.ReasonSchemeNotAllowed,
		messages.ReasonSizeMismatch, messages.ReasonDigestMismatch, messages.ReasonAccumulatorFinalized,
		messages.ReasonAccumulatorAborted, messages.ReasonManifestUntrusted, messages.ReasonManifestExpired,
		messages.ReasonManifestRollback, messages.ReasonHTTPSRequired,
		messages.ReasonBinaryUntrusted:
		return exitIntegrity
	case messages.ReasonInvalidTransition, messages.ReasonNotReady, messages.ReasonUnknownEvent,
		messages.ReasonUnknownState, messages.ReasonStartTimeout, messages.ReasonProcessExited,
		messages.ReasonCrashLoop, messages.ReasonQueueTimeout, messages.ReasonRuntimeUnavailable,
		messages.ReasonUpstreamFailed, messages.ReasonMalformedAdmissionState, messages.ReasonAtCapacity,
		messages.ReasonQueueFull, messages.ReasonNoInFlightToComplete, messages.ReasonMalformedLimits,
		messages.ReasonMalformedObservation, messages.ReasonRAMOverLimit, messages.ReasonVRAMOverLimit,
		messages.ReasonCPUOverLimit, messages.ReasonProbeFailed, messages.ReasonInvalidBinaryPath,
		messages.ReasonInvalidModelPath, messages.ReasonSandboxUnavailable, messages.ReasonSpawnFailed, messages.ReasonNotExecutable, messages.ReasonLibraryMissing,
		messages.ReasonBackendUnreachable, messages.ReasonFileMissing, messages.ReasonNoHub:
		return exitUnavailable
	}
	return exitFailed
}

// described turns any error of a command into a failure, once.
func described(err error) *failure {
	var f *failure
	var key *keychain.Error
	var asked *completion.Error
	var refusal *controlsock.Error
	var notPrivate *privatefs.Error
	var silent *controlsock.UnresponsiveError
	var own *tuf.OwnError
	switch {
	case errors.As(err, &f):
		copied := *f
		f = &copied
	case errors.Is(err, controlsock.ErrNotRunning):
		f = &failure{code: "not_running", message: "the companion is not running", exit: exitNotRunning}
	case errors.As(err, &silent):
		f = &failure{code: "not_answering", message: silent.Error(), exit: exitUnavailable, hint: "`companion logs` shows what it did last; end that process, then `companion run`"}
	case errors.As(err, &key):
		f = &failure{code: string(key.Reason), message: explain(key.Reason), exit: exitKeychain}
	case errors.As(err, &asked):
		f = &failure{code: asked.Code, message: asked.Error(), exit: exitOf(asked.Reason())}
		switch {
		case asked.Remote:
			f.exit, f.hint = exitFailed, "this error comes from the lane's server: check its address, model and key in [lanes]"
		case asked.Status == 0 && f.exit == exitFailed:
			f.exit = exitUnavailable
		}
	case errors.As(err, &refusal):
		f = &failure{code: refusal.Code, message: "the companion refused: " + refusal.Message, exit: exitFailed}
	case errors.As(err, &own):
		f = &failure{code: "own_catalogue", message: own.Error(), hint: own.Hint, exit: exitFailed}
	case errors.As(err, &notPrivate):
		f = &failure{code: "not_private", message: err.Error(), exit: exitFailed,
			hint: "check who changed it, then `chmod go-rwx` it or move it away"}
	default:
		f = &failure{code: "failed", message: err.Error(), exit: exitFailed}
	}
	if f.hint == "" {
		f.hint = nextStep(messages.Reason(f.code))
	}
	if f.hint == "" {
		f.hint = hints[f.exit]
	}
	return f
}

// usageFailure is a wrong command line.
func usageFailure(message, hint string) *failure {
	return &failure{code: "usage", message: message, hint: hint, exit: exitUsage}
}

// configFailure keeps file, line and accepted values of every problem (X5).
func configFailure(err error) error {
	f := &failure{code: "configuration", message: err.Error(), exit: exitUsage, err: err}
	var refusedKeys *config.Error
	switch {
	case errors.As(err, &refusedKeys):
		f.hint = "correct it and try `companion config check`; `companion config init` writes a commented file"
	case errors.Is(err, fs.ErrNotExist):
		f.hint = "`companion config init` writes one"
	}
	return f
}

// fail prints err, as JSON under --json, and returns the exit status.
func (a *app) fail(err error) int {
	var child childExit
	if errors.As(err, &child) {
		return int(child)
	}
	var silent silentExit
	if errors.As(err, &silent) {
		return int(silent)
	}
	f := described(err)
	if a.wantsJSON() {
		type body struct {
			Code    string        `json:"code"`
			Message string        `json:"message"`
			Hint    string        `json:"hint"`
			Notes   []noteFailure `json:"notes,omitempty"`
		}
		encoded, _ := json.Marshal(map[string]body{"error": {f.code, f.message, f.hint, f.notes}})
		a.say("%s", safeJSON(encoded))
		return f.exit
	}
	mark := "error:"
	if colour(a.err) {
		mark = red + mark + reset
	}
	a.say("%s %s", mark, plain(f.message))
	if f.hint != "" {
		a.say("hint: %s", f.hint)
	}
	if name := explains(f); name != "" {
		a.say("check: `companion doctor %s`", name)
	}
	return f.exit
}

// exits adds a list of exit statuses to the help of a command: codes, and 0, 1, 2 and 130.
func exits(cmd *cobra.Command, codes ...int) *cobra.Command {
	all := append([]int{exitDone, exitFailed, exitUsage}, codes...)
	all = append(all, exitInterrupted)
	slices.Sort(all)
	var b strings.Builder
	b.WriteString("\n\nExit status:\n")
	for _, code := range slices.Compact(all) {
		fmt.Fprintf(&b, "  %-4d %s\n", code, exitMeaning[code])
	}
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations["exits"] = strings.TrimRight(b.String(), "\n")
	return cmd
}

// helpWidth is the column at which the text of a help is wrapped.
const helpWidth = 80

// reflow wraps the paragraphs of a help at helpWidth. Indented lines, which are examples and tables, stay as they
// are.
func reflow(text string) string {
	var out, paragraph []string
	end := func() {
		if len(paragraph) > 0 {
			out = append(out, wrapped(strings.Join(paragraph, " "), helpWidth, 0))
			paragraph = nil
		}
	}
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" || strings.HasPrefix(line, " ") {
			end()
			out = append(out, line)
			continue
		}
		paragraph = append(paragraph, line)
	}
	end()
	return strings.Join(out, "\n")
}

// document appends the exit statuses to every command's help.
func document(cmd *cobra.Command) {
	if cmd.Annotations["exits"] == "" {
		exits(cmd)
	}
	if cmd.Long == "" {
		cmd.Long = cmd.Short + "."
	}
	cmd.Long = reflow(cmd.Long) + cmd.Annotations["exits"]
	cmd.Example = example(cmd)
	for _, child := range cmd.Commands() {
		document(child)
	}
}
