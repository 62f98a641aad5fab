// Package lane decides where a completion may be computed (contract E1–E4): it chooses a lane, and
// checks whether the owner's policy allows sending the text there. It does no I/O and reads no clock.
//
// Two ambiguities of the contract are resolved strictly. A managed lane is every lane with another
// operator, so every lane that sends text from this machine. Consent for disabled, or for an unknown
// lane, is a policy denial.
package lane

import (
	"slices"
	"strings"

	"companion/messages"
)

// Lane is where a completion is computed (E1).
type Lane string

// The lanes.
const (
	Local          Lane = "local"
	SelfHosted     Lane = "self_hosted"
	Enterprise     Lane = "enterprise"
	OpenRouter     Lane = "openrouter"
	DirectProvider Lane = "direct_provider"
	Disabled       Lane = "disabled"
)

// All lists the lanes in the order of E1.
var All = []Lane{Local, SelfHosted, Enterprise, OpenRouter, DirectProvider, Disabled}

// Valid reports whether l is one of the lanes.
func (l Lane) Valid() bool { return slices.Contains(All, l) }

// Metered reports whether use of the lane is counted against an account (E3).
func (l Lane) Metered() bool { return l == DirectProvider }

// Managed reports whether the lane has another operator, so that text leaves this machine.
func (l Lane) Managed() bool {
	switch l {
	case SelfHosted, Enterprise, OpenRouter, DirectProvider:
		return true
	}
	return false
}

// Capabilities says which lanes are available; false means unknown or unavailable (E1).
type Capabilities struct {
	InBrowser      bool // local inference in the browser
	Companion      bool // companionAvailable (A5)
	SelfHosted     bool
	Enterprise     bool
	OpenRouter     bool
	DirectProvider bool
}

// Has reports whether l can compute. Disabled always can: it computes nothing.
func (c Capabilities) Has(l Lane) bool {
	switch l {
	case Local:
		return c.InBrowser || c.Companion
	case SelfHosted:
		return c.SelfHosted
	case Enterprise:
		return c.Enterprise
	case OpenRouter:
		return c.OpenRouter
	case DirectProvider:
		return c.DirectProvider
	case Disabled:
		return true
	}
	return false
}

// Order lists the lanes from best to last (E2). In organisation privacy mode the direct provider is
// not among them.
func Order(privacyMode bool) []Lane {
	if privacyMode {
		return []Lane{SelfHosted, Enterprise, Local, OpenRouter, Disabled}
	}
	return []Lane{Local, SelfHosted, Enterprise, OpenRouter, DirectProvider, Disabled}
}

// Choose returns the first lane of the order that can compute, and the better ones that cannot. A preference
// to keep text on the device is not an input: it blocks no lane; Consent does (E2).
func Choose(privacyMode bool, c Capabilities) (chosen Lane, passed []Lane) {
	for _, l := range Order(privacyMode) {
		if c.Has(l) {
			return l, passed
		}
		passed = append(passed, l)
	}
	return Disabled, passed
}

// Request is the input of Consent (E4). The zero value is refused.
type Request struct {
	Lane           Lane
	Delegate       bool // a delegate acts for the owner
	OwnerPartition bool // on the owner's notes
	Enriching      bool
	Private        bool // the text is private
	ConsentID      string
	Permissions    Permissions
}

// Permissions are what the owner allows delegates; the zero value allows nothing.
type Permissions struct {
	Managed bool // use of managed lanes
	Enrich  bool // enriching the owner's partition by the local or openrouter lane
}

// Consent answers ReasonAllow, ReasonCloudConsentRequired or ReasonLanePolicyDenied (E4). A consent
// id never overrides a policy denial.
func Consent(r Request) messages.Reason {
	switch {
	case r.Lane == Disabled || !r.Lane.Valid():
		return messages.ReasonLanePolicyDenied
	case r.Lane.Managed() && r.Delegate && !r.Permissions.Managed:
		return messages.ReasonLanePolicyDenied
	case r.Delegate && r.Enriching && r.OwnerPartition && (r.Lane == Local || r.Lane == OpenRouter) && !r.Permissions.Enrich:
		return messages.ReasonLanePolicyDenied
	case r.Lane.Managed() && r.Private && strings.TrimSpace(r.ConsentID) == "":
		return messages.ReasonCloudConsentRequired
	}
	return messages.ReasonAllow
}
