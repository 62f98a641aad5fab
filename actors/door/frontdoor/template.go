package frontdoor

import (
	"encoding/json"

	"companion/adapters/door/relay"
	"companion/messages"
)

// template is what the runtime of a launch says about the model's chat template.
type template struct {
	launch  messages.Launch
	noTools bool
}

// noTools reports whether the model's chat template has no tools. The runtime then leaves tools out of the prompt
// and ignores that a call is required, so the front door refuses such a request. A runtime that does not say it
// gets the request.
func (v *visit) noTools(s messages.Snapshot) bool {
	if known := v.d.template.Load(); known != nil && known.launch == s.Launch {
		return known.noTools
	}
	if s.BackEnd == (messages.BackEnd{}) {
		return false
	}
	raw, result := v.d.relay.Fetch(v.r.Context(), relay.Call{
		Target: relay.Target{Launch: s.Launch, BackEnd: s.BackEnd}, Path: "/props", Gone: v.conn.Gone,
	})
	if result.Reason != messages.ReasonOK {
		return false
	}
	var told struct {
		Template struct {
			Tools *bool `json:"supports_tools"`
		} `json:"chat_template_caps"`
	}
	if json.Unmarshal(raw, &told) != nil {
		return false
	}
	t := &template{launch: s.Launch, noTools: told.Template.Tools != nil && !*told.Template.Tools}
	v.d.template.Store(t)
	return t.noTools
}
