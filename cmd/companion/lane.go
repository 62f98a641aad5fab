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
		SelfHosted: s.Lanes.SelfHosted.BaseURL != "", Enterprise: s.Lanes.Enterprise.BaseURL != "",
		OpenRouter: s.Lanes.OpenRouter.BaseURL != "", DirectProvider: s.Lanes.DirectProvider.BaseURL != "",
	})
	c := choice{Lane: chosen, Metered: chosen.Metered(), Passed: []passed{}}
	for _, l := range better {
		why := "not configured: [lanes." + string(l) + "] base_url"
		if l == lane.Local {
			why = local
		}
		c.Passed = append(c.Passed, passed{l, why})
	}
	return c, nil
}

// configured returns what the configuration says about a lane beside local.
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
	reason := lane.Consent(lane.Request{
		Lane: l, Delegate: s.Lanes.Delegate, OwnerPartition: s.Lanes.Delegate, Enriching: true,
		Private: private, ConsentID: consentID,
		Leaves: lane.Leaves{Managed: s.Lanes.DelegateManaged, Enrich: s.Lanes.DelegateEnriched},
	})
	if reason == messages.ReasonAllow {
		return nil
	}
	f := &failure{code: string(reason), message: "lane " + string(l) + ": " + explain(reason), exit: exitFailed}
	if reason == messages.ReasonCloudConsentRequired {
		f.hint = "give the owner's --consent-id, or say --private=false for notes that are not private"
	}
	return f
}

// remoteClient asks a lane beside local. Its key comes from the environment variable that the
// configuration names (E5).
func remoteClient(s config.Settings, l lane.Lane) (*completion.Client, string, error) {
	at := configured(s, l)
	if at.BaseURL == "" || at.Model == "" {
		return nil, "", &failure{code: "lane_not_configured", message: "lane " + string(l) + " is not configured", exit: exitUsage,
			hint: "set base_url and model in [lanes." + string(l) + "]"}
	}
	key := ""
	if at.KeyEnv != "" {
		key = strings.TrimSpace(os.Getenv(at.KeyEnv))
		if key == "" {
			return nil, "", &failure{code: "lane_not_configured", message: "the environment variable " + at.KeyEnv + " is not set", exit: exitUsage,
				hint: "it holds the key of lane " + string(l)}
		}
	}
	return completion.New(completion.Target{BaseURL: at.BaseURL, Key: messages.NewSecret(key), Model: at.Model}), at.Model, nil
}
