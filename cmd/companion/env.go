package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) envCommand() *cobra.Command {
	var shell, only string
	var check bool
	cmd := &cobra.Command{
		Use: "env", Short: "Print the address, token and model as variables that programs read",
		Long: "Print the address, token and model as variables that programs read.\n\n" +
			"  eval \"$(companion env)\"\n\n" + variablesHelp +
			"\n\nWhat is printed is good until the daemon ends. Prefer `companion exec`, which hands it to one program only.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case shell == "json":
				a.json = true
			case a.json && cmd.Flags().Changed("shell"):
				return &failure{code: "usage", message: "--json and --shell " + shell + " contradict each other", hint: "give one of them", exit: exitUsage}
			case a.json:
				shell = "json"
			}
			format, ok := shells[shell]
			if !ok {
				return usageFailure(fmt.Sprintf("--shell %q is not known", shell), "accepted: sh, bash, zsh, fish, powershell, json")
			}
			if err := checkFamily(only); err != nil {
				return err
			}
			d, err := a.openDoor(cmd.Context())
			if err != nil {
				return err
			}
			if check {
				if err := d.confirm(cmd.Context()); err != nil {
					return err
				}
			}
			return print(a.out, format(d.variables(only, os.Environ())))
		},
	}
	cmd.Flags().StringVar(&shell, "shell", defaultShell(), "sh (also bash, zsh), fish, powershell or json")
	familyFlag(cmd, &only)
	checkFlag(cmd, &check)
	a.jsonFlag(cmd)
	return exits(cmd, exitNotRunning, exitUnavailable, exitIntegrity, exitKeychain)
}

// variable is one environment variable.
type variable struct{ name, value string }

// The families of programs, by the variables that they read.
const (
	familyOpenAI    = "openai"
	familyAnthropic = "anthropic"
)

const variablesHelp = "OPENAI_BASE_URL, OPENAI_API_BASE, OPENAI_API_KEY and OPENAI_MODEL are for programs of the OpenAI family, " +
	"ANTHROPIC_BASE_URL, ANTHROPIC_AUTH_TOKEN, ANTHROPIC_MODEL and ANTHROPIC_DEFAULT_HAIKU_MODEL for those of the Anthropic family. " +
	"NO_PROXY and no_proxy get the loopback names, so that no proxy sees the prompts and the token."

func familyFlag(cmd *cobra.Command, only *string) {
	cmd.Flags().StringVar(only, "only", "", "the variables of one family: openai or anthropic")
}

func checkFlag(cmd *cobra.Command, check *bool) {
	cmd.Flags().BoolVar(check, "check", false, "first prove that the program that listens at the address is the daemon")
}

func checkFamily(only string) error {
	switch only {
	case "", familyOpenAI, familyAnthropic:
		return nil
	}
	return usageFailure(fmt.Sprintf("--only %q is not known", only), "accepted: openai, anthropic")
}

// variables returns what programs of a family read, or of all families when only is empty (X4, X13). environ is the
// environment that they are added to.
func (d door) variables(only string, environ []string) (all []variable) {
	token, model := d.token.Reveal(), d.status.Model.Name
	if only != familyAnthropic {
		all = append(all, variable{"OPENAI_BASE_URL", d.baseURL}, variable{"OPENAI_API_BASE", d.baseURL},
			variable{"OPENAI_API_KEY", token}, variable{"OPENAI_MODEL", model})
	}
	if only != familyOpenAI {
		// Libraries of this family add /v1 themselves.
		all = append(all, variable{"ANTHROPIC_BASE_URL", strings.TrimSuffix(d.baseURL, "/v1")}, variable{"ANTHROPIC_AUTH_TOKEN", token},
			variable{"ANTHROPIC_MODEL", model}, variable{"ANTHROPIC_DEFAULT_HAIKU_MODEL", model})
	}
	for _, v := range []struct{ family, name, value string }{
		{familyAnthropic, "ANTHROPIC_API_KEY", token}, // a second credential in the same request is refused as ambiguous
		// Other models are not served.
		{familyAnthropic, "ANTHROPIC_SMALL_FAST_MODEL", model}, {familyAnthropic, "ANTHROPIC_DEFAULT_SONNET_MODEL", model},
		{familyAnthropic, "ANTHROPIC_DEFAULT_OPUS_MODEL", model}, {familyAnthropic, "CLAUDE_CODE_SUBAGENT_MODEL", model},
		// With these a program would send the prompts to a cloud, and not to the base URL.
		{familyAnthropic, "CLAUDE_CODE_USE_BEDROCK", "0"}, {familyAnthropic, "CLAUDE_CODE_USE_VERTEX", "0"},
		{familyAnthropic, "CLAUDE_CODE_USE_FOUNDRY", "0"}, {familyAnthropic, "CLAUDE_CODE_USE_MANTLE", "0"},
		{familyAnthropic, "CLAUDE_CODE_USE_ANTHROPIC_AWS", "0"},
		{familyOpenAI, "OPENAI_API_TYPE", "openai"},
	} {
		if _, set := lookup(environ, v.name); set && (only == "" || only == v.family) {
			all = append(all, variable{v.name, v.value})
		}
	}
	all = slices.DeleteFunc(all, func(v variable) bool { return v.value == "" }) // no model is known yet
	return append(all, d.withoutProxy(environ)...)
}

