package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"companion/cmd/devhub/catalogue"
	"companion/cmd/devhub/place"
)

func configCommand() *cobra.Command {
	var dir, keychain, service, output string
	c := &cobra.Command{
		Use:   "config --dir DIR",
		Short: "Print the companion configuration that fits this hub",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := place.OpenExisting(dir)
			if err != nil {
				return err
			}
			if _, err := catalogue.Open(p); err != nil { // makes the root that the configuration names
				return err
			}
			text := fmt.Sprintf(`[hub]
url = %q
ca_file = %q
[manifest]
root_file = %q
private_hosts = [%q]
[keychain]
backend = %q
service = %q
`, p.HubURL(), p.CAFile(), p.RootFile(), place.ArtifactHost, keychain, service)
			if output != "" {
				return writeNew(output, text)
			}
			_, err = fmt.Fprint(c.OutOrStdout(), text)
			return err
		},
	}
	dirFlag(c, &dir)
	c.Flags().StringVar(&output, "output", "", "write a new `FILE`, and its folder, instead of standard output")
	c.Flags().StringVar(&keychain, "keychain", "auto", "the keychain back end")
	c.Flags().StringVar(&service, "service", "companion", "the keychain's service name")
	return c
}

// writeNew writes a file that does not exist yet, and creates its folder.
func writeNew(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("making the configuration's folder: %w", err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}
