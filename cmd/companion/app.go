package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"companion/adapters/config"
	"companion/adapters/door/controlsock"
	"companion/adapters/lowlatency"
)

// version is set by the linker for a release.
var version = "0.1.0-dev"

// app holds what every command needs: standard streams, arguments and common flags.
type app struct {
	in       *os.File
	out, err *os.File
	args     []string
	config   string    // --config
	set      []string  // --set
	json     bool      // --json, where the command has it
	runs     bool      // the command runs another program, whose flags are not ours
	sayTo    io.Writer // takes the lines of say while a line editor owns the terminal; nil: standard error
}

// Main runs the command line and returns the exit status.
func Main() int {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, args: os.Args[1:]}
	root := a.root()
	root.SetArgs(a.args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	if cmd, _, err := root.Find(a.args); err == nil {
		a.runs = cmd.Name() == "exec"
	}
	ctx, stop := interruptible()
	defer stop()
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errInterrupted
	}
	return a.fail(err)
}

// restoreWithin bounds the wait for the terminal at a second interrupt.
const restoreWithin = 500 * time.Millisecond

// interruptible ends the context of every command at the first interrupt; the second one ends the
// process at once. The daemon has its own order of ending (X7).
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup sets it
		signal.Notify(signals, syscall.SIGHUP)
	}
	done := make(chan struct{})
	go func() {
		select {
		case <-signals:
			cancel()
		case <-done:
			return
		}
		select {
		case <-signals:
			// A stopped terminal (Ctrl-S) blocks what is written to it; it must not keep the process.
			restored := make(chan struct{})
			go func() {
				defer close(restored)
				restoreTerminal()
			}()
			select {
			case <-restored:
			case <-time.After(restoreWithin):
			}
			os.Exit(exitInterrupted)
		case <-done:
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel()
	}
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:               "companion",
		Short:             "A private language model for the programs of this machine",
		Args:              unknownCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return a.overview(cmd) },
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.PersistentFlags().StringVar(&a.config, "config", "", "another configuration `FILE`")
	root.PersistentFlags().StringArrayVar(&a.set, "set", nil, "set one `KEY=VALUE`, above file and environment")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageFailure(flagProblem(cmd, err), "see `"+cmd.CommandPath()+" --help`")
	})
	root.SetHelpCommand(helpCommand())
	root.AddCommand(
		a.runCommand(), a.statusCommand(), a.loginCommand(), a.logoutCommand(), a.whoamiCommand(),
		a.modelsCommand(), a.pullCommand(), a.useCommand(), a.addCommand(), a.removeCommand(), a.pruneCommand(), a.startCommand(), a.stopCommand(), a.restartCommand(),
		a.envCommand(), a.execCommand(), a.tokenCommand(), a.chatCommand(), a.enrichCommand(), a.laneCommand(),
		a.logsCommand(), a.metricsCommand(), a.doctorCommand(), a.serviceCommand(), a.configCommand(), a.versionCommand(), completionCommand(), a.manCommand(),
	)
	completeFlags(root)
	document(root)
	return root
}

// jsonFlag gives a reading command its --json.
func (a *app) jsonFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.json, "json", false, "print JSON, errors included")
}

// wantsJSON also sees the flag when the command line was refused before it was parsed.
func (a *app) wantsJSON() bool {
	before := a.args
	if at := slices.Index(before, "--"); at >= 0 {
		before = before[:at]
	}
	return a.json || !a.runs && slices.Contains(before, "--json")
}

// load reads configuration and places; every command except `config` and `version` begins with it.
func (a *app) load() (config.Settings, config.Places, error) {
	s, _, places, err := a.loadValues()
	return s, places, err
}

func (a *app) loadValues() (config.Settings, []config.Value, config.Places, error) {
	places, err := config.Locate()
	if err != nil {
		return config.Settings{}, nil, config.Places{}, configFailure(err)
	}
	if a.config != "" {
		places.Config = a.config
	}
	s, values, err := config.Load(config.Options{
		File: places.Config, Required: a.config != "", Environ: os.Environ(), Flags: a.set,
	})
	if err != nil {
		return config.Settings{}, nil, places, configFailure(err)
	}
	lowlatency.SetEnabled(s.Runtime.LowLatency)
	return s, values, places, nil
}

// control dials the daemon.
func (a *app) control() (*controlsock.Client, error) {
	_, places, err := a.load()
	if err != nil {
		return nil, err
	}
	return controlsock.Dial(places.ControlSocket), nil
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// colour says whether output to f may be coloured (X6).
func colour(f *os.File) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(f)
}

// columns is the width of the terminal that f is; 0 where it is none.
func columns(f *os.File) int {
	if width, _, err := term.GetSize(int(f.Fd())); err == nil {
		return width
	}
	return 0
}

// say writes a line about progress; results go to standard output instead.
func (a *app) say(format string, values ...any) {
	var out io.Writer = a.err
	if a.sayTo != nil {
		out = a.sayTo
	}
	_, _ = fmt.Fprintf(out, format+"\n", values...)
}

// print writes results; a failed write (a closed pipe) ends the command.
func print(out io.Writer, text string) error {
	if _, err := io.WriteString(out, text); err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}

// revision names the source that was built, for version and provenance.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}
