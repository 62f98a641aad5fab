package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"companion/adapters/config"
	"companion/adapters/door/controlsock"
)

// firstStep is the next command where nothing is configured. What was added needs no configuration.
func firstStep(places config.Places) string {
	if entries, err := os.ReadDir(filepath.Join(places.Trust, "own")); err == nil && len(entries) > 0 {
		return "companion run"
	}
	return "companion add FILE       a model of your own, without a hub\n" +
		"       companion config init    to name your hub"
}

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
			state, step = "not running, no configuration", firstStep(places)
		case errors.Is(err, controlsock.ErrNotRunning):
			state, step = "not running", "companion run"
		default:
			state, step = described(err).message, described(err).hint
		}
	}
	return print(a.out, fmt.Sprintf("companion %s: %s.\n\nstate  %s\nnext:  %s\n\n`companion help` lists the commands.\n",
		version, cmd.Short, state, step))
}
