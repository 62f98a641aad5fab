package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func (a *app) manCommand() *cobra.Command {
	return exits(&cobra.Command{
		Use: "man FOLDER", Short: "Write a man page for each command into a folder",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := os.MkdirAll(given[0], 0o755); err != nil {
				return fmt.Errorf("making the folder of the man pages: %w", err)
			}
			written := 0
			var write func(*cobra.Command) error
			write = func(cmd *cobra.Command) error {
				name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
				if err := os.WriteFile(filepath.Join(given[0], name), []byte(manPage(cmd)), 0o644); err != nil {
					return fmt.Errorf("writing a man page: %w", err)
				}
				written++
				for _, child := range cmd.Commands() {
					if err := write(child); err != nil {
						return err
					}
				}
				return nil
			}
			if err := write(cmd.Root()); err != nil {
				return err
			}
			a.say("%d man pages are in %s.", written, oneLine(given[0]))
			return nil
		},
	})
}

// manPage is the man page (man-pages(7)) of one command. It has what the help has, and no date, so that the pages of one
// version are always the same.
func manPage(cmd *cobra.Command) string {
	var b strings.Builder
	title := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
	fmt.Fprintf(&b, ".TH %s 1 \"\" \"%s\"\n", roff(strings.ToUpper(title)), roff("companion "+version))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(title), roff(cmd.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff(cmd.UseLine()))
	fmt.Fprintf(&b, ".SH DESCRIPTION\n.nf\n%s\n.fi\n", roff(strings.TrimSpace(cmd.Long)))
	flagList(&b, "OPTIONS", cmd.NonInheritedFlags())
	flagList(&b, "GLOBAL OPTIONS", cmd.InheritedFlags())
	if text := example(cmd); text != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff(text))
	}
	var near []string
	if cmd.HasParent() {
		near = append(near, strings.ReplaceAll(cmd.Parent().CommandPath(), " ", "-"))
	}
	for _, child := range cmd.Commands() {
		near = append(near, strings.ReplaceAll(child.CommandPath(), " ", "-"))
	}
	if len(near) > 0 {
		fmt.Fprintf(&b, ".SH SEE ALSO\n.BR %s (1)\n", strings.Join(quotedRoff(near), " (1),\n.BR "))
	}
	return b.String()
}

func flagList(b *strings.Builder, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(b, ".SH %s\n", title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if value != "" {
			name += " " + value
		}
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(name), roff(usage))
	})
}

func quotedRoff(names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = roff(name)
	}
	return out
}

// roff escapes text: a backslash begins an escape, a hyphen would become a typographic one, and a dot or an apostrophe at
// the begin of a line is a request.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
