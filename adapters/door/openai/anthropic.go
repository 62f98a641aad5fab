package openai

import "bytes"

// The table of Anthropic messages, also of their tokens' count. The runtime answers both itself.

var messagesRequest = newObject(
	field{name: "messages", rule: list{of: turn, min: 1}, required: true, doc: "the conversation"},
	field{name: "model", rule: hiddenRule{modelRule{}}, doc: docModel},
	field{name: "system", rule: either{'"': text{prompt: true}, '[': list{of: systemBlock}}, doc: "what the model is told first"},
	field{name: "max_tokens", rule: hiddenRule{tokenBound{"max_tokens"}}, doc: "longest answer; the context when absent"},
	field{name: "stream", rule: boolean{note: func(s *seen, on bool) { s.stream = on }}, doc: "answer by server-sent events"},
	field{name: "stop_sequences", rule: stopList, doc: "where the answer ends"},
	field{name: "temperature", rule: number{0, 2}, doc: "randomness"},
	field{name: "top_p", rule: number{0, 1}, doc: "nucleus"},
	field{name: "top_k", rule: topK{}, doc: "0 or -1 turns it off"},
	field{name: "tools", rule: hiddenRule{list{of: inputTool{}, max: maxTools}}, doc: "functions that the model may call"},
	field{name: "tool_choice", rule: hiddenRule{anthropicChoice}, doc: "whether it must call one; a tool named here is the only one offered"},
	field{name: "thinking", rule: thinking, doc: "whether a model that can think does"},
	field{name: "chat_template_kwargs", rule: hiddenRule{templateFlags}, doc: "llama.cpp; `enable_thinking` alone"},
	field{name: "output_config", rule: hiddenRule{outputConfig}, doc: "`effort` is left out: the runtime has no such switch for this format"},
	field{name: "metadata", action: drop, doc: noStore},
	field{name: "service_tier", action: drop, doc: "there is one"},
	field{name: "inference_geo", action: drop, doc: "the model runs on this machine"},
	field{name: "speed", action: drop, doc: "there is one"},
	field{name: "context_management", action: drop, doc: "the conversation is used as it is sent"},
	field{name: "betas", action: drop, doc: noBetas}, field{name: "anthropic_beta", action: drop, doc: noBetas}, field{name: "anthropic_version", action: drop, doc: noBetas},
	field{name: "user", action: drop, doc: noAccounts}, field{name: "stream_options", action: drop, doc: "the last events have the token counts"},
	field{name: "diagnostics", action: drop, doc: noStore},
	field{name: "stop", action: refuse, doc: "write `stop_sequences`"},
	field{name: "extra_body", rule: only{"{}", "it belongs to the library; put its fields next to the others"}, doc: "an empty one says nothing"},
	cacheControl,
	field{name: "mcp_servers", rule: only{"[]", "nothing is fetched; give the tools in `tools` and call them yourself"}, doc: "nothing is fetched"},
	field{name: "container", action: refuse, doc: "no code is run; leave it out"},
	field{name: "output_format", action: refuse, doc: noAnthropicFormat},
	field{name: "system_prompt", action: refuse, doc: "write `system`"},
)

const noBetas = "there is one version of this format here"

const noAnthropicFormat = "the runtime enforces no schema in this format; use a tool with `tool_choice`, or POST /v1/chat/completions with `response_format`"

var outputConfig = newObject(
	field{name: "effort", action: drop, doc: "the runtime has no such switch for this format"},
	field{name: "task_budget", action: drop, doc: "only a wish; `max_tokens` bounds the answer"},
	field{name: "format", action: refuse, doc: noAnthropicFormat},
)

var thinking = newObject(
	field{name: "type", rule: oneOf("enabled", "disabled", "adaptive"), required: true, doc: "whether to think"},
	field{name: "budget_tokens", rule: integer{min: 0, max: 1 << 30}, doc: "longest thought"},
	field{name: "display", action: drop, doc: "thoughts are shown"},
)

// turn is one message.
var turn = func() *object {
	o := newObject(
		field{name: "role", rule: oneOf("user", "assistant", "system"), required: true, doc: "who speaks"},
		field{name: "content", rule: content{list{of: block, min: 1}}, required: true, doc: "what is said: text or blocks"},
		field{name: "id", action: drop, doc: ofAnAnswer}, field{name: "type", action: drop, doc: ofAnAnswer},
		field{name: "model", action: drop, doc: ofAnAnswer}, field{name: "usage", action: drop, doc: ofAnAnswer},
		field{name: "stop_reason", action: drop, doc: ofAnAnswer}, field{name: "stop_sequence", action: drop, doc: ofAnAnswer},
		cacheControl, providerFields,
	)
	o.before = (*seen).piece
	return o
}()

var systemBlock = &union{of: map[string]rule{"text": textBlock}}

var (
	textBlock = newObject(typeField("text"),
		field{name: "text", rule: text{prompt: true}, required: true, doc: "text"},
		field{name: "citations", action: drop, doc: ofAnAnswer}, cacheControl,
	)
	imageBlock = newObject(typeField("image"),
		field{name: "source", rule: imageSource, required: true, note: func(s *seen) { s.images = true }, doc: "a picture, for models that see"},
		cacheControl,
	)
	// result holds what a tool's result may have.
	result = &union{of: map[string]rule{"text": textBlock, "image": imageBlock}, refused: map[string]string{
		"document": noFiles, "search_result": noFiles,
	}, dropped: map[string]string{"tool_reference": ofAnAnswer}}
)

