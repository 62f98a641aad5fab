package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"companion/adapters/completion/lane"
	"companion/adapters/config"
	"companion/messages"
)

// completeWithin bounds what a press of the tab key may wait for.
const completeWithin = time.Second

// completeModels offers the names of the manifest, where the daemon answers.
func (a *app) completeModels(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	client, err := a.control()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), completeWithin)
	defer cancel()
	list, err := client.Models(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, model := range list.Models {
		names = append(names, oneLine(model.Name)+"\t"+bytesText(model.Size))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// fixed offers a list that is known without the daemon.
func fixed(names ...string) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFlags gives the values of flags to the shells.
func completeFlags(root *cobra.Command) {
	actors := []string{"authority", "door", "runtime"}
	for _, actor := range []messages.Actor{
		messages.ActorLifecycle, messages.ActorJournal, messages.ActorCustody, messages.ActorSession, messages.ActorManifest,
		messages.ActorFrontDoor, messages.ActorHealth, messages.ActorControl, messages.ActorProvision, messages.ActorProcess,
		messages.ActorResources,
	} {
		actors = append(actors, string(actor))
	}
	var lanes []string
	for _, l := range lane.All {
		if l != lane.Disabled {
			lanes = append(lanes, string(l))
		}
	}
	for _, at := range []struct {
		command, flag string
		names         []string
	}{
		{"logs", "actor", actors},
		{"logs", "level", []string{"debug", "info", "warn", "error"}},
		{"logs", "since", []string{"10m", "1h", "24h"}},
		{"enrich", "lane", lanes},
		{"chat", "lane", lanes},
		{"env", "shell", []string{"sh", "bash", "zsh", "fish", "powershell", "json"}},
		{"metrics", "format", []string{"openmetrics", "prometheus"}},
	} {
		if cmd, _, err := root.Find([]string{at.command}); err == nil {
			_ = cmd.RegisterFlagCompletionFunc(at.flag, fixed(at.names...)) // a test proves that each is there
		}
	}
	_ = root.RegisterFlagCompletionFunc("set", func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		if strings.Contains(typed, "=") {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var keys []string
		for _, key := range config.Keys() {
			keys = append(keys, key+"=")
		}
		return keys, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	})
}
