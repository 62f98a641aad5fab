package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// unknownCommand accepts no argument, and takes one for a command that does not exist.
func unknownCommand(cmd *cobra.Command, given []string) error {
	if len(given) == 0 {
		return nil
	}
	hint := "`" + cmd.CommandPath() + " --help` lists the commands"
	if near := nearCommand(cmd, given[0]); near != "" {
		hint = "did you mean `" + near + "`?"
	}
	name := strings.TrimSpace(strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()) + " " + given[0])
	return usageFailure(fmt.Sprintf("there is no command %q", oneLine(name)), hint)
}

// elsewhere are words that other programs use, and the commands for them.
var elsewhere = map[string]string{
	"install": "service install", "uninstall": "service uninstall", "daemon": "run", "serve": "run", "ask": "chat", "ps": "status",
	"list": "models", "ls": "models", "download": "pull", "fetch": "pull", "rm": "remove", "delete": "remove", "import": "add",
	"signin": "login", "signout": "logout", "check": "doctor", "diagnose": "doctor", "settings": "config", "tokens": "token list",
	"log": "logs", "update": "service install", "upgrade": "service install", "load": "use", "switch": "use",
}

// nearCommand is the command that a wrong name most likely stands for; empty where none is near.
func nearCommand(cmd *cobra.Command, name string) string {
	if at := elsewhere[strings.ToLower(name)]; at != "" && !cmd.HasParent() {
		return cmd.Name() + " " + at
	}
	best, bestAt := "", 3
	for _, child := range cmd.Commands() {
		far := typed(strings.ToLower(name), child.Name())
		if len(name) > 2 && strings.HasPrefix(child.Name(), strings.ToLower(name)) {
			far = 0
		}
		if child.IsAvailableCommand() && far < bestAt && far < len(name) {
			best, bestAt = cmd.CommandPath()+" "+child.Name(), far
		}
	}
	return best
}

// typed is how many slips of the hand lie between two names: an exchange of two neighbours is one.
func typed(name, other string) int {
	least := levenshtein.Distance(name, other, nil)
	for i := range len(name) - 1 {
		swapped := name[:i] + name[i+1:i+2] + name[i:i+1] + name[i+2:]
		least = min(least, 1+levenshtein.Distance(swapped, other, nil))
	}
	return least
}

// helpCommand is cobra's, but an unknown topic is an error.
func helpCommand() *cobra.Command {
	return exits(&cobra.Command{
		Use: "help [COMMAND]", Short: "Show the help of a command",
		ValidArgsFunction: func(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
			parent, _, err := cmd.Root().Find(given)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, child := range parent.Commands() {
				if child.IsAvailableCommand() {
					names = append(names, child.Name()+"\t"+child.Short)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, given []string) error {
			at := cmd.Root()
			for i, name := range given {
				next := childNamed(at, name)
				if next == nil {
					return unknownCommand(at, given[i:])
				}
				at = next
			}
			return at.Help()
		},
	})
}

func childNamed(parent *cobra.Command, name string) *cobra.Command {
	for _, child := range parent.Commands() {
		if child.Name() == name || child.HasAlias(name) {
			return child
		}
	}
	return nil
}

// args refuses a wrong number of arguments in words.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		err := check(cmd, given)
		if err == nil {
			return nil
		}
		message := err.Error()
		if wants, ok := wanted(cmd); ok {
			message = fmt.Sprintf("`%s` takes %s; you gave %s", cmd.CommandPath(), wants, counted(len(given)))
		}
		return usageFailure(oneLine(message), "see `"+cmd.CommandPath()+" --help`")
	}
}

// wanted reads from the use line how many arguments a command takes.
func wanted(cmd *cobra.Command) (string, bool) {
	switch _, rest, _ := strings.Cut(cmd.Use, " "); {
	case rest == "":
		return "no argument", true
	case strings.Contains(rest, "..."):
		return "", false
	case strings.HasPrefix(rest, "["):
		return "one " + strings.ToLower(strings.Trim(rest, "[]")) + " at most", true
	default:
		return "one " + strings.ToLower(rest), true
	}
}

func counted(n int) string {
	if n < 4 {
		return []string{"none", "one", "two", "three"}[n]
	}
	return fmt.Sprint(n)
}

// flagProblem says in words what is wrong with a flag. The library's own text quotes strconv.
func flagProblem(cmd *cobra.Command, err error) string {
	var invalid *pflag.InvalidValueError
	var missing *pflag.ValueRequiredError
	var unknown *pflag.NotExistError
	switch {
	case errors.As(err, &unknown) && len(unknown.GetSpecifiedName()) > 1:
		text := "there is no flag --" + plain(unknown.GetSpecifiedName())
		if near := nearFlag(cmd, unknown.GetSpecifiedName()); near != "" {
			text += "; did you mean --" + near + "?"
		}
		return oneLine(text)
	case errors.As(err, &invalid):
		kind := map[string]string{"int": "a whole number", "int64": "a whole number", "uint": "a whole number", "float64": "a number",
			"bool": "true or false", "duration": "a duration such as 30s"}[invalid.GetFlag().Value.Type()]
		if kind != "" {
			return fmt.Sprintf("--%s must be %s; %q is not", invalid.GetFlag().Name, kind, plain(invalid.GetValue()))
		}
	case errors.As(err, &missing):
		return "--" + missing.GetSpecifiedName() + " needs a value"
	}
	return oneLine(err.Error())
}

// nearFlag is the flag of cmd whose name is most like name; empty where none is.
func nearFlag(cmd *cobra.Command, name string) string {
	best, bestAt := "", 3
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		far := typed(name, f.Name)
		if !f.Hidden && far < bestAt {
			best, bestAt = f.Name, far
		}
	})
	return best
}
