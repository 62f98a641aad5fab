// Package lane decides where a completion may be computed (contract E1–E4): which lane, and
// whether what its owner allows covers sending this text there. It is pure: no I/O, no clock.
//
// Two readings of the contract are taken on the strict side. A managed lane is every lane that
// somebody else operates, so every one by which text leaves this machine. And consent for disabled,
// or for a lane that is none, is a policy denial: there is nothing to allow.
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

// Managed reports whether somebody else operates the lane, so that text leaves this machine.
func (l Lane) Managed() bool {
	switch l {
	case SelfHosted, Enterprise, OpenRouter, DirectProvider:
		return true
	}
	return false
}

// Capabilities says which lanes exist now; what is unknown or absent is false (E1).
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

// Choose returns the first lane of the order that can compute, and the better ones that cannot. A wish
// to keep text on the device is no input: it blocks no lane, consent does (E2).
func Choose(privacyMode bool, c Capabilities) (chosen Lane, passed []Lane) {
	for _, l := range Order(privacyMode) {
		if c.Has(l) {
			return l, passed
		}
		passed = append(passed, l)
	}
	return Disabled, passed
}

// Request is what consent is asked about (E4). The zero values are the ones that refuse.
type Request struct {
	Lane           Lane
	Delegate       bool // somebody acts for the owner
	OwnerPartition bool // on the owner's notes
	Enriching      bool
	Private        bool // the text is private
	ConsentID      string
	Leaves         Leaves
}

// Leaves are what the owner allows delegates; all default to no.
type Leaves struct {
	Managed bool // use of managed lanes
	Enrich  bool // enriching the owner's partition by the local or openrouter lane
}

// Consent answers ReasonAllow, ReasonCloudConsentRequired or ReasonLanePolicyDenied (E4). A consent
// id never overrides a policy denial.
func Consent(r Request) messages.Reason {
	switch {
	case r.Lane == Disabled || !r.Lane.Valid():
		return messages.ReasonLanePolicyDenied
	case r.Lane.Managed() && r.Delegate && !r.Leaves.Managed:
		return messages.ReasonLanePolicyDenied
	case r.Delegate && r.Enriching && r.OwnerPartition && (r.Lane == Local || r.Lane == OpenRouter) && !r.Leaves.Enrich:
		return messages.ReasonLanePolicyDenied
	case r.Lane.Managed() && r.Private && strings.TrimSpace(r.ConsentID) == "":
		return messages.ReasonCloudConsentRequired
	}
	return messages.ReasonAllow
}
