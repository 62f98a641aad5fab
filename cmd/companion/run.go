package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"

	"companion/actors/logfile"
	"companion/adapters/authority/keychain"
	"companion/adapters/authority/transport"
	"companion/adapters/authority/tuf"
	"companion/adapters/config"
	"companion/adapters/door/controlsock"
	"companion/adapters/door/loopback"
	"companion/adapters/privatefs"
	"companion/messages"
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
			if err := checkFiles(s, values); err != nil {
				return err
			}
			for _, name := range config.Unknown(os.Environ()) {
				a.say("warning: the environment variable %s sets no key and is ignored", oneLine(name))
			}
			unlock, err := lockDaemon(places)
			if err != nil {
				return err
			}
			defer unlock()
			if err := checkPort(cmd.Context(), s); err != nil {
				return err
			}
			// A closed terminal or pipe fails a write; it must not end the daemon. Notify, not Ignore, which children
			// would inherit.
			signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
			log, err := a.openJournal(s, places)
			if err != nil {
				return err
			}
			if isTerminal(a.err) {
				ctx, cancel := context.WithCancel(cmd.Context())
				var greeting sync.WaitGroup
				greeting.Go(func() { a.greet(ctx, s, places) })
				defer greeting.Wait()
				defer cancel()
			}
			err = supervisor.Run(cmd.Context(), supervisor.Options{
				Settings: s, Places: places, Version: version, Logger: log.Logger(), Journal: log, OnReady: a.ready,
			})
			return daemonFailure(errors.Join(err, log.Flush()))
		},
	}, exitUnavailable, exitIntegrity, exitKeychain, exitRunning)
}

// notConfigured says what the daemon lacks to fetch from its hub; empty where nothing is missing, or no hub is configured.
func notConfigured(s config.Settings) string {
	if !s.Hub.Configured() || s.Manifest.RootFile != "" {
		return ""
	}
	return "manifest.root_file is not set"
}

// checkFiles refuses, as wrong configuration, files and back ends that cannot be used (X5): otherwise the daemon
// would end later, with a status for which a service manager retries forever.
func checkFiles(s config.Settings, values []config.Value) error {
	named := map[string]func() error{}
	if s.Hub.CAFile != "" {
		named["hub.ca_file"] = func() error { _, err := transport.Roots(s.Hub.CAFile); return err }
	}
	if s.Manifest.RootFile != "" {
		named["manifest.root_file"] = func() error { _, err := tuf.ReadRoot(s.Manifest.RootFile); return err }
	}
	named["keychain.backend"] = func() error {
		if _, err := keychain.Open(keychain.Options{Backend: s.Keychain.Backend, Service: s.Keychain.Service}); err != nil {
			return fmt.Errorf("%q is not available on %s", s.Keychain.Backend, runtime.GOOS)
		}
		return nil
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

// accepted is what the values must be.
var accepted = map[string]string{
	"keychain.backend":   `"auto", or a back end of this system`,
	"hub.ca_file":        "the absolute path of a file that you can read, with at least one certificate in PEM format",
	"manifest.root_file": "the absolute path of a file that you can read, the root.json of a TUF repository",
}

// lockPatience is how long a starting daemon waits for its lock: a command may look at it for a moment, see noDaemon.
const lockPatience = 100 * time.Millisecond

// lockDaemon refuses a second daemon of this user (X1): one with the same state folder, and one with the same run-time
// folder, whose sockets and endpoint file the two would take from each other.
func lockDaemon(places config.Places) (unlock func(), err error) {
	unlock = func() {}
	for _, at := range []struct{ file, message, hint string }{
		{places.Lock, "another companion already runs for this user", ""},
		{filepath.Join(places.Runtime, "lock"), "another companion already uses the run-time folder " + places.Runtime,
			"stop that one, or give this one a folder of its own with XDG_RUNTIME_DIR"},
	} {
		if err := privatefs.EnsureDir(filepath.Dir(at.file)); err != nil {
			unlock()
			return nil, err
		}
		lock := flock.New(at.file, flock.SetPermissions(0o600))
		waiting, cancel := context.WithTimeout(context.Background(), lockPatience)
		locked, err := lock.TryLockContext(waiting, lockPatience/4)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			unlock()
			return nil, fmt.Errorf("taking the daemon's lock: %w", err)
		}
		if !locked {
			unlock()
			return nil, &failure{code: "already_running", message: at.message, hint: at.hint, exit: exitRunning}
		}
		before := unlock
		unlock = func() {
			_ = lock.Unlock()
			before()
		}
	}
	return unlock, nil
}

// noDaemon returns nil if no daemon of this user runs, and an error if one runs without its control socket.
func noDaemon(places config.Places) error {
	if _, err := os.Lstat(places.Lock); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock := flock.New(places.Lock, flock.SetPermissions(0o600))
	locked, err := lock.TryRLock() // shared, so that two commands do not take each other for a daemon
	if err == nil && locked {
		return lock.Unlock()
	}
	return &failure{code: "not_answering", message: "a daemon runs, but its control socket is gone", hint: "restart the daemon", exit: exitUnavailable, err: err}
}

// checkPort refuses to start with a fixed port that another program has (L14). The daemon would go on without an
// endpoint, while clients send their tokens and prompts to that program.
func checkPort(ctx context.Context, s config.Settings) error {
	if s.FrontDoor.Port == 0 {
		return nil
	}
	l, _, err := loopback.ListenAt(ctx, s.FrontDoor.Address, uint16(s.FrontDoor.Port))
	if err != nil {
		return &failure{code: "port_taken", message: "front_door.port: " + err.Error(), exit: exitFailed, err: err,
			hint: "stop that program, or set another front_door.port; a program there can read what your clients send: revoke their tokens if they have used the port meanwhile"}
	}
	return l.Close()
}

// greetWithin is how long the daemon may take to know its session before its first words say what they know.
const greetWithin = 3 * time.Second

// greet says on a terminal where the daemon runs and what to do next, once, when local inference is not available at
// the start. It asks the daemon by its own socket, so that the words are those of status.
func (a *app) greet(ctx context.Context, s config.Settings, places config.Places) {
	client, until := controlsock.Dial(places.ControlSocket), time.Now().Add(greetWithin)
	for {
		status, err := client.Status(ctx)
		known := err == nil && status.FrontDoor.BaseURL != "" && status.Session.State != messages.SessionUnknown
		switch {
		case err == nil && status.CompanionAvailable, ctx.Err() != nil:
			return
		case known, err == nil && time.Now().After(until):
			a.say("\nRunning at %s\n  %s\n  next, in another terminal: %s\n", status.FrontDoor.BaseURL, headline(status, colour(a.err)), nextConfigured(s, status))
			return
		case time.Now().After(until):
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
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

// ready says once how to use the endpoint.
func (a *app) ready(baseURL string) {
	// The daemon continues if standard output is closed.
	_ = print(a.out, fmt.Sprintf(`
Local inference is available at %s

  companion chat "Hello"          ask from another terminal
  companion exec -- CMD           run a program with address and token set
  eval "$(companion env)"         set both in another shell

`, baseURL))
}

// daemonFailure maps the reason with which the daemon ended to an exit status.
func daemonFailure(err error) error {
	var ended *supervisor.Error
	if errors.As(err, &ended) {
		return &failure{code: string(ended.Reason), message: err.Error(), exit: exitOf(ended.Reason), err: err}
	}
	return err
}
