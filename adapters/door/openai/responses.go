package openai

// The table of OpenAI responses. The runtime answers them itself; what it reads differently from OpenAI is written
// as it reads it.

var responsesRequest = newObject(join(
	[]field{
		{name: "input", rule: either{'"': text{prompt: true}, '[': list{of: item, min: 1}}, required: true, doc: "a text, or the conversation so far"},
		{name: "model", rule: hiddenRule{modelRule{}}, doc: docModel},
		{name: "instructions", rule: text{prompt: true}, doc: "what the model is told first"},
		{name: "max_output_tokens", rule: hiddenRule{tokenBound{"max_output_tokens"}}, doc: "longest answer; the context when absent"},
		{name: "stream", rule: boolean{note: func(s *seen, on bool) { s.stream = on }}, doc: "answer by server-sent events"},
		{name: "tools", rule: hiddenRule{list{of: flatTools, max: maxTools}}, doc: "functions that the model may call"},
		{name: "tool_choice", rule: hiddenRule{either{'"': toolChoiceWord, '{': flatChoice}}, doc: "whether it must call one; a function named here is the only one offered"},
		{name: "parallel_tool_calls", rule: boolean{}, doc: "whether it may call several at once"},
		{name: "text", rule: hiddenRule{textRule{}}, doc: "the form of the answer"},
		{name: "response_format", action: refuse, doc: "this route has it as `text.format`"},
		{name: "messages", action: refuse, doc: "this route has them as `input`"},
		{name: "reasoning", rule: reasoning, doc: "for models that reason"},
		{name: "stop", rule: stop{}, doc: "llama.cpp; where the answer ends"},
		{name: "chat_template_kwargs", rule: hiddenRule{templateFlags}, doc: "llama.cpp; `enable_thinking` alone"},
		{name: "stream_options", action: drop, doc: "the last event has the token counts"},
		{name: "top_logprobs", rule: only{"0", "this route gives none; use POST /v1/chat/completions"}, doc: "this route gives none"},
		{name: "include", action: drop, doc: "an answer has all that there is"},
		{name: "truncation", action: drop, doc: "a prompt that does not fit is refused"},
		{name: "max_tool_calls", action: drop, doc: "it counts tools that a provider runs"},
		{name: "client_metadata", action: drop, doc: noStore},
		{name: "background", rule: only{"false", "an answer is sent to its request; leave it out"}, doc: "an answer is sent to its request"},
		{name: "context_management", action: drop, doc: "the conversation is used as it is sent"},
		{name: "previous_response_id", action: refuse, doc: noState}, {name: "conversation", action: refuse, doc: noState},
		{name: "prompt", action: refuse, doc: "no prompts are kept here; write it into `input`"},
	}, sampling, droppedFields, foreignFields, forbiddenFields)...)

const noState = "no answer is kept here; send the whole conversation in `input`"

var reasoning = newObject(
	field{name: "effort", rule: choice{words: efforts.words, note: func(s *seen, w string) { s.noEffort = w == "none" }}, doc: "how much; `none` also turns thinking off"},
	field{name: "summary", action: drop, doc: "the reasoning itself is sent"},
	field{name: "generate_summary", action: drop, doc: "the reasoning itself is sent"},
	field{name: "context", action: drop, doc: "the conversation is used as it is sent"},
)

