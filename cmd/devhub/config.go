package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"companion/cmd/devhub/catalogue"
	"companion/cmd/devhub/place"
)

func configCommand() *cobra.Command {
	var dir, keychain, service string
	c := &cobra.Command{
		Use:   "config --dir DIR",
		Short: "Print the companion configuration that fits this hub",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := place.Open(dir)
			if err != nil {
				return err
			}
			if _, err := catalogue.Open(p); err != nil { // makes the root that the configuration names
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), `[hub]
url = %q
ca_file = %q
[manifest]
root_file = %q
private_hosts = [%q]
[keychain]
backend = %q
service = %q
`, p.HubURL(), p.CAFile(), p.RootFile(), place.ArtifactHost, keychain, service)
			return err
		},
	}
	dirFlag(c, &dir)
	c.Flags().StringVar(&keychain, "keychain", "auto", "the keychain back end")
	c.Flags().StringVar(&service, "service", "companion", "the keychain's service name")
	return c
}
