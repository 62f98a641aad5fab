package main

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"companion/adapters/authority/browser"
	"companion/messages"
)

func (a *app) loginCommand() *cobra.Command {
	var noBrowser, device bool
	cmd := &cobra.Command{
		Use: "login", Short: "Sign in at the hub, in the system browser",
		Long: "Sign in at the hub. The page opens in the system browser, and its address is printed: on standard output with\n" +
			"--no-browser, on standard error otherwise. The command waits until the browser comes back.\n\n" +
			"With --device the hub shows a code to confirm in a browser on any computer or phone (RFC 8628), where the hub offers that.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.control()
			if err != nil {
				return err
			}
			result, err := client.Login(cmd.Context(), device, func(page messages.LoginPage) {
				if device {
					a.showDevicePage(page, noBrowser)
				} else {
					a.showLoginPage(cmd.Context(), page, noBrowser)
				}
			})
			if err != nil {
				return err
			}
			if err := loginFailure(result); err != nil {
				return err
			}
			a.say("Signed in as %s.", plain(describe(result.User)))
			if result.Hub == messages.ReasonIssuerMismatch {
				a.say("warning: %s", hubNotTold(messages.LogoutResult{Hub: result.Hub}))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&noBrowser, "no-browser", false, "open no browser: print the page's address on standard output and wait")
	cmd.Flags().BoolVar(&device, "device", false, "confirm a code in a browser anywhere, where the hub offers that")
	return exits(cmd, exitNotRunning, exitKeychain)
}

// showDevicePage prints the page and the code of a device authorization (O11, RFC 8628 section 3.3). It opens no browser: the
// user's is elsewhere.
func (a *app) showDevicePage(page messages.LoginPage, noBrowser bool) {
	a.say("Open this page in a browser on any computer or phone, and confirm the code there:\n  %s\n  %s", plain(page.URL), plain(page.Code))
	if noBrowser {
		_ = print(a.out, plain(page.URL)+" "+plain(page.Code)+"\n") // on standard output, so that a script can read it
	} else if page.Complete != "" {
		a.say("This page has the code filled in:\n  %s", plain(page.Complete))
	}
	a.say("Waiting for the confirmation until %s. Ctrl-C gives up.", page.Until.Local().Format("15:04:05"))
}

// showLoginPage prints the page and opens it where a browser of this session can reach it (O12).
func (a *app) showLoginPage(ctx context.Context, page messages.LoginPage, noBrowser bool) {
	place := browser.Where(runtime.GOOS, os.Getenv, kernelRelease())
	if noBrowser {
		a.say("Open this page in a browser on this machine:")
		_ = print(a.out, page.URL+"\n") // on standard output, so that a script can read it
	} else {
		a.say("Open this page to sign in:\n  %s", page.URL)
		if err := a.openPage(ctx, place, page.URL); err != nil {
			a.say("No browser could be opened here. Open the page yourself.")
		}
	}
	if advice := loginAdvice(place, page.URL, os.Getenv); advice != "" {
		a.say("%s", advice)
	}
	a.say("Waiting for the browser until %s. Ctrl-C gives up.", page.Until.Local().Format("15:04:05"))
}

func (a *app) openPage(ctx context.Context, place browser.Place, page string) error {
	if !place.CanOpen() {
		return nil
	}
	return browser.Open(ctx, page)
}

// loginAdvice says how the user's browser reaches the page where that is not plain; empty on a desktop.
func loginAdvice(place browser.Place, page string, getenv func(string) string) string {
	switch place {
	case browser.PlaceSSH:
		return "This is an SSH session, and the page is on the loopback address of this machine. On the computer with your\n" +
			"browser, run this first, then open the page there:\n  " + forwardCommand(page, getenv) + "\n" +
			"Or use `companion login --device`, if the hub offers it."
	case browser.PlaceWSL:
		return "The browser of Windows reaches this machine by localhost forwarding. If the page does not load, set\n" +
			"localhostForwarding=true or networkingMode=mirrored in .wslconfig, or use `companion login --device`, if the hub\n" +
			"offers it."
	case browser.PlaceHeadless:
		return "There is no display here: neither DISPLAY nor WAYLAND_DISPLAY is set. If you are at another computer, run this\n" +
			"there first, then open the page there:\n  " + forwardCommand(page, getenv) + "\n" +
			"Or use `companion login --device`, if the hub offers it."
	}
	return ""
}

// forwardCommand is the ssh command that makes page reachable from the other end of this SSH session.
func forwardCommand(page string, getenv func(string) string) string {
	host, port, loopback := "HOST", "PORT", "127.0.0.1"
	if u, err := url.Parse(page); err == nil {
		port, loopback = u.Port(), strings.TrimSuffix(u.Host, ":"+u.Port())
	}
	// SSH_CONNECTION is "client port server port" (ssh(1)).
	if fields := strings.Fields(getenv("SSH_CONNECTION")); len(fields) == 4 {
		if address, err := netip.ParseAddr(fields[2]); err == nil {
			host = address.String()
		}
	}
	if user := getenv("USER"); user != "" && !strings.ContainsFunc(user, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("._-@", r)
	}) {
		host = user + "@" + host
	}
	return fmt.Sprintf("ssh -N -L %s:%s:%s:%s %s", loopback, port, loopback, port, host)
}

