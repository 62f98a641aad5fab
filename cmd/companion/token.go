package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"companion/adapters/config"
	"companion/adapters/door/apptoken"
	"companion/adapters/door/controlsock"
	"companion/messages"
)

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "token", Short: "Tokens for programs that `exec` cannot start, such as editors",
		Long: "Tokens for programs that `companion exec` cannot start, such as editors and services. Each has a name, a rate of its\n" +
			"own and, if you want, an expiry. It stays valid when the daemon starts again, until it expires or you revoke it.\n" +
			"Companion keeps only its digest, so it is shown once.",
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.tokenAddCommand(), a.tokenListCommand(), a.tokenRevokeCommand())
	return cmd
}

func (a *app) tokenAddCommand() *cobra.Command {
	var expires string
	var rate int
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Make a token, and show it once",
		Long: "Make a token, and show it once, on standard output. Give it to one program; `companion token list` then shows how\n" +
			"much that program asks for, and `companion token revoke NAME` ends its access alone.",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			lifetime, err := lifetimeOf(expires)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("rate") && rate < 1 {
				return usageFailure(apptoken.ErrRate.Error(), "leave --rate out for front_door.rate_per_minute")
			}
			_, places, err := a.load()
			if err != nil {
				return err
			}
			return a.addToken(cmd.Context(), places, given[0], lifetime, rate)
		},
	}
	cmd.Flags().StringVar(&expires, "expires", "", "when it ends, such as 30d or 12h; without it: never")
	cmd.Flags().IntVar(&rate, "rate", 0, "requests a minute; without it: front_door.rate_per_minute")
	a.jsonFlag(cmd)
	return exits(cmd, exitUnavailable)
}

// addToken prints the token only when it is valid: in the file, and in the daemon if one runs. Otherwise it takes it back.
func (a *app) addToken(ctx context.Context, places config.Places, name string, lifetime time.Duration, rate int) error {
	token, entry, err := apptoken.Add(ctx, places.Tokens, name, lifetime, rate)
	if err != nil {
		return tokenFailure(name, err)
	}
	status, err := a.applyTokens(ctx, places)
	if err == nil && a.json {
		err = a.printJSON(map[string]any{
			"name": entry.Name, "token": token.Reveal(), "expires": entry.Expires, "ratePerMinute": entry.Rate, "baseURL": status.FrontDoor.BaseURL,
		})
	} else if err == nil {
		a.sayToken(entry, status)
		err = print(a.out, token.Reveal()+"\n")
	}
	if err != nil {
		_ = apptoken.Revoke(context.WithoutCancel(ctx), places.Tokens, name) // it was shown to no one
		_, _ = a.applyTokens(context.WithoutCancel(ctx), places)
	}
	return err
}

func (a *app) sayToken(entry apptoken.Entry, status messages.Status) {
	a.say("The token of %s follows. It is shown only now. It expires: %s.", entry.Name, expiryText(entry.Expires))
	if status.FrontDoor.BaseURL == "" {
		a.say("No daemon runs; the token is valid when one does.")
		return
	}
	a.say("Base URL: %s (Anthropic clients: without /v1). The port changes at each start unless front_door.port is set.", status.FrontDoor.BaseURL)
}

// applyTokens makes a running daemon use the changed file. Without a daemon there is nothing to do. A daemon without a control
// socket still runs if it has its lock: then it may go on with what it read before.
func (a *app) applyTokens(ctx context.Context, places config.Places) (messages.Status, error) {
	client := controlsock.Dial(places.ControlSocket)
	reason, err := client.ReloadTokens(ctx)
	if errors.Is(err, controlsock.ErrNotRunning) {
		return messages.Status{}, noDaemon(places)
	}
	if err != nil {
		return messages.Status{}, err
	}
	if err := refused("using the changed tokens", reason); err != nil {
		return messages.Status{}, err
	}
	return client.Status(ctx)
}

func (a *app) tokenRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke NAME", Short: "End a token at once, with the requests that use it",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeTokens,
		RunE: func(cmd *cobra.Command, given []string) error {
			_, places, err := a.load()
			if err != nil {
				return err
			}
			missing := apptoken.Revoke(cmd.Context(), places.Tokens, given[0])
			if missing != nil && !errors.Is(missing, apptoken.ErrNotFound) {
				return tokenFailure(given[0], missing)
			}
			// Also without an entry: an earlier revocation may not have reached the daemon.
			if _, err := a.applyTokens(cmd.Context(), places); err != nil {
				f := described(err)
				f.message = "the token is removed from the file, but the running daemon did not confirm it and may still accept it: " + f.message
				f.hint = "restart the daemon: its next start does not know the token"
				return f
			}
			if missing != nil {
				return tokenFailure(given[0], missing)
			}
			a.say("Revoked: %s.", given[0])
			return nil
		},
	}
	return exits(cmd, exitUnavailable)
}

