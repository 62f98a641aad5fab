package frontdoor

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"companion/adapters/door/relay"
	"companion/messages"
)

// modelList is the OpenAI list of models, with the context length that llama.cpp adds under meta.
type modelList struct {
	Object string     `json:"object"`
	Data   []modelRow `json:"data"`
}

type modelRow struct {
	ID      string    `json:"id"`
	Object  string    `json:"object"`
	Created int64     `json:"created"`
	OwnedBy string    `json:"owned_by"`
	Meta    modelMeta `json:"meta"`

	// In the Anthropic form, of a model that is asked for by its name.
	Type        string `json:"type,omitempty"`
	DisplayName string `json:"display_name,omitempty"`
	CreatedAt   string `json:"created_at,omitempty"`
}

type modelMeta struct {
	Context int `json:"n_ctx"`
}

// root answers GET / with the base URLs. Programs probe the address that they are given, as Claude Code does with HEAD, before
// they use it. The answer does not depend on the model.
func (v *visit) root() {
	v.write(struct {
		OpenAI    string `json:"openai"`
		Anthropic string `json:"anthropic"`
	}{v.d.origin + "/v1", v.d.origin})
}

// models answers the user's GET /v1/models from the snapshot. It needs no slot in the runtime, so a program
// that lists the models at its start does not wait for other programs. The other questions of the gate are
// asked (A6).
func (v *visit) models() {
	s := v.d.snapshot.Get()
	if reason := v.mayRun(s); reason != messages.ReasonOK {
		v.refuse(refusal(reason))
		return
	}
	v.list(s)
}

// model answers GET /v1/models/{id}.
func (v *visit) model(id string) {
	s := v.d.snapshot.Get()
	if reason := v.mayRun(s); reason != messages.ReasonOK {
		v.refuse(refusal(reason))
		return
	}
	if s.Model.Name != "" && id != s.Model.Name {
		v.refuse(&problem{reason: messages.ReasonModelNotFound, param: "model", limit: s.Model.Name})
		return
	}
	row := rowOf(s)
	row.Type, row.DisplayName, row.CreatedAt = "model", s.Model.Name, s.Since.UTC().Format(time.RFC3339)
	v.send(s, row)
}

func rowOf(s messages.Snapshot) modelRow {
	return modelRow{
		ID: s.Model.Name, Object: "model", Created: s.Since.Unix(), OwnedBy: "companion", Meta: modelMeta{s.Model.Context},
	}
}

// probe answers the health actor in starting and in ready, without admission and resources, so that the
// user's load cannot starve it (A4). It asks the runtime, which must name the manifest's model.
func (v *visit) probe() {
	s := v.d.snapshot.Get()
	if s.State != messages.StateStarting && s.State != messages.StateReady {
		v.refuse(refusal(messages.ReasonNotReady))
		return
	}
	if s.BackEnd == (messages.BackEnd{}) {
		v.refuse(refusal(messages.ReasonRuntimeUnavailable))
		return
	}
	raw, result := v.d.relay.Fetch(v.r.Context(), relay.Call{
		Target: relay.Target{Launch: s.Launch, BackEnd: s.BackEnd}, Path: routeModels, Gone: v.conn.Gone,
	})
	if result.Reason != messages.ReasonOK {
		v.refuse(refusal(result.Reason))
		v.left(result.Gone, false)
		return
	}
	var told struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if json.Unmarshal(raw, &told) != nil || len(told.Data) != 1 || told.Data[0].ID != s.Model.Name {
		v.refuse(refusal(messages.ReasonUpstreamFailed))
		return
	}
	v.list(s)
}

// list writes the list with the served model.
func (v *visit) list(s messages.Snapshot) { v.send(s, modelList{"list", []modelRow{rowOf(s)}}) }

func (v *visit) send(s messages.Snapshot, content any) {
	if s.Model.Name == "" {
		v.refuse(refusal(messages.ReasonRuntimeUnavailable))
		return
	}
	v.write(content)
}

func (v *visit) write(content any) {
	answer, err := json.Marshal(content)
	if err != nil {
		v.refuse(refusal(messages.ReasonUpstreamFailed))
		return
	}
	h := v.w.Header()
	h["Content-Type"] = typeJSON
	h["Content-Length"] = []string{strconv.Itoa(len(answer))}
	v.reason, v.status = messages.ReasonOK, http.StatusOK
	if _, err := v.w.Write(answer); err != nil {
		v.gone = true
	}
}
