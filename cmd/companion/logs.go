package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"

	"companion/actors/logfile"
)

func (a *app) logsCommand() *cobra.Command {
	var follow bool
	var actor, level, since, grep string
	cmd := &cobra.Command{
		Use: "logs", Short: "Show the log, across rotations; the daemon need not run",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, places, err := a.load()
			if err != nil {
				return err
			}
			filter, err := logFilter(actor, level, since, grep, time.Now())
			if err != nil {
				return err
			}
			if _, err := os.Stat(places.Log); errors.Is(err, fs.ErrNotExist) {
				return &failure{code: "no_log", message: "there is no log yet: the companion has not run", exit: exitNotRunning}
			}
			colours := colour(a.out)
			options := logfile.TailOptions{Path: places.Log, Follow: follow, Filter: filter, Notice: func(text string) { a.say("%s", text) }}
			return logfile.Tail(cmd.Context(), options, func(r logfile.Record) error {
				if a.json {
					return print(a.out, safeJSON(r.Line)+"\n")
				}
				return print(a.out, r.Text(colours)+"\n")
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as lines come")
	cmd.Flags().StringVar(&actor, "actor", "", "only this `ACTOR`, or all of a wing: authority, door, runtime")
	cmd.Flags().StringVar(&level, "level", "debug", "at least this `LEVEL`: debug, info, warn, error")
	cmd.Flags().StringVar(&since, "since", "", "not older than this: a duration such as 10m, or an RFC 3339 `TIME`")
	cmd.Flags().StringVar(&grep, "grep", "", "only lines that match this regular expression")
	a.jsonFlag(cmd)
	return exits(cmd, exitNotRunning)
}

func logFilter(actor, level, since, grep string, now time.Time) (logfile.Filter, error) {
	bad := func(flag, accepted string) error {
		return &failure{code: "usage", message: "--" + flag + ": this value is not accepted", hint: "accepted: " + accepted, exit: exitUsage}
	}
	f := logfile.Filter{Actor: actor}
	switch level = strings.ToLower(level); level {
	case "warning":
		f.Level = zapcore.WarnLevel
	case "debug", "info", "warn", "error":
		f.Level, _ = zapcore.ParseLevel(level)
	default:
		return f, bad("level", "debug, info, warn, error")
	}
	var err error
	if f.Since, err = sinceFlag(since, now); err != nil {
		return f, err
	}
	if grep != "" {
		match, err := regexp.Compile(grep)
		if err != nil {
			return f, bad("grep", fmt.Sprintf("a regular expression (%v)", err))
		}
		f.Match = match
	}
	return f, nil
}
