package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"companion/adapters/door/controlsock"
	"companion/messages"
)

func (a *app) startCommand() *cobra.Command {
	return a.runtimeCommand("start", "Start the runtime, and end a hold after crashes", "starting the runtime",
		"The runtime is starting; `companion status --watch` shows when it is ready.", (*controlsock.Client).Start)
}

func (a *app) stopCommand() *cobra.Command {
	return a.runtimeCommand("stop", "Let running requests finish and stop the runtime, not the daemon", "stopping the runtime",
		"The runtime is stopped.", (*controlsock.Client).Stop)
}

func (a *app) restartCommand() *cobra.Command {
	return a.runtimeCommand("restart", "Stop the runtime in order and start it again", "restarting the runtime",
		"The runtime is starting again.", (*controlsock.Client).Restart)
}

func (a *app) runtimeCommand(use, short, doing, done string, do func(*controlsock.Client, context.Context) (messages.Reason, error)) *cobra.Command {
	var wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.control()
			if err != nil {
				return err
			}
			reason, err := do(client, cmd.Context())
			if err != nil {
				return err
			}
			if reason == messages.ReasonNotReady {
				return notYet(cmd.Context(), client, doing)
			}
			if err := refused(doing, reason); err != nil {
				return err
			}
			if wait {
				status, err := awaitAvailable(cmd.Context(), client, timeout)
				if err != nil {
					return err
				}
				a.say("Available at %s.", status.FrontDoor.BaseURL)
				return nil
			}
			a.say("%s", done)
			return nil
		},
	}
	if use != "stop" {
		cmd.Flags().BoolVar(&wait, "wait", false, "wait until local inference is available")
		cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "with --wait: give up after this `DURATION`; 0: never")
	}
	return exits(cmd, exitNotRunning, exitSignIn, exitUnavailable, exitIntegrity)
}

// notYet is the failure of a command that the daemon took while there is nothing to run yet: what is missing may be on
// its way, and then the runtime starts by itself.
func notYet(ctx context.Context, client *controlsock.Client, doing string) error {
	f := &failure{code: string(messages.ReasonNotReady), message: doing + ": " + explain(messages.ReasonNotReady), exit: exitUnavailable}
	if status, err := client.Status(ctx); err == nil {
		f.hint = "next: " + next(status)
		if len(status.Transfers) > 0 {
			f.hint = "it starts by itself when the transfer is verified: `companion status --watch`"
		}
	}
	return f
}