// withoutProxy returns NO_PROXY and no_proxy with the loopback names added. Programs read either; one that is not set
// gets the value of the other, which it would hide.
func (d door) withoutProxy(environ []string) []variable {
	names := []string{"127.0.0.1", "localhost"}
	if strings.Contains(d.baseURL, "[::1]") {
		names = append(names, "::1")
	}
	pair := []string{"NO_PROXY", "no_proxy"}
	var all []variable
	for i, name := range pair {
		value, set := lookup(environ, name)
		if !set {
			value, _ = lookup(environ, pair[1-i])
		}
		all = append(all, variable{name, listedToo(value, names)})
	}
	return all
}

// listedToo adds names to a list of hosts that no proxy is used for. Programs read such lists differently: all take a list
// that is "*" alone for every host, and some do so for a "*" among others; all separate hosts by commas, and some by blanks.
// So a name counts as listed only where every program finds it. Control characters separate, too: no program reads them.
func listedToo(value string, names []string) string {
	if value == "*" {
		return value
	}
	value = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ','
		}
		return c
	}, value)
	listed := strings.Split(value, ",")
	for i := range listed {
		listed[i] = strings.TrimSpace(listed[i])
	}
	for _, n := range names {
		if !slices.Contains(listed, n) {
			value = strings.TrimPrefix(value+","+n, ",")
		}
	}
	return value
}

// lookup finds the value of a variable; the last entry counts.
func lookup(environ []string, name string) (value string, set bool) {
	for _, entry := range environ {
		if v, ok := strings.CutPrefix(entry, name+"="); ok {
			value, set = v, true
		}
	}
	return value, set
}

var shells = map[string]func([]variable) string{
	"sh":   eachLine("export %s='%s'\n", "'", `'\''`),
	"bash": eachLine("export %s='%s'\n", "'", `'\''`),
	"zsh":  eachLine("export %s='%s'\n", "'", `'\''`),
	"fish": eachLine("set -gx %s '%s'\n", `\`, `\\`, "'", `\'`),
	// PowerShell takes the typographic quotes for the plain one.
	"powershell": eachLine("$Env:%s = '%s'\n", "'", "''", "‘", "‘‘", "’", "’’", "‚", "‚‚", "‛", "‛‛"),
	"json": func(all []variable) string {
		object := map[string]string{}
		for _, v := range all {
			object[v.name] = v.value
		}
		encoded, _ := json.Marshal(object) // strings encode
		return string(encoded) + "\n"
	},
}

// eachLine prints a line for each variable. quoting are the pairs that a shell's single quotes need.
func eachLine(format string, quoting ...string) func([]variable) string {
	quote := strings.NewReplacer(quoting...)
	return func(all []variable) string {
		var b strings.Builder
		for _, v := range all {
			fmt.Fprintf(&b, format, v.name, quote.Replace(v.value))
		}
		return b.String()
	}
}

func defaultShell() string {
	switch {
	case filepath.Base(os.Getenv("SHELL")) == "fish":
		return "fish"
	case os.Getenv("SHELL") == "" && os.Getenv("PSModulePath") != "":
		return "powershell"
	}
	return "sh"
}

func (a *app) execCommand() *cobra.Command {
	var only string
	var check bool
	cmd := &cobra.Command{
		Use: "exec -- CMD [ARG]...", Short: "Run a program with the address, token and model in its environment",
		Long: "Run a program with the address, token and model in its environment, and give back its exit status.\n\n" + variablesHelp,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := checkFamily(only); err != nil {
				return err
			}
			program, err := lookPath(given[0])
			if err != nil {
				return cannotRun(given[0], err)
			}
			d, err := a.openDoor(cmd.Context())
			if err != nil {
				return err
			}
			if check {
				if err := d.confirm(cmd.Context()); err != nil {
					return err
				}
			}
			return replace(program, given, environment(os.Environ(), d.variables(only, os.Environ())))
		},
	}
	cmd.Flags().SetInterspersed(false)
	familyFlag(cmd, &only)
	checkFlag(cmd, &check)
	return exits(cmd, exitNotRunning, exitUnavailable, exitIntegrity, exitKeychain, exitNotRunnable, exitNoProgram)
}

// cannotRun says why there is no program to run.
func cannotRun(program string, err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, exec.ErrDot) {
		return &failure{code: "not_runnable", message: oneLine(program) + " cannot be run: " + oneLine(err.Error()), hint: "check its mode, or give its path: `companion exec -- ./program`", exit: exitNotRunnable}
	}
	return &failure{code: "no_program", message: "there is no program " + oneLine(program), hint: "give the program after `--`, as in `companion exec -- python script.py`", exit: exitNoProgram}
}

// environment sets variables, in the place of those that are there.
func environment(environ []string, set []variable) []string {
	var all []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if !slices.ContainsFunc(set, func(v variable) bool { return v.name == name }) {
			all = append(all, entry)
		}
	}
	for _, v := range set {
		all = append(all, v.name+"="+v.value)
	}
	return all
}
