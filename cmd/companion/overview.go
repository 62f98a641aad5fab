package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"companion/adapters/door/controlsock"
)

// overview is what `companion` alone says: what it is, what state it is in, and the next command.
func (a *app) overview(cmd *cobra.Command) error {
	state, step := "", ""
	_, places, err := a.load()
	switch {
	case err != nil:
		state, step = "the configuration has errors", "companion config check"
	default:
		status, err := controlsock.Dial(places.ControlSocket).Status(cmd.Context())
		switch _, statErr := os.Stat(places.Config); {
		case err == nil:
			state, step = headline(status, colour(a.out)), next(status)
		case errors.Is(err, controlsock.ErrNotRunning) && errors.Is(statErr, fs.ErrNotExist):
			state, step = "not running, not configured", "companion config init   then   companion run"
		case errors.Is(err, controlsock.ErrNotRunning):
			state, step = "not running", "companion run"
		default:
			state, step = described(err).message, described(err).hint
		}
	}
	return print(a.out, fmt.Sprintf("companion %s: %s.\n\nstate  %s\nnext:  %s\n\n`companion help` lists the commands.\n",
		version, cmd.Short, state, step))
}
