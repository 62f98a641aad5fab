// Command devhub is a first-party hub on loopback, for development, demonstrations and tests: sign-in,
// signed manifest and artifacts, with a private certificate authority, and faults on demand. It is not
// for production.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "devhub:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "devhub",
		Short:         "A development hub on loopback. Not for production",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(serveCommand(), publishCommand(), configCommand(), faultsCommand(), faultCommand())
	return root
}

// dirFlag adds --dir, which every command but faults needs.
func dirFlag(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "dir", "", "the hub's directory")
	if err := c.MarkFlagRequired("dir"); err != nil {
		panic(err) // the flag was added one line above
	}
}
