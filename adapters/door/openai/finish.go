package openai

import (
	"bytes"
	"strconv"
)

// finish makes the checks between fields, and adds the fields that every request gets: the model's name and a
// bound on the answer's tokens.
func (r *reader) finish() *Error {
	if r.seen.streamOptions && !r.seen.stream {
		return fault(faultNeeds, "stream").at("stream_options")
	}
	if r.seen.topLogprobs && !r.seen.logprobs {
		return fault(faultNeeds, "logprobs").at("top_logprobs")
	}
	if err := r.checkFit(); err != nil {
		return err
	}
	if err := r.checkDry(); err != nil {
		return err
	}
	if err := r.schemas.check(r.route, max(1, r.seen.answers)); err != nil {
		return err
	}
	if err := r.finishTools(); err != nil {
		return err
	}
	r.finishSwitches()
	if format := r.seen.textFormat; format != nil {
		r.name("response_format")
		r.out = append(r.out, format...)
	}
	if r.seen.seeded && !r.seen.cachePrompt {
		// What is cached decides in which batches the prompt is computed, and rounding differs between batches.
		r.name("cache_prompt")
		r.out = append(r.out, "false"...)
	}
	if err := r.finishSuffix(); err != nil {
		return err
	}
	r.name("model")
	r.out = appendQuoted(r.out, r.serving.Model.Name)
	if bound := forms[r.route].bound; bound != "" {
		limit := int64(r.serving.Model.Context)
		if r.seen.maxTokensBy != "" && r.seen.maxTokens != noBound {
			limit = min(limit, r.seen.maxTokens)
		}
		r.name(bound)
		r.out = strconv.AppendInt(r.out, limit, 10)
	}
	r.out = append(r.out, '}')
	return nil
}

// LimitAnswer lowers the bound on the tokens of an answer, which Check writes at the end of a body, to limit. It reports
// false for a route without answers.
func LimitAnswer(route Route, body []byte, limit int) ([]byte, bool) {
	begin := len(body) - 1 // the closing brace
	for begin > 0 && '0' <= body[begin-1] && body[begin-1] <= '9' {
		begin--
	}
	bound, err := strconv.Atoi(string(body[begin : len(body)-1]))
	if forms[route].bound == "" || err != nil {
		return body, false
	}
	return append(strconv.AppendInt(body[:begin], int64(min(bound, limit)), 10), '}'), true
}

// BoundOf returns the bound on the tokens of an answer, which Check writes at the end of a body. It is 0 for a route without
// answers.
func BoundOf(route Route, body []byte) int {
	end := bytes.LastIndexByte(body, ':') + 1
	if forms[route].bound == "" || end < 1 || end > len(body)-1 {
		return 0
	}
	bound, err := strconv.Atoi(string(body[end : len(body)-1]))
	if err != nil {
		return 0
	}
	return bound
}

// form is how a route's format writes what finish writes.
type form struct {
	fields *object
	bound  string // the field that bounds the answer's tokens; empty if there is no answer
	// required is the value of tool_choice for a call of any tool.
	required string
	// schemaPath leads from a tool to its schema, and formatPath from the request to the schema of the answer.
	schemaPath, formatPath []string
}

var forms = [...]form{
	Chat: {chatRequest, "max_tokens", `"required"`, []string{"function", "parameters"}, []string{"response_format", "json_schema", "schema"}},

	Completions: {fields: completionRequest, bound: "max_tokens"},
	Embeddings:  {fields: embeddingRequest},
	Infill:      {fields: infillRequest, bound: "n_predict"},

	Responses:   {responsesRequest, "max_output_tokens", `"required"`, []string{"parameters"}, []string{"text", "format", "schema"}},
	Messages:    {messagesRequest, "max_tokens", `{"type":"any"}`, []string{"input_schema"}, nil},
	CountTokens: {messagesRequest, "", `{"type":"any"}`, []string{"input_schema"}, nil},
}

// finishTools writes the tools. The runtime has no choice of one function by name. Leaving the other functions
// out and requiring a call means the same.
func (r *reader) finishTools() *Error {
	r.changeTools()
	choice := r.seen.toolChoice
	if choice == "" && len(r.tools) == 0 && r.seen.toolNamed == "" {
		return nil
	}
	if len(r.tools) == 0 {
		if choice == "none" || choice == "auto" {
			return nil
		}
		return fault(faultNeeds, "tools").at("tool_choice")
	}
	anthropic := r.route == Messages || r.route == CountTokens
	if anthropic && choice == "none" {
		return nil // the runtime would offer them
	}
	found := r.seen.toolNamed == ""
	r.name("tools")
	r.out = append(r.out, '[')
	for i, tool := range r.tools {
		if named := r.seen.toolNamed; named != "" && r.toolNames[i] != named {
			continue
		}
		found = true
		r.comma()
		r.out = append(r.out, tool...)
	}
	r.out = append(r.out, ']')
	if !found {
		at := fault(faultNotOneOf, "the names in tools").at("name")
		if r.route == Chat {
			at = at.at("function")
		}
		return at.at("tool_choice")
	}
	switch {
	case r.seen.toolNamed != "" || choice == "required":
		r.name("tool_choice")
		r.out = append(r.out, forms[r.route].required...)
	case choice != "" && anthropic:
		r.name("tool_choice")
		r.out = append(r.out, `{"type":"auto"}`...)
	case choice != "":
		r.name("tool_choice")
		r.out = appendQuoted(r.out, choice)
	}
	return nil
}
