package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"companion/messages"
)

func (a *app) loginCommand() *cobra.Command {
	var noBrowser bool
	cmd := &cobra.Command{
		Use: "login", Short: "Sign in at the hub, in the system browser",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.control()
			if err != nil {
				return err
			}
			result, err := client.Login(cmd.Context(), !noBrowser, func(url string) {
				if noBrowser {
					a.say("Open this page in a browser on this machine:")
					// On standard output alone, so that a script can take it from there.
					_ = print(a.out, url+"\n")
					return
				}
				a.say("Your browser opens. If it does not, open this page:\n%s", url)
			})
			if err != nil {
				return err
			}
			if err := loginFailure(result); err != nil {
				return err
			}
			a.say("Signed in as %s.", plain(display(result.User)))
			return nil
		},
	}
	cmd.Flags().BoolVar(&noBrowser, "no-browser", false, "print the page's address and wait")
	return exits(cmd, exitNotRunning, exitKeychain)
}

func loginFailure(result messages.LoginResult) error {
	if result.Reason == messages.ReasonOK {
		return nil
	}
	f := &failure{code: string(result.Reason), message: "signing in: " + explain(result.Reason), exit: exitOf(result.Reason)}
	if result.Detail != "" {
		f.message += ": " + result.Detail
	}
	switch result.Reason {
	case messages.ReasonCallbackTimeout:
		f.hint = "try again; if the hub showed an error page, [hub] client_id may be one that it does not know"
	case messages.ReasonBrowserFailed:
		f.hint = "try `companion login --no-browser`"
	case messages.ReasonMetadataInvalid:
		f.hint = "check [hub] url and ca_file: `companion config show`"
	}
	return f
}

func (a *app) logoutCommand() *cobra.Command {
	return exits(&cobra.Command{
		Use: "logout", Short: "Sign out at the hub and forget the session",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.control()
			if err != nil {
				return err
			}
			reason, err := client.Logout(cmd.Context())
			if err != nil {
				return err
			}
			if err := refused("signing out", reason); err != nil {
				return err
			}
			a.say("Signed out.")
			return nil
		},
	}, exitNotRunning, exitKeychain)
}

func (a *app) whoamiCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "whoami", Short: "Say who is signed in, as the hub knows it",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.control()
			if err != nil {
				return err
			}
			result, err := client.WhoAmI(cmd.Context())
			if err != nil {
				return err
			}
			if err := refused("asking the hub", result.Reason); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(result.User)
			}
			return print(a.out, plain(fmt.Sprintf("%s (%s, %s)\n", display(result.User), result.User.Role, result.User.Provider)))
		},
	}
	a.jsonFlag(cmd)
	return exits(cmd, exitNotRunning, exitSignIn, exitKeychain)
}

func display(u messages.User) string {
	for _, name := range []string{u.Name, u.ID} {
		if name != "" {
			return name
		}
	}
	return u.Subject
}
