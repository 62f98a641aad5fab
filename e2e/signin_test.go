package e2e

import (
	"strings"
	"testing"

	"companion/e2e/harness"
)

// O1, O4, X5: the two keys of the hub relax exactly one check each: for a hub that neither announces nor
// sends iss, and for one that names an endpoint of another origin.
func TestSignInKeys(t *testing.T) {
	hub := harness.NewHub(t)
	hub.Fault("no-iss", true)
	for _, step := range []struct{ fault, variable, refused string }{
		{"", "COMPANION_HUB_FIRST_PARTY=false", "issuer_missing"}, // the metadata announces it
		{"unannounced-iss", "", "issuer_missing"},
		{"", "COMPANION_HUB_FIRST_PARTY=false", ""},
		{"foreign-endpoint", "COMPANION_HUB_FIRST_PARTY=false", "metadata_invalid"},
		{"", "COMPANION_HUB_FIRST_PARTY=false COMPANION_HUB_FOREIGN_ENDPOINTS=true", ""},
	} {
		if step.fault != "" {
			hub.Fault(step.fault, true)
		}
		c := hub.Companion("")
		c.Extra = strings.Fields(step.variable)
		c.Start()
		r, _ := c.Login()
		if step.refused == "" && r.Code != 0 || step.refused != "" && (r.Code != 1 || !strings.Contains(r.Stdout, step.refused)) {
			t.Errorf("%+v: exit %d, %s", step, r.Code, r.Stdout)
		}
		c.Stop()
	}
}
