package frontdoor

import (
	"encoding/json"

	"companion/adapters/door/openai"
	"companion/adapters/door/relay"
	"companion/messages"
)

// Requests that share the memory of one context (L15) must fit it together: the runtime ends all of them when it is full.
// So a request runs with others only with a prompt that leaves a part of its share for the answer, and prompt and answer
// stay within the share. Any other request runs alone, and has the whole context.

const (
	// A prompt takes at most promptParts of shareParts of a share; the rest is for the answer.
	promptParts, shareParts = 3, 4
	// templateTokens is more than a chat template adds to a short request.
	templateTokens = 1024
)

// counters are the routes of the runtime that count the tokens of a request. Without one, a long request runs alone.
var counters = map[string]string{
	routeChat: "/v1/chat/completions/input_tokens", routeResponses: "/v1/responses/input_tokens", routeMessages: routeCountTokens,
}

// shares reports whether requests to the route share a context.
func (v *visit) shares(m messages.Model) bool {
	return m.Share > 0 && m.Share < m.Context && v.route != routeCountTokens && v.route != routeEmbeddings
}

// fits lowers the bound of an answer, so that the request with a prompt of at most prompt tokens stays within its share.
// It reports false if the request must run alone.
func (v *visit) fits(m messages.Model, body *bodyBuffer, prompt int) bool {
	if prompt > m.Share*promptParts/shareParts {
		return false
	}
	limited, ok := openai.LimitAnswer(bodies[v.route], body.bytes, m.Share-prompt)
	if ok {
		body.bytes = limited // in place: a lower number is not longer
	}
	return ok
}

// surely reports fits of a prompt that is not counted. A token has at least one byte, and templates write objects with
// blanks.
func (v *visit) surely(m messages.Model, body *bodyBuffer, about openai.Result) bool {
	return !about.Images && !about.Audio && v.fits(m, body, 2*len(body.bytes)+templateTokens)
}

// counted reports fits of a prompt that the runtime counts. The request is in the quarantine meanwhile, because the runtime
// applies its chat template and reads its schemas. A runtime that refuses to count lets the request run alone. ok is false
// when the call broke off; result says how.
func (v *visit) counted(s messages.Snapshot, body *bodyBuffer, about openai.Result, print fingerprint) (fit, ok bool, result relay.Result) {
	path, countable := counters[v.route]
	if !countable || about.Images || about.Audio {
		return false, true, relay.Result{}
	}
	v.watched = v.d.quarantine.watch(s, print, true)
	defer func() {
		if ok { // the runtime survived, which proves nothing about the request itself
			result = relay.Result{Whole: true, Reason: messages.ReasonBadRequest}
		}
		v.watched.leave(result)
	}()
	raw, result := v.d.relay.Fetch(v.r.Context(), relay.Call{
		Target: relay.Target{Launch: s.Launch, BackEnd: s.BackEnd}, Path: path, Body: body.bytes, Gone: v.conn.Gone,
		Sending: v.watched.sending,
	})
	if result.Reason != messages.ReasonOK {
		return false, result.Whole, result
	}
	var told struct {
		Tokens int `json:"input_tokens"`
	}
	if json.Unmarshal(raw, &told) != nil || told.Tokens < 1 {
		return false, true, result
	}
	return v.fits(s.Model, body, told.Tokens), true, result
}

// run gives a checked request its slots and sends it to the runtime. s is what it was checked against.
func (v *visit) run(s messages.Snapshot, checked *bodyBuffer, about openai.Result, print fingerprint, n need) {
	count := v.shares(s.Model) && !v.surely(s.Model, checked, about)
	again := false
	serve := func(now messages.Snapshot) {
		// While the request waited, the runtime may have died with an equal request in it.
		mustBeAlone, p := v.quarantined(&print)
		switch {
		case p != nil:
			v.refuse(p)
		case now.Model != s.Model || mustBeAlone && !n.alone: // checked against another model, or not alone
			v.refuse(refusal(messages.ReasonNotReady))
		case about.Probabilities && now.Speculates: // another runtime was started meanwhile
			v.refuse(refusal(messages.ReasonNotReady))
		case about.ToolForced && v.noTools(now):
			v.refuse(&problem{reason: messages.ReasonBadRequest, param: "tool_choice", text: textNoTools + shapeOf(v.route).insteadOfTools()})
		case count:
			fit, ok, result := v.counted(now, checked, about, print)
			switch {
			case !ok:
				v.ending = result.Ending
				v.refuse(explain(result, about, now.Model.Context))
				v.left(result.Gone, false)
			case fit:
				v.relay(now, checked.bytes, about, print)
			default:
				again = true
			}
		default:
			v.relay(now, checked.bytes, about, print)
		}
	}
	v.inference(n, serve)
	if again { // its prompt is too long to run with others
		count, n.slots = false, v.d.bounds.MaxInFlight
		v.inference(n, serve)
	}
}
