package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"companion/adapters/config"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Write, check and show the configuration",
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	show := exits(&cobra.Command{
		Use: "show", Short: "Print the effective values and where each came from",
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, values, _, err := a.loadValues()
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(values)
			}
			return print(a.out, valueTable(values))
		},
	})
	check := exits(&cobra.Command{
		Use: "check", Short: "Check the configuration",
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error { return a.configCheck() },
	})
	path := exits(&cobra.Command{
		Use: "path", Short: "Print where the configuration file is",
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			path, err := a.configPath()
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]string{"path": path})
			}
			return print(a.out, path+"\n")
		},
	})
	for _, reading := range []*cobra.Command{show, check, path} {
		a.jsonFlag(reading)
	}
	cmd.AddCommand(
		exits(&cobra.Command{
			Use: "init", Short: "Write a commented file with every key; an existing one is not touched",
			Args: args(cobra.NoArgs),
			RunE: func(*cobra.Command, []string) error { return a.configInit() },
		}),
		check, show, path,
	)
	return cmd
}

// configCheck refuses what run refuses. A root that is not named yet is no bad value; run starts without one and says
// what is missing.
func (a *app) configCheck() error {
	s, values, places, err := a.loadValues()
	if err != nil {
		return err
	}
	if err := checkFiles(s, values); err != nil {
		return err
	}
	_, err = os.Stat(places.Config)
	exists := err == nil
	if a.json {
		return a.printJSON(map[string]any{"path": places.Config, "exists": exists, "ok": true})
	}
	for _, name := range config.Unknown(os.Environ()) {
		a.say("%s sets no key and is ignored", oneLine(name))
	}
	if missing := notConfigured(s); missing != "" {
		a.say("%s", missing)
	}
	if !exists {
		return print(a.out, "there is no "+places.Config+"; defaults, environment and flags are ok. `companion config init` writes it.\n")
	}
	return print(a.out, places.Config+": ok\n")
}

func (a *app) configPath() (string, error) {
	if a.config != "" {
		return a.config, nil
	}
	places, err := config.Locate()
	if err != nil {
		return "", configFailure(err)
	}
	return places.Config, nil
}

func (a *app) configInit() error {
	path, err := a.configPath()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("making the configuration's folder: %w", err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return &failure{code: "exists", message: path + " is already there", exit: exitFailed,
			hint: "edit it, or move it away first"}
	}
	if err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	_, err = file.WriteString(config.Template())
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	return print(a.out, path+"\n")
}

func valueTable(values []config.Value) string {
	var b strings.Builder
	for _, v := range values {
		where := string(v.Source)
		if v.Where != "" {
			where += " " + v.Where
		}
		fmt.Fprintf(&b, "%-52s # %s\n", v.Key+" = "+config.Literal(v.Value), where)
	}
	return b.String()
}
