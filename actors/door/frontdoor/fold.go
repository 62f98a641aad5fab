package frontdoor

import (
	"net/http"

	"companion/adapters/door/openai"
	"companion/adapters/door/relay"
	"companion/messages"
)

// relay sends a checked body to the runtime and passes the answer on.
func (v *visit) relay(s messages.Snapshot, checked []byte, about openai.Result, print fingerprint) {
	if s.BackEnd == (messages.BackEnd{}) {
		v.refuse(refusal(messages.ReasonRuntimeUnavailable))
		return
	}
	var result relay.Result
	v.watched = v.d.quarantine.watch(s, print, v.route == routeCountTokens)
	defer func() { v.watched.leave(result) }() // also after a panic
	send := func(body []byte) relay.Result {
		return v.d.relay.Do(v.r.Context(), v.w, relay.Call{
			Target: relay.Target{Launch: s.Launch, BackEnd: s.BackEnd}, Path: v.route, Body: body, Stream: about.Stream, Gone: v.conn.Gone,
			Sending: v.watched.sending, Heard: v.d.stats.heard, Events: shapeOf(v.route).events(s.Model.Name, bounds{openai.BoundOf(bodies[v.route], body), s.Model.Context}),
		})
	}
	first := send(checked)
	if first.Template && !first.Written {
		again, ok := v.folded(checked, send)
		if ok {
			first = again
			v.d.folds.Store(uint64(s.Launch))
		}
	}
	result = first
	v.reason, v.status, v.tokens, v.first, v.ending = result.Reason, http.StatusOK, result.Tokens, result.First, result.Ending
	v.judgeSpeculation(s, result)
	switch {
	case !result.Written && v.revoked():
		v.refuse(refusal(messages.ReasonInvalidToken))
	case !result.Written:
		v.refuse(explain(result, about, s.Model.Context))
	}
	v.left(result.Gone, result.Written)
}

// folded folds a conversation that the model's chat template refused, and sends it again. It reports false if that did not
// help; the client then gets the refusal.
func (v *visit) folded(body []byte, send func([]byte) relay.Result) (result relay.Result, ok bool) {
	room := openai.FoldMemory(body)
	if !v.d.memory.take(room) {
		return result, false
	}
	defer v.d.memory.give(room)
	folded, changed := openai.Fold(bodies[v.route], body)
	if !changed {
		return result, false
	}
	result = send(folded)
	return result, !result.Template
}

// fold folds a body before it is sent, because the template refused another conversation of this launch.
func (v *visit) fold(body *bodyBuffer) {
	room := openai.FoldMemory(body.bytes)
	if !v.d.memory.take(room) {
		return
	}
	defer v.d.memory.give(room)
	if folded, changed := openai.Fold(bodies[v.route], body.bytes); changed {
		body.become(folded)
	}
}
