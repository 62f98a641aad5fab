package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"companion/messages"
)

func (a *app) pruneCommand() *cobra.Command {
	dryRun := false
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove old versions and abandoned downloads that nothing uses",
		Long: "Remove versions of models and runtimes that the manifest no longer offers and that nothing uses, and partial\n" +
			"downloads that were not touched for two weeks. What runs, is wanted, or became ready last always stays.\n" +
			"The daemon does the same after each refresh of the manifest.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.control()
			if err != nil {
				return err
			}
			result, err := client.Prune(cmd.Context(), dryRun)
			if err != nil {
				return err
			}
			if err := refused("removing what nothing uses", result.Reason); err != nil {
				return err
			}
			if a.json {
				if result.Items == nil {
					result.Items = []messages.PrunedItem{}
				}
				return a.printJSON(map[string]any{"items": result.Items, "dryRun": dryRun})
			}
			return print(a.out, pruneTable(result.Items, dryRun))
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only list what would be removed")
	a.jsonFlag(cmd)
	return exits(cmd, exitNotRunning, exitSignIn, exitIntegrity, exitKeychain)
}

func pruneTable(items []messages.PrunedItem, dryRun bool) string {
	if len(items) == 0 {
		return "Nothing to remove.\n"
	}
	var b strings.Builder
	var total int64
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "KIND\tSIZE\tLAST CHANGED")
	for _, item := range items {
		total += item.Bytes
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", oneLine(item.Kind), bytesText(item.Bytes), item.Modified.Local().Format(time.DateOnly))
	}
	_ = w.Flush() // into memory
	verb := "Removed"
	if dryRun {
		verb = "Would remove"
	}
	return b.String() + fmt.Sprintf("%s %s.\n", verb, bytesText(total))
}