// item is one piece of the conversation.
var item = &union{byDefault: "message", of: map[string]rule{
	"message": responseMessage,
	"function_call": newObject(typeField("function_call"),
		field{name: "call_id", rule: text{min: 1, max: 256}, required: true, doc: "to answer by"},
		field{name: "name", rule: longToolName, required: true, doc: "which function"},
		field{name: "arguments", rule: arguments{}, required: true, doc: "JSON in a string"},
		field{name: "id", action: drop, doc: ofAnAnswer}, field{name: "status", action: drop, doc: ofAnAnswer},
		field{name: "namespace", action: drop, doc: ofAnAnswer}, field{name: "parsed_arguments", action: drop, doc: ofAnAnswer},
		field{name: "caller", action: drop, doc: ofAnAnswer}, providerFields,
	),
	"function_call_output": newObject(typeField("function_call_output"),
		field{name: "call_id", rule: text{min: 1, max: 256}, required: true, doc: "which call it answers"},
		field{name: "output", rule: content{list{of: outputPart, min: 1}}, required: true, doc: "what the function said"},
		field{name: "id", action: drop, doc: ofAnAnswer}, field{name: "status", action: drop, doc: ofAnAnswer},
		field{name: "caller", action: drop, doc: ofAnAnswer}, providerFields,
	),
}, dropped: map[string]string{
	"reasoning":       "the model reads what was said, not how it was found",
	"compaction":      "only its maker can read it",
	"web_search_call": "it has no text that the model could read", "mcp_list_tools": "only functions are offered to the model",
}, refused: map[string]string{
	"item_reference": noState, "file_search_call": hostedTool, "computer_call": hostedTool, "computer_call_output": hostedTool,
	"code_interpreter_call": hostedTool, "image_generation_call": hostedTool,
	"local_shell_call": hostedTool, "local_shell_call_output": hostedTool, "mcp_call": hostedTool,
	"mcp_approval_request": hostedTool, "mcp_approval_response": hostedTool,
	"custom_tool_call": functionsOnly, "custom_tool_call_output": functionsOnly,
}}

const functionsOnly = "only tools of type `function` exist here"

var responseMessage = func() *object {
	o := newObject(
		field{name: "type", rule: hiddenRule{constant{"message", "message"}}, doc: "the kind of object; may be absent"},
		field{name: "role", required: true, rule: choice{
			words: []string{"system", "developer", "user", "assistant"},
			note:  func(s *seen, w string) { s.message.role = w },
		}, doc: "who speaks"},
		field{name: "content", rule: content{list{of: responsePart, min: 1}}, required: true, doc: "what is said: text or parts"},
		field{name: "id", action: drop, doc: ofAnAnswer}, field{name: "status", action: drop, doc: ofAnAnswer},
		field{name: "phase", action: drop, doc: ofAnAnswer}, providerFields, cacheControl,
	)
	o.after = func(r *reader) *Error { // the runtime wants it of an assistant
		r.name("type")
		r.out = append(r.out, `"message"`...)
		return nil
	}
	return o
}()

// responsePart is one piece of a message. The runtime takes input_text in messages of all roles.
var responsePart = &union{of: map[string]rule{
	"input_text": inputText("input_text"), "output_text": inputText("output_text"), "text": inputText("text"),
	"input_image": newObject(typeField("input_image"),
		field{name: "image_url", rule: dataURL{}, required: true, note: func(s *seen) { s.images = true }, doc: "a `data:` URL; nothing is fetched"},
		field{name: "detail", action: drop, doc: "the runtime looks at the whole picture"},
		field{name: "file_id", action: refuse, doc: "no files are kept here; send the picture itself in `image_url`"},
		cacheControl,
	),
	"refusal": newObject(typeAs("refusal", "input_text"),
		field{name: "refusal", rule: renamed{text{}, "text"}, required: true, doc: "an assistant's earlier refusal, as text"},
	),
}, refused: map[string]string{"input_file": noFiles, "input_audio": "use POST /v1/chat/completions for sound"}}

// outputPart is one piece of what a function said.
var outputPart = &union{of: map[string]rule{
	"input_text": inputText("input_text"), "output_text": inputText("output_text"), "text": inputText("text"),
}, refused: map[string]string{"input_image": "the runtime reads only text of a function", "input_file": noFiles}}

// inputText is a text, of whichever type.
func inputText(kind string) *object {
	return newObject(typeAs(kind, "input_text"),
		field{name: "text", rule: text{prompt: true}, required: true, doc: "text"},
		field{name: "annotations", action: drop, doc: ofAnAnswer}, field{name: "logprobs", action: drop, doc: ofAnAnswer},
		field{name: "parsed", action: drop, doc: ofAnAnswer}, cacheControl, providerFields,
	)
}