// kernelRelease names the kernel on Linux, where it tells WSL; it is empty elsewhere.
func kernelRelease() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return ""
	}
	return string(release)
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
	case messages.ReasonNoHub:
		f.message = "no hub is configured, so there is nothing to sign in to (" + string(result.Reason) + ")"
		f.hint = "models that you added need no sign-in; to use a hub, set `hub.url`: `companion config path`"
	case messages.ReasonCallbackTimeout:
		f.hint = "try again; if the hub showed an error page, [hub] client_id may be one that it does not know"
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
			result, err := client.Logout(cmd.Context())
			if err != nil {
				return err
			}
			if warning := hubNotTold(result); warning != "" {
				a.say("warning: %s", warning)
			}
			if err := refused("signing out", result.Reason); err != nil {
				return err
			}
			a.say("Signed out.")
			return nil
		},
	}, exitNotRunning, exitKeychain)
}

// hubNotTold says that the hub does not know of a sign-out, and what happens next; empty where it knows.
func hubNotTold(result messages.LogoutResult) string {
	const byHand = " End the session at the hub, if it offers that."
	switch result.Hub {
	case messages.ReasonOK:
		return ""
	case messages.ReasonNoHub:
		return "the hub that issued the session was not told: no hub is configured now." + byHand
	case messages.ReasonIssuerMismatch:
		return "the hub was not told: its issuer is not the one of the session. If you changed hub.url or hub.issuer, end the session at the hub that issued it."
	}
	text := "the hub could not be told: " + explain(result.Hub) + "."
	switch result.Again {
	case messages.RevokeUntilDone:
		return text + " The companion tells it as soon as it can, also after a restart; `companion status` shows that until it is done."
	case messages.RevokeWhileRunning:
		return text + " The companion tells it as soon as it can, but only while it runs: the keychain could not keep the token to revoke."
	}
	return text + byHand
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
			return print(a.out, plain(describe(result.User))+"\n")
		},
	}
	a.jsonFlag(cmd)
	return exits(cmd, exitNotRunning, exitSignIn, exitKeychain)
}

// describe names a user with role and provider.
func describe(u messages.User) string {
	var details []string
	for _, detail := range []string{u.Role, u.Provider} {
		if detail != "" {
			details = append(details, detail)
		}
	}
	if len(details) == 0 {
		return display(u)
	}
	return display(u) + " (" + strings.Join(details, ", ") + ")"
}

func display(u messages.User) string {
	for _, name := range []string{u.Name, u.ID} {
		if name != "" {
			return name
		}
	}
	return u.Subject
}
