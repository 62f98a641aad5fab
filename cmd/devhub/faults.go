package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"companion/cmd/devhub/catalogue"
	"companion/cmd/devhub/fault"
	"companion/cmd/devhub/place"
)

func faultsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "faults",
		Short: "List the faults that the hub can play",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, f := range fault.All {
				if _, err := fmt.Fprintf(c.OutOrStdout(), "%-28s %s\n", f.Name, f.Help); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func faultCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:       "fault --dir DIR NAME on|off",
		Short:     "Switch a fault of a hub that is serving",
		Args:      cobra.ExactArgs(2),
		ValidArgs: []string{"on", "off"},
		RunE: func(_ *cobra.Command, args []string) error {
			names, err := fault.Parse(args[:1])
			if err != nil {
				return err
			}
			if args[1] != "on" && args[1] != "off" {
				return fmt.Errorf("unknown position %q: accepted are on and off", args[1])
			}
			p, err := place.OpenExisting(dir)
			if err != nil {
				return err
			}
			if err := fault.Switch(p.Path("faults"), names[0], args[1] == "on"); err != nil {
				return err
			}
			// A client reads only a version that it does not have.
			c, err := catalogue.Open(p)
			if err != nil {
				return err
			}
			return c.Sign()
		},
	}
	dirFlag(c, &dir)
	return c
}
