package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) envCommand() *cobra.Command {
	var shell string
	cmd := &cobra.Command{
		Use: "env", Short: "Print OPENAI_BASE_URL and OPENAI_API_KEY for the programs you have",
		Long: "Print OPENAI_BASE_URL and OPENAI_API_KEY for the programs you have.\n\n" +
			"  eval \"$(companion env)\"\n\n" +
			"What is printed is good until the daemon ends. Prefer `companion exec`, which hands both to one program only.",
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
			d, err := a.openDoor(cmd.Context())
			if err != nil {
				return err
			}
			return print(a.out, format(d.variables()))
		},
	}
	cmd.Flags().StringVar(&shell, "shell", defaultShell(), "sh (also bash, zsh), fish, powershell or json")
	a.jsonFlag(cmd)
	return exits(cmd, exitNotRunning, exitUnavailable, exitKeychain)
}

// variable is one environment variable.
type variable struct{ name, value string }

func (d door) variables() []variable {
	return []variable{{"OPENAI_BASE_URL", d.baseURL}, {"OPENAI_API_KEY", d.token.Reveal()}}
}

var shells = map[string]func([]variable) string{
	"sh":         eachLine("export %s='%s'\n", `'\''`),
	"bash":       eachLine("export %s='%s'\n", `'\''`),
	"zsh":        eachLine("export %s='%s'\n", `'\''`),
	"fish":       eachLine("set -gx %s '%s'\n", `\'`),
	"powershell": eachLine("$Env:%s = '%s'\n", "''"),
	"json": func(all []variable) string {
		object := map[string]string{}
		for _, v := range all {
			object[v.name] = v.value
		}
		encoded, _ := json.Marshal(object) // strings encode
		return string(encoded) + "\n"
	},
}

func eachLine(format, quote string) func([]variable) string {
	return func(all []variable) string {
		var b strings.Builder
		for _, v := range all {
			fmt.Fprintf(&b, format, v.name, strings.ReplaceAll(v.value, "'", quote))
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
	cmd := &cobra.Command{
		Use: "exec -- CMD [ARG]...", Short: "Run a program with OPENAI_BASE_URL and OPENAI_API_KEY set",
		Long: "Run a program with OPENAI_BASE_URL and OPENAI_API_KEY set, and give back its exit status.",
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			program, err := lookPath(given[0])
			if err != nil {
				return cannotRun(given[0], err)
			}
			d, err := a.openDoor(cmd.Context())
			if err != nil {
				return err
			}
			return replace(program, given, environment(os.Environ(), d.variables()))
		},
	}
	cmd.Flags().SetInterspersed(false)
	return exits(cmd, exitNotRunning, exitUnavailable, exitKeychain, exitNotRunnable, exitNoProgram)
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
		if name != set[0].name && name != set[1].name {
			all = append(all, entry)
		}
	}
	for _, v := range set {
		all = append(all, v.name+"="+v.value)
	}
	return all
}
