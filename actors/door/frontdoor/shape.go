package frontdoor

import (
	"encoding/json"
	"strings"

	"companion/adapters/door/relay"
	"companion/messages"
)

// shape is the format of a route's errors and events (L10, L13).
type shape uint8

const (
	shapeOpenAI shape = iota
	shapeResponses
	shapeAnthropic
	shapeLlama
)

// shapeOf returns the format of a path, also of one that is refused.
func shapeOf(path string) shape {
	switch {
	case path == routeMessages || strings.HasPrefix(path, routeMessages+"/"):
		return shapeAnthropic
	case path == routeResponses:
		return shapeResponses
	case path == routeInfill:
		return shapeLlama
	}
	return shapeOpenAI
}

// insteadOfTools is what a client of the format can do where the model cannot be made to call a tool.
func (s shape) insteadOfTools() string {
	switch s {
	case shapeAnthropic:
		return "Use {\"type\":\"auto\"}, or POST /v1/chat/completions with `response_format` and a JSON schema."
	case shapeResponses:
		return "Use `auto`, or `text.format` with a JSON schema."
	}
	return "Use `auto`, or `response_format` with a JSON schema."
}

// bounds are what ends an answer early: the tokens that the client allows, and those of the context.
type bounds struct{ answer, context int }

// cut reports whether an answer of so many tokens was cut off.
func (b bounds) cut(prompt, answer int) bool {
	return b.answer > 0 && answer >= b.answer || b.context > 0 && prompt+answer >= b.context-1
}

// events returns how the streams of the format end and fail; model makes the answer, and b bounds it. OpenAI's chat is the
// relay's default.
func (s shape) events(model string, b bounds) relay.Events {
	switch s {
	case shapeAnthropic:
		return relay.Events{Last: []string{"event: message_stop\n"}, Error: anthropicErrorEvent, Rewrite: newAnthropicEvents}
	case shapeResponses:
		// The events of one exchange share the rewriter, so that an error has the next number.
		r := newResponseEvents(model, b)
		return relay.Events{
			Last:    []string{"event: response.completed\n", "event: response.incomplete\n", "event: response.failed\n"},
			Error:   func(reason messages.Reason) []byte { return responsesErrorEvent(reason, r.sequence) },
			Rewrite: func() relay.Rewriter { return r },
		}
	case shapeLlama: // each event holds the generated text, in which quotes are escaped
		return relay.Events{LastHas: `"stop":true`}
	}
	return relay.Events{}
}

var anthropicErrorTypes = map[int]string{
	400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
	413: "request_too_large", 429: "rate_limit_error", 502: "api_error", 503: "overloaded_error",
}

// encodeAnthropic returns the status and the Anthropic error object.
func (p *problem) encodeAnthropic() (int, []byte) {
	status, text := p.said()
	var e struct {
		Type  string `json:"type"`
		Error struct {
			Type    string          `json:"type"`
			Message string          `json:"message"`
			Code    messages.Reason `json:"code"`
			Param   *string         `json:"param,omitempty"`
		} `json:"error"`
	}
	e.Type, e.Error.Type, e.Error.Message, e.Error.Code = "error", anthropicErrorTypes[status], text, p.reason
	if p.param != "" {
		e.Error.Param = &p.param
	}
	return status, encoded(e)
}

func anthropicErrorEvent(r messages.Reason) []byte {
	_, body := refusal(r).encodeAnthropic()
	return []byte("event: error\ndata: " + string(body) + "\n\n")
}

// responsesErrorEvent has the error twice: as the documentation of the format shows it, and as its libraries look
// for it.
func responsesErrorEvent(r messages.Reason, sequence int) []byte {
	status, text := refusal(r).said()
	var e struct {
		Type     string          `json:"type"`
		Code     messages.Reason `json:"code"`
		Message  string          `json:"message"`
		Param    *string         `json:"param"`
		Sequence int             `json:"sequence_number"`
		Error    struct {
			Type    string          `json:"type"`
			Code    messages.Reason `json:"code"`
			Message string          `json:"message"`
			Param   *string         `json:"param"`
		} `json:"error"`
	}
	e.Type, e.Code, e.Message, e.Sequence = "error", r, text, sequence
	e.Error.Type, e.Error.Code, e.Error.Message = errorTypes[status], r, text
	return []byte("event: error\ndata: " + string(encoded(e)) + "\n\n")
}

func encoded(v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic("a struct of strings cannot be encoded: " + err.Error())
	}
	return body
}
