package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"companion/adapters/completion"
	"companion/adapters/completion/lane"
	"companion/adapters/config"
	"companion/adapters/door/controlsock"
	"companion/messages"
)

// choice is the lane that would be used now (E2).
type choice struct {
	Lane    lane.Lane `json:"lane"`
	Metered bool      `json:"metered"`
	Passed  []passed  `json:"passed"`
}

// passed is a better lane, and why it is not used.
type passed struct {
	Lane lane.Lane `json:"lane"`
	Why  string    `json:"why"`
}

func (a *app) laneCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "lane", Short: "Say which lane would be used now, and why each better one is not",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, places, err := a.load()
			if err != nil {
				return err
			}
			c, err := chooseLane(cmd.Context(), s, places)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(c)
			}
			text := string(c.Lane) + "\n"
			for _, p := range c.Passed {
				text += fmt.Sprintf("  not %s: %s\n", p.Lane, p.Why)
			}
			return print(a.out, text)
		},
	}
	a.jsonFlag(cmd)
	return exits(cmd)
}

// chooseLane asks the daemon for the local lane and the configuration for the others. A daemon that
// does not run is one reason more for not using local, no failure.
func chooseLane(ctx context.Context, s config.Settings, places config.Places) (choice, error) {
	local := ""
	status, err := controlsock.Dial(places.ControlSocket).Status(ctx)
	switch {
	case errors.Is(err, controlsock.ErrNotRunning):
		local = "the companion is not running"
	case err != nil:
		return choice{}, err
	case !status.CompanionAvailable:
		local = explain(status.Reason)
	}
	chosen, better := lane.Choose(s.Lanes.PrivacyMode, lane.Capabilities{
		Companion:  local == "",
		SelfHosted: unusable(s, lane.SelfHosted) == "", Enterprise: unusable(s, lane.Enterprise) == "",
		OpenRouter: unusable(s, lane.OpenRouter) == "", DirectProvider: unusable(s, lane.DirectProvider) == "",
	})
	c := choice{Lane: chosen, Metered: chosen.Metered(), Passed: []passed{}}
	for _, l := range better {
		why := local
		if l != lane.Local {
			why = unusable(s, l)
		}
		c.Passed = append(c.Passed, passed{l, why})
	}
	return c, nil
}

// configured returns what the configuration says about a lane other than local.
func configured(s config.Settings, l lane.Lane) config.Lane {
	switch l {
	case lane.SelfHosted:
		return s.Lanes.SelfHosted
	case lane.Enterprise:
		return s.Lanes.Enterprise
	case lane.OpenRouter:
		return s.Lanes.OpenRouter
	case lane.DirectProvider:
		return s.Lanes.DirectProvider
	}
	return config.Lane{}
}

// consented refuses what the owner does not allow (E4), before anything is sent or even looked up.
func consented(s config.Settings, l lane.Lane, private bool, consentID string) error {
	if s.Lanes.PrivacyMode && l == lane.DirectProvider { // E2
		return &failure{code: string(messages.ReasonLanePolicyDenied), exit: exitPolicy,
			message: "lane " + string(l) + ": organisation privacy mode never uses a direct provider", hint: "name another lane; the key is lanes.privacy_mode"}
	}
	reason := lane.Consent(lane.Request{
		Lane: l, Delegate: s.Lanes.Delegate, OwnerPartition: s.Lanes.Delegate, Enriching: true,
		Private: private, ConsentID: consentID,
		Permissions: lane.Permissions{Managed: s.Lanes.DelegateManaged, Enrich: s.Lanes.DelegateEnriched},
	})
	if reason == messages.ReasonAllow {
		return nil
	}
	f := &failure{code: string(reason), message: "lane " + string(l) + ": " + explain(reason), exit: exitPolicy}
	switch {
	case reason == messages.ReasonCloudConsentRequired:
		f.hint = "give the owner's --consent-id, or say --private=false for text that is not private"
	case l == lane.Disabled:
		f.hint = "name a lane that computes: local, self_hosted, enterprise, openrouter, direct_provider"
	case l.Managed() && !s.Lanes.DelegateManaged:
		f.hint = "the owner of the notes has to allow it: lanes.delegate_managed"
	default:
		f.hint = "the owner of the notes has to allow it: lanes.delegate_enriched"
	}
	return f
}

// stillConsented reads the configuration again: since the command began, the owner may have withdrawn the consent, or changed the
// lane at.
func (a *app) stillConsented(l lane.Lane, at config.Lane, private bool, consentID string) error {
	s, _, err := a.load()
	if err != nil {
		return err
	}
	if err := consented(s, l, private, consentID); err != nil {
		return err
	}
	if configured(s, l) != at {
		return &failure{code: "lane_not_configured", message: "lane " + string(l) + ": its configuration has changed since the command began",
			exit: exitUsage, hint: "run the command again"}
	}
	return nil
}

// noLane is the failure of a --lane that does not exist.
func noLane(asked string) error {
	return usageFailure(fmt.Sprintf("there is no lane %q", asked), "accepted by --lane: local, self_hosted, enterprise, openrouter, direct_provider")
}

// unusable says why a lane other than local cannot compute, or nothing.
func unusable(s config.Settings, l lane.Lane) string {
	at := configured(s, l)
	switch {
	case at.BaseURL == "":
		return "not configured: [lanes." + string(l) + "] base_url"
	case at.Model == "":
		return "not configured: [lanes." + string(l) + "] model"
	case at.KeyEnv != "" && strings.TrimSpace(os.Getenv(at.KeyEnv)) == "":
		return "the environment variable " + at.KeyEnv + " is not set; it holds the lane's key"
	}
	return ""
}

// missingLane is the failure of a lane that cannot compute.
func missingLane(s config.Settings, l lane.Lane) error {
	return &failure{code: "lane_not_configured", message: "lane " + string(l) + ": " + unusable(s, l), exit: exitUsage,
		hint: "[lanes." + string(l) + "] needs base_url and model, and the variable that key_env names must hold the key"}
}

// remoteClient asks a lane other than local. Its key comes from the environment variable that the configuration
// names (E5).
// allow is called before each request.
func remoteClient(s config.Settings, l lane.Lane, allow func() error) (*completion.Client, string, error) {
	if unusable(s, l) != "" {
		return nil, "", missingLane(s, l)
	}
	at := configured(s, l)
	target := completion.Target{BaseURL: at.BaseURL, Model: at.Model, Allow: allow, Limits: completion.Limits{
		Connect: s.Lanes.ConnectTimeout, FirstByte: s.Lanes.FirstByteTimeout, Whole: s.Lanes.RequestTimeout,
	}}
	if at.KeyEnv != "" {
		target.Key = messages.NewSecret(strings.TrimSpace(os.Getenv(at.KeyEnv)))
	}
	if socket, ok := strings.CutPrefix(at.BaseURL, "unix:"); ok {
		target.BaseURL, target.Socket = "http://localhost/v1", socket
	}
	return completion.New(target), at.Model, nil
}