var imageSource = &union{of: map[string]rule{"base64": newObject(typeField("base64"),
	field{name: "media_type", rule: text{min: 1, max: 64, only: func(b []byte) bool { return each(b, mediaByte) }, what: "a media type"}, required: true, doc: "its format"},
	field{name: "data", rule: text{min: 1, only: base64, what: "base64"}, required: true, doc: "the picture"},
)}, refused: map[string]string{
	"url":  "nothing is fetched; send the picture itself as `base64`",
	"file": "no files are kept here; send the picture itself as `base64`",
}}

// block is one piece of a message.
var block = &union{of: map[string]rule{
	"text":  textBlock,
	"image": imageBlock,
	"thinking": newObject(typeField("thinking"),
		field{name: "thinking", rule: text{past: true}, required: true, doc: "an assistant's earlier thought"},
		field{name: "signature", action: drop, doc: ofAnAnswer}, cacheControl,
	),
	"tool_use": newObject(typeField("tool_use"),
		field{name: "id", rule: text{min: 1, max: 256}, required: true, doc: "to answer by"},
		field{name: "name", rule: longToolName, required: true, doc: "which tool"},
		field{name: "input", rule: inputRule{}, required: true, doc: "its arguments, an object"},
		field{name: "caller", action: drop, doc: ofAnAnswer}, cacheControl,
	),
	"tool_result": newObject(typeField("tool_result"),
		field{name: "tool_use_id", rule: text{min: 1, max: 256}, required: true, doc: "which call it answers"},
		field{name: "content", rule: content{list{of: result, min: 1}}, doc: "what the tool said"},
		field{name: "is_error", action: drop, doc: "the model reads it in the content"}, cacheControl,
	),
	"compaction": newObject(typeAs("compaction", "text"),
		field{name: "content", rule: renamed{text{prompt: true}, "text"}, required: true, doc: "a summary of what was said before, as text"},
		field{name: "tool_changes", action: drop, doc: "`tools` has the tools"}, field{name: "encrypted_content", action: drop, doc: "only its maker can read it"},
		cacheControl,
	),
	"tool_addition": leftOut{newObject(typeField("tool_addition"),
		field{name: "tool", rule: changedTool(false), required: true, doc: "a tool that is offered from here on"}, cacheControl,
	)},
	"tool_removal": leftOut{newObject(typeField("tool_removal"),
		field{name: "tool", rule: changedTool(true), required: true, doc: "a tool that is no longer offered"}, cacheControl,
	)},
}, dropped: map[string]string{"redacted_thinking": "only its maker can read it"}, refused: map[string]string{
	"document": noFiles, "search_result": noFiles, "container_upload": "no code is run; leave it out",
	"server_tool_use": hostedTool, "web_search_tool_result": hostedTool, "web_fetch_tool_result": hostedTool, "mcp_tool_use": hostedTool, "mcp_tool_result": hostedTool,
}}

const hostedTool = "tools that a provider runs do not exist here; call tools yourself"

var longToolName = text{min: 1, max: 128, only: nameBytes, what: "letters, digits, _ and -, at most 128"}

// inputRule is an object of free JSON.
type inputRule struct{}

func (inputRule) describe() string { return "an object of free JSON" }

func (i inputRule) read(r *reader) *Error {
	if err := r.kind('{', "an object"); err != nil {
		return err
	}
	mark := len(r.out)
	err := (&anything{}).read(r)
	r.seen.textBytes += len(r.out) - mark
	return err
}

// inputTool is a tool, which finishTools writes.
type inputTool struct{}

func (inputTool) describe() string { return "a tool: `name`, `description`, `input_schema`" }

func (inputTool) read(r *reader) *Error {
	kind, err := r.typeAhead()
	if err != nil {
		return err
	}
	if len(kind) > 0 && string(kind) != "custom" {
		return fault(faultRefused, hostedTool).at("type")
	}
	return r.keepTool(anthropicTool)
}

// keepTool reads a tool and keeps it for finishTools.
func (r *reader) keepTool(o *object) *Error {
	mark := len(r.out)
	if err := o.read(r); err != nil {
		return err
	}
	r.tools = append(r.tools, bytes.Clone(r.out[mark:]))
	return nil
}

var anthropicTool = newObject(
	field{name: "type", rule: hiddenRule{oneOf("custom")}, doc: "always `custom`, or absent"},
	field{name: "name", rule: toolName{longToolName}, required: true, doc: longToolName.what},
	field{name: "description", rule: text{max: 1 << 16, prompt: true}, doc: "for the model"},
	field{name: "input_schema", rule: schema{}, required: true, doc: "JSON Schema of the arguments"},
	field{name: "strict", action: drop, doc: "the schema is always enforced"},
	field{name: "input_examples", action: drop, doc: "the runtime does not show them; put them into the description"},
	field{name: "eager_input_streaming", action: drop, doc: "arguments are streamed as they are made"},
	field{name: "defer_loading", action: drop, doc: "every tool is offered"},
	field{name: "allowed_callers", action: drop, doc: "only the model calls it"},
	cacheControl,
)

var anthropicChoice = func() *object {
	o := newObject(
		field{name: "type", required: true, rule: choice{
			words: []string{"auto", "any", "tool", "none"},
			note:  func(s *seen, w string) { s.toolChoice = w },
		}, doc: "`any` and `tool` require a call"},
		field{name: "name", rule: toolNamed{longToolName}, doc: "the tool to call, with `tool`"},
		field{name: "disable_parallel_tool_use", action: drop, doc: "the model calls as its template lets it"},
	)
	o.after = func(r *reader) *Error {
		switch s := &r.seen; {
		case s.toolChoice == "tool" && s.toolNamed == "":
			return fault(faultMissing, "").at("name")
		case s.toolChoice != "tool" && s.toolNamed != "":
			return fault(faultConflict, "type").at("name")
		case s.toolChoice == "tool", s.toolChoice == "any":
			s.toolChoice = "required"
		}
		return nil
	}
	return o
}()
