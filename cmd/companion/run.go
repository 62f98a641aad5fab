package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/gofrs/flock"
	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"

	"companion/actors/logfile"
	"companion/adapters/authority/transport"
	"companion/adapters/authority/tuf"
	"companion/adapters/config"
	"companion/adapters/privatefs"
	"companion/supervisor"
)

func (a *app) runCommand() *cobra.Command {
	return exits(&cobra.Command{
		Use: "run", Short: "Run the daemon, in the foreground",
		Long: "Run the daemon, in the foreground. It logs readable lines to a terminal, JSON elsewhere, and says once on\n" +
			"standard output when local inference is available. The first interrupt drains and stops in order, the\n" +
			"second stops now.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, values, places, err := a.loadValues()
			if err != nil {
				return err
			}
			if s.Manifest.RootFile == "" {
				return &failure{code: "configuration", message: noRoot, exit: exitUsage,
					hint: "name the file of the TUF root that came with your hub"}
			}
			if err := checkFiles(s, values); err != nil {
				return err
			}
			unlock, err := lockDaemon(places)
			if err != nil {
				return err
			}
			defer unlock()
			// A terminal or pipe that went away fails a write; it must not end the daemon. Notify, not
			// Ignore, which children would inherit.
			signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
			log, err := a.openJournal(s, places)
			if err != nil {
				return err
			}
			err = supervisor.Run(cmd.Context(), supervisor.Options{
				Settings: s, Places: places, Version: version, Logger: log.Logger(), Journal: log, OnReady: a.ready,
			})
			return daemonFailure(errors.Join(err, log.Flush()))
		},
	}, exitUnavailable, exitIntegrity, exitKeychain, exitRunning)
}

// noRoot says what a build without a root of its own lacks.
const noRoot = "manifest.root_file is empty, and no root is built in"

// checkFiles refuses, as wrong configuration, files that are not what their keys say (X5): the daemon would
// only end later, with a status that has a service manager try again for ever.
func checkFiles(s config.Settings, values []config.Value) error {
	named := map[string]func() error{}
	if s.Hub.CAFile != "" {
		named["hub.ca_file"] = func() error { _, err := transport.Roots(s.Hub.CAFile); return err }
	}
	if s.Manifest.RootFile != "" {
		named["manifest.root_file"] = func() error { _, err := tuf.ReadRoot(s.Manifest.RootFile); return err }
	}
	var refused config.Error
	for _, value := range values {
		check := named[value.Key]
		if check == nil {
			continue
		}
		if err := check(); err != nil {
			refused.Problems = append(refused.Problems, config.Problem{Where: value.Where, Key: value.Key,
				Message: fmt.Sprintf("%v; accepted: %s", err, accepted[value.Key])})
		}
	}
	if refused.Problems == nil {
		return nil
	}
	return configFailure(&refused)
}

// accepted is what the files must hold.
var accepted = map[string]string{
	"hub.ca_file":        "the absolute path of a file that you can read, with at least one certificate in PEM format",
	"manifest.root_file": "the absolute path of a file that you can read, the root.json of a TUF repository",
}

// lockDaemon makes the daemon the only one of this user and these places (X1).
func lockDaemon(places config.Places) (unlock func(), err error) {
	if err := privatefs.EnsureDir(filepath.Dir(places.Lock)); err != nil {
		return nil, err
	}
	lock := flock.New(places.Lock, flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("taking the daemon's lock: %w", err)
	}
	if !locked {
		return nil, &failure{code: "already_running", message: "another companion already runs for this user", exit: exitRunning}
	}
	return func() { _ = lock.Unlock() }, nil
}

func (a *app) openJournal(s config.Settings, places config.Places) (*logfile.Journal, error) {
	level, err := zapcore.ParseLevel(s.Log.Level)
	if err != nil {
		return nil, fmt.Errorf("reading the log level: %w", err)
	}
	return logfile.Open(logfile.Options{
		File: places.Log, MaxSize: s.Log.MaxSize, Backups: s.Log.Backups, Level: level,
		Terminal: a.err, Readable: isTerminal(a.err), Colour: colour(a.err),
	})
}

// ready is the short block that says how to use what runs.
func (a *app) ready(baseURL string) {
	// A reader that went away is no reason to end.
	_ = print(a.out, fmt.Sprintf(`
Local inference is available at %s

  companion chat "Hello"          ask from another terminal
  companion exec -- CMD           run a program with OPENAI_BASE_URL and OPENAI_API_KEY
  eval "$(companion env)"         set both in this shell

`, baseURL))
}

// daemonFailure gives the reason with which the daemon ended its exit status.
func daemonFailure(err error) error {
	var ended *supervisor.Error
	if errors.As(err, &ended) {
		return &failure{code: string(ended.Reason), message: err.Error(), exit: exitOf(ended.Reason), err: err}
	}
	return err
}
