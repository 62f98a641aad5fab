package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"companion/adapters/config"
	"companion/adapters/door/controlsock"
	"companion/adapters/runtime/store"
	"companion/messages"
	"companion/supervisor"
)

func (a *app) removeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "remove NAME", Short: "Take a model or a runtime out of your own catalogue",
		Long: "Take a model or a runtime that you added out of your own catalogue. If it is served, serving ends. Its files in the data\n" +
			"folder are removed; the file that you added stays where it is.",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeOwn,
		RunE: func(cmd *cobra.Command, given []string) error {
			s, places, err := a.load()
			if err != nil {
				return err
			}
			if err := supervisor.OwnCatalogue(s, places).Remove(cmd.Context(), given[0]); err != nil {
				return err
			}
			if err := a.forget(cmd.Context(), s, places); err != nil {
				return err
			}
			return print(a.out, "Removed "+oneLine(given[0])+".\n")
		},
	}
	return exits(cmd)
}

// forget tells the daemon, which ends what is served from the removed artifact and deletes its files. Where no daemon runs
// and no hub could name the files too, they are deleted here.
func (a *app) forget(ctx context.Context, s config.Settings, places config.Places) error {
	reason, err := controlsock.Dial(places.ControlSocket).Reload(ctx)
	switch {
	case err == nil:
		return refused("reading your catalogue", reason)
	case !errors.Is(err, controlsock.ErrNotRunning):
		a.say("The daemon does not know it yet: %v", err)
		return nil
	case s.Hub.Configured():
		a.say("The daemon removes the files after its next start.")
		return nil
	}
	unlock, err := lockDaemon(places)
	if err != nil {
		return nil //nolint:nilerr // a daemon has just started, and has read the new catalogue
	}
	defer unlock()
	own, err := supervisor.OwnCatalogue(s, places).Load()
	if err != nil {
		return err
	}
	kept, err := store.Open(places.Data)
	if err != nil {
		return err
	}
	keep := map[[32]byte]bool{}
	for _, digest := range own.FileDigests() {
		keep[digest] = true
	}
	_, err = kept.Prune(keep, time.Now(), false)
	return err
}

// completeOwn offers the names of the user's own catalogue.
func (a *app) completeOwn(_ *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, places, err := a.load()
	if len(given) > 0 || err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	own, err := supervisor.OwnCatalogue(s, places).Load()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, kind := range []messages.ArtifactKind{messages.KindModel, messages.KindRuntime} {
		for _, artifact := range own.All(kind) {
			names = append(names, artifact.Name+"\t"+string(kind)+", "+bytesText(artifact.Size))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
