package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version",
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			platform := runtime.GOOS + "/" + runtime.GOARCH
			if a.json {
				return a.printJSON(map[string]string{"version": version, "revision": revision(), "go": runtime.Version(), "platform": platform})
			}
			return print(a.out, fmt.Sprintf("companion %s (%s, %s)\n", version, runtime.Version(), platform))
		},
	}
	a.jsonFlag(cmd)
	return exits(cmd)
}

func completionCommand() *cobra.Command {
	return exits(&cobra.Command{
		Use: "completion SHELL", Short: "Print completions for bash, zsh, fish or powershell",
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		Args:      args(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		RunE: func(cmd *cobra.Command, given []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch given[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			}
			return root.GenPowerShellCompletionWithDesc(out)
		},
	})
}
