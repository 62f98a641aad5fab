package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"companion/adapters/door/controlsock"
	"companion/messages"
)

func (a *app) useCommand() *cobra.Command {
	back := false
	cmd := &cobra.Command{
		Use: "use NAME", Short: "Serve another model, now and at the next starts",
		Long: "Serve another model without a restart of the daemon. The model is fetched and verified first, while the present one\n" +
			"serves. Then running requests end, and the new model starts, while new requests wait; if it does not become ready,\n" +
			"the one before it comes back. The choice is kept until the next `use`, or until model.name changes in the configuration.",
		Args: func(cmd *cobra.Command, given []string) error {
			if back {
				return args(cobra.NoArgs)(cmd, given)
			}
			return args(cobra.ExactArgs(1))(cmd, given)
		},
		ValidArgsFunction: a.completeModels,
		RunE: func(cmd *cobra.Command, given []string) error {
			client, err := a.control()
			if err != nil {
				return err
			}
			name, what := "", "the configured model"
			if !back {
				name, what = given[0], given[0]
			}
			last := a.showTransfers(cmd.Context(), client)
			reason, err := client.Use(cmd.Context(), name)
			transfers := last()
			if errors.Is(err, context.Canceled) {
				if len(transfers) > 0 {
					a.sayGoesOn(transfers)
				}
				a.say("The switch goes on in the daemon; `companion status` shows which model serves.")
			}
			if err != nil {
				return err
			}
			if reason != messages.ReasonOK {
				return a.useFailure(cmd.Context(), client, name, what, reason)
			}
			return a.sayUsed(cmd.Context(), client)
		},
	}
	cmd.Flags().BoolVar(&back, "default", false, "return to the configured model, or the manifest's default")
	return exits(cmd, exitNotRunning, exitSignIn, exitUnavailable, exitIntegrity, exitKeychain)
}

// sayUsed says which model serves now, or that the runtime is stopped.
func (a *app) sayUsed(ctx context.Context, client *controlsock.Client) error {
	status, err := client.Status(ctx)
	if err != nil {
		return err
	}
	if status.Lifecycle == messages.StateReady {
		a.say("Serving %s.", oneLine(named(status.Model.Name, status.Model.Version)))
		return nil
	}
	a.say("Chosen. The runtime is stopped; `companion start` starts it.")
	return nil
}

// useFailure says why the model is not served, and which one is.
func (a *app) useFailure(ctx context.Context, client *controlsock.Client, name, what string, reason messages.Reason) error {
	f := a.pullFailure(ctx, client, name, what, reason)
	own := (*failure)(nil)
	if !errors.As(f, &own) {
		return f
	}
	own.message = "switching to " + oneLine(what) + ": " + explain(reason)
	if reason == messages.ReasonNoSuchTarget && name != "" {
		if list, err := client.Models(ctx); err == nil {
			if near := nearest(name, list.Models); near != "" {
				own.hint = "did you mean `companion use " + near + "`? `companion models` lists the names"
			}
		}
		return own
	}
	if status, err := client.Status(ctx); err == nil && status.Model.Name != "" && status.Model.Verified {
		own.message += ". " + oneLine(named(status.Model.Name, status.Model.Version)) + " stays in use"
	}
	return own
}