// flatTools are the tools of responses. Tools that a provider runs are left out where a model without them answers
// from the conversation alone, and refused where the answer would miss the user's own data.
var flatTools = &union{of: map[string]rule{"function": flatTool{}}, dropped: map[string]string{
	"web_search": noHosted, "web_search_preview": noHosted, "image_generation": noHosted, "local_shell": noHosted,
	"shell": noHosted, "custom": noHosted, "apply_patch": noHosted, "tool_search": noHosted, "namespace": noHosted,
}, refused: map[string]string{
	"file_search": hostedTool, "code_interpreter": hostedTool, "computer": hostedTool, "computer_use_preview": hostedTool, "mcp": hostedTool,
}}

const noHosted = "only functions are offered to the model"

type flatTool struct{}

func (flatTool) describe() string { return "a function: `type`, `name`, `description`, `parameters`" }

func (flatTool) read(r *reader) *Error { return r.keepTool(flatFunction) }

var flatFunction = newObject(
	field{name: "type", rule: constant{"function", "function"}, required: true, doc: "always `function`"},
	field{name: "name", rule: toolName{longToolName}, required: true, doc: longToolName.what},
	field{name: "description", rule: text{max: 1 << 16, prompt: true}, doc: "for the model"},
	field{name: "parameters", rule: schema{}, doc: "JSON Schema of the arguments"},
	field{name: "strict", rule: boolean{}, doc: "kept"},
	field{name: "defer_loading", action: drop, doc: "every tool is offered"},
	cacheControl, providerFields,
)

var flatChoice = newObject(
	field{name: "type", rule: oneOf("function"), required: true, doc: "always `function`"},
	field{name: "name", rule: toolNamed{longToolName}, required: true, doc: "the function to call"},
)

// textRule is the field text. The runtime does not read it, so its format is written as response_format.
type textRule struct{}

func (textRule) describe() string { return "an object: `format`" }

func (textRule) read(r *reader) *Error { return textOptions.read(r) }

var textOptions = newObject(
	field{name: "format", rule: flatFormatRule{}, doc: "`text`, `json_object`, or `json_schema` with a schema"},
	field{name: "verbosity", action: drop, doc: "only a wish; say in a message how long the answer should be"},
)

// flatFormatRule is text.format.
type flatFormatRule struct{}

func (flatFormatRule) describe() string { return "an object: `type`, `schema`" }

func (flatFormatRule) read(r *reader) *Error {
	mark := len(r.out)
	r.seen.format.kind, r.seen.format.schema = "", false
	r.seen.inFormat = true
	defer func() { r.seen.inFormat = false }()
	if err := flatFormat.read(r); err != nil {
		return err
	}
	switch r.seen.format.kind {
	case "json_object":
		r.seen.textFormat = []byte(anyObject)
	case "json_schema":
		r.seen.textFormat = append(append([]byte(`{"type":"json_schema","json_schema":`), r.out[mark:]...), '}')
	}
	return nil
}

// flatFormat writes what response_format has in json_schema.
var flatFormat = func() *object {
	o := newObject(
		field{name: "type", required: true, rule: hiddenRule{choice{
			words: []string{"text", "json_object", "json_schema"},
			note:  func(s *seen, w string) { s.format.kind = w },
		}}, doc: "the kind of answer"},
		field{name: "name", rule: functionName, doc: "of the schema"},
		field{name: "description", rule: text{max: 1 << 16}, doc: "kept"},
		field{name: "schema", rule: schema{}, note: func(s *seen) { s.format.schema = true }, doc: "with `type` `json_schema`"},
		field{name: "strict", rule: boolean{}, doc: "kept; the schema is always enforced"},
	)
	o.after = func(r *reader) *Error {
		f := &r.seen.format
		switch {
		case f.kind == "json_schema" && !f.schema:
			return fault(faultMissing, "").at("schema")
		case f.kind != "json_schema" && f.schema:
			return fault(faultConflict, "type").at("schema")
		case f.schema && f.empty:
			return fault(faultEmpty, "").at("schema")
		}
		return nil
	}
	return o
}()
