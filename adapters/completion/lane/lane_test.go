package lane

import (
	"slices"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// E1, E3: one row per lane.
func TestLanes(t *testing.T) {
	rows := []struct {
		lane             Lane
		managed, metered bool
		capability       Capabilities
	}{
		{Local, false, false, Capabilities{Companion: true}},
		{SelfHosted, true, false, Capabilities{SelfHosted: true}},
		{Enterprise, true, false, Capabilities{Enterprise: true}},
		{OpenRouter, true, false, Capabilities{OpenRouter: true}},
		{DirectProvider, true, true, Capabilities{DirectProvider: true}},
		{Disabled, false, false, Capabilities{}},
	}
	for i, row := range rows {
		if row.lane != All[i] || !row.lane.Valid() || row.lane.Managed() != row.managed || row.lane.Metered() != row.metered {
			t.Errorf("%s: got managed %v, metered %v, want %v, %v, and the lane at its place in All", row.lane, row.lane.Managed(), row.lane.Metered(), row.managed, row.metered)
		}
		for _, other := range All {
			if row.capability.Has(other) != (other == row.lane || other == Disabled) {
				t.Errorf("the capability of %s has %s: got %v, want only its own lane and disabled", row.lane, other, row.capability.Has(other))
			}
		}
	}
	if len(rows) != len(All) {
		t.Errorf("got %d rows, want one for each of the %d lanes", len(rows), len(All))
	}
	if strange := Lane("cheap"); strange.Valid() || strange.Managed() || (Capabilities{InBrowser: true}).Has(strange) {
		t.Error("unknown lane: got it valid, managed or available, want none of these")
	}
}

// E2: the order of the lanes, with one lane after the other removed.
func TestChoose(t *testing.T) {
	everything := Capabilities{true, true, true, true, true, true}
	without := func(ls ...Lane) Capabilities {
		c := everything
		for _, l := range ls {
			switch l {
			case Local:
				c.InBrowser, c.Companion = false, false
			case SelfHosted:
				c.SelfHosted = false
			case Enterprise:
				c.Enterprise = false
			case OpenRouter:
				c.OpenRouter = false
			case DirectProvider:
				c.DirectProvider = false
			}
		}
		return c
	}
	for _, privacy := range []bool{false, true} {
		want := []Lane{Local, SelfHosted, Enterprise, OpenRouter, DirectProvider, Disabled}
		if privacy {
			want = []Lane{SelfHosted, Enterprise, Local, OpenRouter, Disabled}
		}
		for i, l := range want {
			got, passed := Choose(privacy, without(want[:i]...))
			if got != l || !slices.Equal(passed, want[:i]) {
				t.Errorf("privacy %v without %v: got %s, passed %v, want %s, %v", privacy, want[:i], got, passed, l, want[:i])
			}
		}
	}
	if got, _ := Choose(true, Capabilities{DirectProvider: true}); got != Disabled {
		t.Errorf("privacy mode with only a direct provider: got %s, want disabled", got)
	}
	for _, c := range []Capabilities{{InBrowser: true}, {Companion: true}} {
		if got, _ := Choose(false, c); got != Local {
			t.Errorf("%+v: got %s, want local", c, got)
		}
	}
}

// E4: one row per rule and per attempt to evade it.
func TestConsent(t *testing.T) {
	const (
		allow   = messages.ReasonAllow
		consent = messages.ReasonCloudConsentRequired
		denied  = messages.ReasonLanePolicyDenied
	)
	tests := []struct {
		name string
		r    Request
		want messages.Reason
	}{
		{"own notes, here", Request{Lane: Local, Enriching: true, OwnerPartition: true, Private: true}, allow},
		{"own private notes, elsewhere", Request{Lane: SelfHosted, Private: true}, consent},
		{"own private notes, consented", Request{Lane: SelfHosted, Private: true, ConsentID: "c1"}, allow},
		{"blank consent id", Request{Lane: Enterprise, Private: true, ConsentID: " \t"}, consent},
		{"openrouter, private", Request{Lane: OpenRouter, Private: true}, consent},
		{"direct provider, private", Request{Lane: DirectProvider, Private: true}, consent},
		{"nothing private", Request{Lane: DirectProvider}, allow},
		{"delegate, managed", Request{Lane: Enterprise, Delegate: true}, denied},
		{"delegate, managed, consent id", Request{Lane: Enterprise, Delegate: true, Private: true, ConsentID: "c1"}, denied},
		{"delegate, managed, wrong permission", Request{Lane: Enterprise, Delegate: true, Permissions: Permissions{Enrich: true}}, denied},
		{"delegate, managed, permission, private", Request{Lane: Enterprise, Delegate: true, Private: true, Permissions: Permissions{Managed: true}}, consent},
		{"delegate, managed, permission", Request{Lane: Enterprise, Delegate: true, Permissions: Permissions{Managed: true}}, allow},
		{"delegate enriches the owner's, here", Request{Lane: Local, Delegate: true, OwnerPartition: true, Enriching: true, ConsentID: "c1"}, denied},
		{"delegate enriches the owner's, wrong permission", Request{Lane: Local, Delegate: true, OwnerPartition: true, Enriching: true, Permissions: Permissions{Managed: true}}, denied},
		{"delegate enriches the owner's, permission", Request{Lane: Local, Delegate: true, OwnerPartition: true, Enriching: true, Permissions: Permissions{Enrich: true}}, allow},
		{"delegate enriches by openrouter without its permission", Request{Lane: OpenRouter, Delegate: true, OwnerPartition: true, Enriching: true, Permissions: Permissions{Managed: true}}, denied},
		{"delegate enriches by openrouter, both permissions", Request{Lane: OpenRouter, Delegate: true, OwnerPartition: true, Enriching: true, Permissions: Permissions{true, true}}, allow},
		{"delegate enriches own partition, here", Request{Lane: Local, Delegate: true, Enriching: true}, allow},
		{"delegate asks, here", Request{Lane: Local, Delegate: true, OwnerPartition: true}, allow},
		{"disabled", Request{Lane: Disabled, ConsentID: "c1", Permissions: Permissions{true, true}}, denied},
		{"unknown lane", Request{Lane: "cheap"}, denied},
		{"no lane", Request{}, denied},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Consent(tt.r); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// E4: for any request, no private text leaves without a consent id, no consent id overrides a denial, and an additional
// permission never turns an allowed request into a refused one.
func TestConsentProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Request{
			Lane:           rapid.SampledFrom(append(All, "", "cheap")).Draw(t, "lane"),
			Delegate:       rapid.Bool().Draw(t, "delegate"),
			OwnerPartition: rapid.Bool().Draw(t, "owner"),
			Enriching:      rapid.Bool().Draw(t, "enriching"),
			Private:        rapid.Bool().Draw(t, "private"),
			ConsentID:      rapid.SampledFrom([]string{"", " ", "c1"}).Draw(t, "consent"),
			Permissions:    Permissions{rapid.Bool().Draw(t, "managed"), rapid.Bool().Draw(t, "enrich")},
		}
		got := Consent(r)
		if got == messages.ReasonAllow && r.Private && r.Lane != Local && r.ConsentID != "c1" {
			t.Fatalf("%+v: got %s, want private text without consent refused outside the local lane", r, got)
		}
		consented := r
		consented.ConsentID = "c2"
		if again := Consent(consented); got == messages.ReasonLanePolicyDenied && again != got {
			t.Fatalf("%+v with a consent id: got %s, want %s", r, again, got)
		}
		permitted := r
		permitted.Permissions = Permissions{true, true}
		if again := Consent(permitted); got == messages.ReasonAllow && again != got {
			t.Fatalf("%+v with both permissions: got %s, want %s", r, again, got)
		}
	})
}