// tokenRow is one token in `token list --json`. The counts are since the start of the daemon; without one they are zero.
type tokenRow struct {
	Name          string     `json:"name"`
	Created       time.Time  `json:"created"`
	Expires       *time.Time `json:"expires"`
	Expired       bool       `json:"expired"`
	RatePerMinute int        `json:"ratePerMinute"`
	Requests      int64      `json:"requests"`
	LastRequest   *time.Time `json:"lastRequest"`
}

func (a *app) tokenListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the application tokens, with their expiry, rate and use",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, places, err := a.load()
			if err != nil {
				return err
			}
			entries, err := apptoken.Load(places.Tokens)
			if err != nil {
				return err
			}
			status, err := controlsock.Dial(places.ControlSocket).Status(cmd.Context())
			if err != nil && !errors.Is(err, controlsock.ErrNotRunning) {
				return err
			}
			rows := tokenRows(entries, status, s.FrontDoor.RatePerMinute)
			if a.json {
				return a.printJSON(map[string]any{"tokens": rows})
			}
			return print(a.out, tokenTable(rows))
		},
	}
	a.jsonFlag(cmd)
	return exits(cmd, exitUnavailable)
}

func tokenRows(entries []apptoken.Entry, status messages.Status, rate int) []tokenRow {
	rows := []tokenRow{}
	now := time.Now()
	for _, e := range entries {
		row := tokenRow{Name: e.Name, Created: e.Created, Expires: e.Expires, Expired: e.Expired(now), RatePerMinute: e.Rate}
		if row.RatePerMinute == 0 {
			row.RatePerMinute = rate
		}
		for _, used := range status.FrontDoor.Applications {
			if used.Name == e.Name {
				row.RatePerMinute, row.Requests, row.LastRequest = used.RatePerMinute, used.Requests, used.LastRequest
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func tokenTable(rows []tokenRow) string {
	if len(rows) == 0 {
		return "There is no application token. `companion token add NAME` makes one.\n"
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "NAME\tEXPIRES\tRATE\tREQUESTS\tLAST REQUEST")
	for _, r := range rows {
		expires, last := expiryText(r.Expires), "-"
		if r.Expired {
			expires = "expired"
		}
		if r.LastRequest != nil {
			last = r.LastRequest.Local().Format(time.DateTime)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%d a minute\t%d\t%s\n", oneLine(r.Name), expires, r.RatePerMinute, r.Requests, last)
	}
	_ = w.Flush() // into memory
	return b.String()
}

func expiryText(at *time.Time) string {
	if at == nil {
		return "never"
	}
	return at.Local().Format(time.DateTime)
}

// lifetimeOf reads --expires: a Go duration, or a whole number of days. Zero means that the token does not expire.
func lifetimeOf(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	wrong := usageFailure(fmt.Sprintf("--expires %q is not accepted", oneLine(text)), "give a time from 1s to 3650d, such as 30d or 12h; leave it out for a token that does not expire")
	if number, ok := strings.CutSuffix(text, "d"); ok {
		days, err := strconv.Atoi(number)
		if err != nil || days < 1 || days > math.MaxInt32 || time.Duration(days) > apptoken.MaxLifetime/(24*time.Hour) {
			return 0, wrong
		}
		return time.Duration(days) * 24 * time.Hour, nil
	}
	lifetime, err := time.ParseDuration(text)
	if err != nil || lifetime < apptoken.MinLifetime || lifetime > apptoken.MaxLifetime {
		return 0, wrong
	}
	return lifetime, nil
}

// tokenFailure gives a refusal of the list its code and next step.
func tokenFailure(name string, err error) error {
	name = oneLine(name)
	switch {
	case errors.Is(err, apptoken.ErrName), errors.Is(err, apptoken.ErrRate), errors.Is(err, apptoken.ErrLifetime):
		return usageFailure(err.Error(), "see `companion token add --help`")
	case errors.Is(err, apptoken.ErrExists):
		return &failure{code: "token_exists", message: err.Error() + ": " + name, exit: exitFailed,
			hint: "take another name, or end that one first: `companion token revoke " + name + "`"}
	case errors.Is(err, apptoken.ErrNotFound):
		return &failure{code: "no_such_token", message: err.Error() + ": " + name, exit: exitFailed, hint: "`companion token list` shows the names"}
	case errors.Is(err, apptoken.ErrTooMany):
		return &failure{code: "too_many_tokens", message: err.Error(), exit: exitFailed, hint: "revoke one that is not used: `companion token list`"}
	}
	return err
}

// completeTokens offers the names of the tokens.
func (a *app) completeTokens(_ *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if _, places, err := a.load(); err == nil && len(given) == 0 {
		entries, _ := apptoken.Load(places.Tokens) // no names are offered from a file that cannot be used
		for _, e := range entries {
			names = append(names, e.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
