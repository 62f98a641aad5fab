package openai

import (
	"strconv"

	"companion/messages"
)

// The table. docs/api.md has its order.

const docModel = "empty, or the served model's name"

var chatRequest = newObject(join(
	[]field{
		{name: "messages", rule: list{of: message, min: 1}, required: true, doc: "the conversation"},
		{name: "model", rule: hiddenRule{modelRule{}}, doc: docModel},
		{name: "tools", rule: hiddenRule{list{of: toolRule{}, max: maxTools}}, doc: "functions that the model may call"},
		{name: "tool_choice", rule: hiddenRule{either{'"': toolChoiceWord, '{': toolChoiceNamed}}, doc: "whether it must call one; a function named here is the only one offered"},
		{name: "parallel_tool_calls", rule: boolean{}, doc: "whether it may call several at once"},
		{name: "response_format", rule: formatRule{}, doc: "`text`, `json_object`, or `json_schema` with a schema"},
		{name: "logprobs", rule: boolean{note: func(s *seen, on bool) { s.logprobs = on }}, doc: "log probabilities of the answer's tokens"},
		{name: "top_logprobs", rule: integer{min: 0, max: 20, note: func(s *seen, n int64) { s.topLogprobs = n > 0 }}, doc: "alternatives per token; needs `logprobs`"},
		{name: "max_tokens", rule: hiddenRule{tokenBound{"max_tokens"}}, doc: "longest answer; the context when absent"},
		{name: "n_predict", rule: hiddenRule{tokenBound{"n_predict"}}, doc: "the same under its llama.cpp name"},
		{name: "max_completion_tokens", rule: hiddenRule{tokenBound{"max_completion_tokens"}}, doc: "the same under its newer name"},
		{name: "modalities", rule: list{of: oneOf("text"), min: 1, max: 1}, doc: "text is the only one"},
		{name: "reasoning_effort", rule: hiddenRule{effort{"reasoning_effort"}}, doc: "for models that reason; `none` also turns thinking off"},
		{name: "chat_template_kwargs", rule: hiddenRule{templateFlags}, doc: "`enable_thinking` alone: whether a model that can think does"},
		{name: "enable_thinking", rule: hiddenRule{thinks{"enable_thinking"}}, doc: "the same under Qwen's name"},
		{name: "thinking", rule: hiddenRule{chatThinking}, doc: "the same in the form of DeepSeek, GLM and Kimi"},
		{name: "reasoning", rule: hiddenRule{chatReasoning}, doc: "the form of routers for `reasoning_effort` and `enable_thinking`"},
		{name: "thinking_budget", rule: hiddenRule{thoughtBound{"thinking_budget"}}, doc: "longest thought, under Qwen's name"},
		{name: "thinking_budget_tokens", rule: hiddenRule{thoughtBound{"thinking_budget_tokens"}}, doc: "the same under llama.cpp's name"},
		{name: "prediction", action: drop, doc: "only a hint for speed"},
		{name: "verbosity", action: drop, doc: "only a wish; say in a message how long the answer should be"},
		{name: "audio", action: refuse, doc: "no sound is made; leave it out"},
		{name: "function_call", action: refuse, doc: "it is the old form of `tool_choice`; write that"},
		{name: "functions", rule: only{"[]", "it is the old form of `tools`; write that"}, doc: "an empty list says nothing"},
		{name: "cache_control", action: drop, doc: ownCache},
		{name: "input", action: refuse, doc: "this route has it as `messages`; POST /v1/responses has `input`"},
		{name: "instructions", action: refuse, doc: "write a message with the role `system`; POST /v1/responses has `instructions`"},
		{name: "system", action: refuse, doc: "write a message with the role `system`; POST /v1/messages has `system`"},
		{name: "prompt", action: refuse, doc: "this route has it as `messages`; POST /v1/completions has `prompt`"},
		{name: "max_output_tokens", action: refuse, doc: "write `max_tokens`"},
		{name: "stop_sequences", action: refuse, doc: "write `stop`"},
		{name: "text", action: refuse, doc: "write `response_format`"},
		{name: "intent", action: drop, doc: ofAnEditor}, {name: "intent_threshold", action: drop, doc: ofAnEditor}, {name: "snippy", action: drop, doc: ofAnEditor},
		{name: "web_search_options", action: refuse, doc: "nothing is fetched from the web; leave it out"},
	}, common, sampling, droppedFields, without(foreignFields, "enable_thinking"), forbiddenFields)...)

var completionRequest = newObject(join(
	[]field{
		{name: "prompt", rule: placedPrompt{prompt(32)}, required: true, doc: "the text to continue"},
		{name: "model", rule: hiddenRule{modelRule{}}, doc: docModel},
		{name: "max_tokens", rule: hiddenRule{tokenBound{"max_tokens"}}, doc: "longest answer; the context when absent"},
		{name: "n_predict", rule: hiddenRule{tokenBound{"n_predict"}}, doc: "the same under its llama.cpp name"},
		{name: "logprobs", rule: integer{min: 0, max: 5, note: func(s *seen, n int64) { s.logprobs = n > 0 }}, doc: "alternatives per token"},
		{name: "echo", rule: only{"false", "the prompt is not repeated; put it before the answer yourself"}, doc: "the prompt is not repeated"},
		{name: "suffix", rule: suffix{}, doc: "what follows the answer, for models that fill in the middle; needs one text as `prompt`"},
		{name: "best_of", rule: only{"1", "every answer is sent; use `n`"}, doc: "every answer is sent"},
		{name: "messages", action: refuse, doc: "POST /v1/chat/completions has them"},
	}, common, sampling, droppedFields, foreignFields, forbiddenFields)...)

var embeddingRequest = newObject(join(
	[]field{
		{name: "input", rule: prompt(2048), required: true, doc: "the text or texts"},
		{name: "model", rule: hiddenRule{modelRule{}}, doc: docModel},
		{name: "encoding_format", rule: oneOf("float", "base64"), doc: "how the vectors are written"},
		{name: "dimensions", action: refuse, doc: "vectors have the length that the model gives them"},
	}, droppedFields, foreignFields, forbiddenFields)...)

// common holds the fields of both kinds of completion.
var common = []field{
	{name: "stream", rule: boolean{note: func(s *seen, on bool) { s.stream = on }}, doc: "answer by server-sent events"},
	{name: "stream_options", rule: streamOptions, note: func(s *seen) { s.streamOptions = true }, doc: "needs `stream`"},
	{name: "n", rule: answers{}, doc: "answers per request; each takes a place in the runtime"},
	{name: "stop", rule: stop{}, doc: "where the answer ends"},
	{name: "timings_per_token", rule: boolean{}, doc: "llama.cpp; speeds in every event"},
}

// sampling holds the sampling fields of OpenAI, and then those that llama.cpp adds.
var sampling = []field{
	{name: "temperature", rule: number{0, 2}, doc: "randomness"},
	{name: "top_p", rule: number{0, 1}, doc: "nucleus"},
	{name: "presence_penalty", rule: number{-2, 2}, doc: "against tokens that have appeared"},
	{name: "frequency_penalty", rule: number{-2, 2}, doc: "against tokens that have appeared often"},
	{name: "seed", rule: seed{}, doc: "same seed, same text, if the request runs alone; turns `cache_prompt` off unless that is given"},
	{name: "logit_bias", rule: biases, doc: "token number to bias"},
	{name: "top_k", rule: topK{}, doc: "llama.cpp; 0 or -1 turns it off"},
	{name: "min_p", rule: number{0, 1}, doc: "llama.cpp"},
	{name: "typical_p", rule: number{0, 1}, doc: "llama.cpp"},
	{name: "top_n_sigma", rule: number{-1, 100}, doc: "llama.cpp; -1 turns it off"},
	{name: "repeat_penalty", rule: hiddenRule{penalty{"repeat_penalty"}}, doc: "llama.cpp; 1 turns it off"},
	{name: "repetition_penalty", rule: hiddenRule{penalty{"repetition_penalty"}}, doc: "the same under vLLM's name; the runtime looks at `repeat_last_n` tokens"},
	{name: "repeat_last_n", rule: window{}, doc: "llama.cpp; 0 turns it off, -1 is the context"},
	{name: "dynatemp_range", rule: number{0, 10}, doc: "llama.cpp"},
	{name: "dynatemp_exponent", rule: number{0, 10}, doc: "llama.cpp"},
	{name: "xtc_probability", rule: number{0, 1}, doc: "llama.cpp"},
	{name: "xtc_threshold", rule: number{0, 1}, doc: "llama.cpp"},
	{name: "dry_multiplier", rule: number{0, 10}, note: func(s *seen) { s.dry = true }, doc: "llama.cpp"},
	{name: "dry_base", rule: number{1, 10}, doc: "llama.cpp"},
	{name: "dry_allowed_length", rule: integer{min: 1, max: 1 << 16}, doc: "llama.cpp"},
	{name: "dry_penalty_last_n", rule: window{}, doc: "llama.cpp; 0 turns it off, -1 is the context"},
	{name: "dry_sequence_breakers", rule: breakers{}, doc: "llama.cpp; its own 4 when absent; with `dry_multiplier`, their number times the number of answers is at most " + strconv.Itoa(maxBreakerScans)},
	{name: "mirostat", rule: integer{min: 0, max: 2}, doc: "llama.cpp"},
	{name: "mirostat_tau", rule: number{0, 100}, doc: "llama.cpp"},
	{name: "mirostat_eta", rule: number{0, 1}, doc: "llama.cpp"},
	{name: "samplers", rule: samplers{}, doc: "llama.cpp; their order"},
	{name: "ignore_eos", rule: boolean{}, doc: "llama.cpp; goes on until the token bound"},
	{name: "cache_prompt", rule: boolean{}, note: func(s *seen) { s.cachePrompt = true }, doc: "llama.cpp; false computes the whole prompt again"},
}

// droppedFields have no effect in this program and are left out (L6a, L12).
var droppedFields = []field{
	{name: "user", action: drop, doc: noAccounts}, {name: "safety_identifier", action: drop, doc: noAccounts},
	{name: "metadata", action: drop, doc: noStore}, {name: "store", action: drop, doc: noStore},
	{name: "service_tier", action: drop, doc: "there is one"},
	{name: "prompt_cache_key", action: drop, doc: ownCache}, {name: "prompt_cache_retention", action: drop, doc: ownCache},
	{name: "prompt_cache_options", action: drop, doc: ownCache},
	{name: "extra_body", rule: only{"{}", "it belongs to the OpenAI library; put its fields next to the others"}, doc: "an empty one says nothing"},
}

// Reasons of dropped and refused fields, each of several.
const (
	noAccounts  = "requests of all users are the same"
	noStore     = "nothing is stored"
	ownCache    = "the runtime caches by itself"
	ofAnAnswer  = "a client's library keeps it of an answer; the model does not read it"
	ofGateways  = "a gateway adds it; the model does not read it"
	ofAnEditor  = "an editor's service uses it; the model does not read it"
	neutral     = "the runtime has no such sampler; leave it out"
	runtimeOnly = "it controls the runtime itself; leave it out"
	useFormat   = "write `response_format` with a JSON schema"
	useThinking = "write `chat_template_kwargs` with `enable_thinking`"
	ofRouters   = "a router chooses a provider by it; here is one model"
	ofOllama    = "it is a field of Ollama's own API; the OpenAI form has "
)

// foreignFields are fields of other servers for which there is another way. They are listed so that the refusal
// can name it.
var foreignFields = []field{
	{name: "guided_json", action: refuse, doc: useFormat}, {name: "guided_regex", action: refuse, doc: useFormat},
	{name: "guided_choice", action: refuse, doc: useFormat}, {name: "guided_grammar", action: refuse, doc: useFormat},
	{name: "format", action: refuse, doc: useFormat},
	{name: "options", rule: only{"{}", ofOllama + "its fields next to the others"}, doc: "an empty one says nothing"},
	{name: "think", action: refuse, doc: ofOllama + "`reasoning_effort`"},
	{name: "keep_alive", action: drop, doc: "the model stays loaded as `companion` decides"},
	{name: "num_ctx", rule: contextSize{}, doc: "the context is the same for all requests"},
	{name: "enable_thinking", action: refuse, doc: useThinking},
	{name: "provider", action: drop, doc: ofRouters}, {name: "transforms", action: drop, doc: ofRouters}, {name: "route", action: drop, doc: ofRouters},
	{name: "models", action: drop, doc: ofRouters}, {name: "plugins", rule: only{"[]", "a router runs them; leave it out"}, doc: "an empty list says nothing"},
	{name: "include_reasoning", action: drop, doc: ownField}, {name: "reasoning_split", action: drop, doc: ownField},
	{name: "usage", action: drop, doc: "an answer always has its token counts; a stream has them with `stream_options`"},
	{name: "min_tokens", rule: only{"0", "an answer ends where the model ends it; leave it out"}, doc: "0 says nothing"},
	{name: "stop_token_ids", rule: only{"[]", "write the texts of these tokens in `stop`"}, doc: "an empty list says nothing"},
	{name: "skip_special_tokens", rule: only{"true", "special tokens are never part of an answer; leave it out"}, doc: "special tokens are never part of an answer"},
	{name: "spaces_between_special_tokens", action: drop, doc: "special tokens are never part of an answer"},
	{name: "include_stop_str_in_output", rule: only{"false", "an answer ends before its `stop`; add the text yourself"}, doc: "an answer ends before its `stop`"},
	{name: "add_special_tokens", action: drop, doc: "the runtime adds those that the model wants"},
	{name: "continue_final_message", rule: only{"false", "the runtime continues a last message of the assistant by itself; leave it out"}, doc: "says nothing"},
	{name: "use_beam_search", rule: only{"false", neutral}, doc: "there is none"}, {name: "length_penalty", rule: only{"1", neutral}, doc: "1 says nothing"},
	{name: "early_stopping", rule: only{"false", neutral}, doc: "says nothing"}, {name: "top_a", rule: only{"0", neutral}, doc: "0 says nothing"},
	{name: "tfs_z", rule: only{"1", neutral}, doc: "1 says nothing"}, {name: "guidance_scale", rule: only{"1", neutral}, doc: "1 says nothing"},
	{name: "enable_search", rule: only{"false", "nothing is fetched from the web; leave it out"}, doc: "nothing is fetched from the web"},
	{name: "return_progress", action: drop, doc: "no progress is sent"},
	{name: "reasoning_format", rule: only{`"auto"`, runtimeOnly}, doc: "the runtime's own choice"},
}

// forbiddenFields control the runtime itself (L6a). They are listed so that the error says that they are not
// allowed, and not that they are unknown.
var forbiddenFields = func() (all []field) {
	for _, name := range []string{
		"id_slot", "lora", "n_discard", "n_keep", "response_fields", "grammar_lazy", "grammar_triggers", "n_indent", "n_probs",
		"post_sampling_probs", "min_keep", "return_tokens", "t_max_predict_ms",
		"chat_template", "add_generation_prompt", "speculative.n_max", "speculative.n_min", "speculative.p_min",
	} {
		all = append(all, field{name: name, action: forbid, doc: runtimeOnly})
	}
	for _, name := range []string{"grammar", "json_schema"} {
		all = append(all, field{name: name, action: forbid, doc: useFormat})
	}
	return all
}()

// templateFlags is chat_template_kwargs. Other names would reach the model's template, which is a program.
var templateFlags = newObject(
	field{name: "enable_thinking", rule: thinks{"chat_template_kwargs"}, doc: "whether the model thinks first"},
	field{name: "thinking", rule: thinks{"chat_template_kwargs"}, doc: "the same under DeepSeek's name"},
)

var streamOptions = newObject(
	field{name: "include_usage", rule: boolean{}, doc: "a last event with the token counts"},
	field{name: "include_obfuscation", action: drop, doc: "loopback is not observed"},
)

// prompt is a text, token numbers, or at most most of either. The runtime answers each. They take a place
// in the runtime each, and wait for them together.
func prompt(most int) rule { return either{'"': text{prompt: true}, '[': promptList{most}} }

// token is the number of a token. No model has more than a million.
var token = integer{min: 0, max: 1 << 20}

// tokenOf is the number of a token of a model. The runtime refuses others, without saying which.
func tokenOf(m messages.Model) integer {
	if m.Vocabulary > 0 {
		return integer{min: 0, max: int64(m.Vocabulary) - 1}
	}
	return token
}

var message = func() *object {
	o := newObject(
		field{name: "role", required: true, rule: choice{
			words: []string{"system", "developer", "user", "assistant", "tool"},
			note:  func(s *seen, w string) { s.message.role = w },
		}, doc: "who speaks"},
		field{name: "content", rule: content{list{of: part, min: 1}}, note: func(s *seen) { s.message.content = true }, doc: "what is said: text or parts; absent in an assistant's or a tool's message it is empty"},
		field{name: "name", rule: speaker{}, doc: "of the speaker; an empty one is left out"},
		field{name: "tool_calls", rule: orEmpty{list{of: toolCall, min: 1, max: maxTools}}, note: func(s *seen) { s.message.calls = true }, doc: "what an assistant called"},
		field{name: "tool_call_id", rule: text{min: 1, max: 256}, doc: "which call a tool answers"},
		field{name: "reasoning_content", rule: text{past: true}, doc: "an assistant's earlier reasoning (llama.cpp)"},
		field{name: "refusal", action: drop, doc: ofAnAnswer}, field{name: "annotations", action: drop, doc: ofAnAnswer},
		field{name: "parsed", action: drop, doc: ofAnAnswer}, field{name: "reasoning", action: drop, doc: ofAnAnswer},
		field{name: "reasoning_details", action: drop, doc: ofAnAnswer}, field{name: "thinking_blocks", action: drop, doc: ofAnAnswer},
		field{name: "reasoning_text", action: drop, doc: ofAnAnswer}, field{name: "reasoning_opaque", action: drop, doc: ofAnAnswer},
		field{name: "cot_id", action: drop, doc: ofAnAnswer}, field{name: "cot_summary", action: drop, doc: ofAnAnswer},
		field{name: "id", action: drop, doc: ofAnAnswer}, field{name: "opts", action: drop, doc: ofAnEditor},
		field{name: "copilot_cache_control", action: drop, doc: ownCache},
		field{name: "prefix", action: drop, doc: ownPrefix}, field{name: "partial", action: drop, doc: ownPrefix},
		cacheControl, providerFields,
		field{name: "audio", action: refuse, doc: "no sound is made; leave it out"},
		field{name: "function_call", action: refuse, doc: "it is the old form of `tool_calls`; write that"},
		field{name: "images", action: refuse, doc: ofOllama + "`image_url` parts in `content`"},
	)
	o.before = func(s *seen) {
		s.piece()
		s.message.role, s.message.content, s.message.empty, s.message.calls = "", false, false, false
	}
	o.after = func(r *reader) *Error {
		m := r.seen.message
		answers := m.role == "assistant" || m.role == "tool"
		switch {
		case m.calls && m.role != "assistant":
			return fault(faultRefused, "only an assistant calls tools").at("tool_calls")
		case m.empty && !answers:
			return fault(faultEmpty, "").at("content")
		case !m.content && !m.calls && !answers:
			return fault(faultMissing, "").at("content")
		case !m.content && !m.calls: // the runtime refuses a message without both
			r.name("content")
			r.out = append(r.out, `""`...)
		}
		return nil
	}
	return o
}()

var (
	cacheControl   = field{name: "cache_control", action: drop, doc: ownCache}
	providerFields = field{name: "provider_specific_fields", action: drop, doc: ofGateways}
)

const (
	ownPrefix = "the runtime continues a last message of the assistant by itself"

	noFiles = "files are not read; put their text into a text part"
	noVideo = "videos are not read; leave it out"
)

var functionName = text{min: 1, max: 64, only: nameBytes, what: "letters, digits, _ and -, at most 64"}

var toolCall = counted(newObject(
	field{name: "id", rule: text{min: 1, max: 256}, required: true, doc: "to answer by"},
	field{name: "type", rule: oneOf("function"), required: true, doc: "always `function`"},
	field{name: "function", rule: newObject(
		field{name: "name", rule: longToolName, required: true, doc: "which function"},
		field{name: "arguments", rule: arguments{}, required: true, doc: "JSON in a string"},
		field{name: "parsed_arguments", action: drop, doc: ofAnAnswer}, providerFields,
	), required: true, doc: "what was called"},
	field{name: "index", rule: integer{min: 0, max: maxTools}, doc: "as streams number it"},
	field{name: "extra_content", action: drop, doc: ofGateways}, cacheControl, providerFields,
))

// counted makes each object a piece of the conversation.
func counted(o *object) *object {
	o.before = (*seen).piece
	return o
}

var tool = newObject(
	field{name: "type", rule: oneOf("function"), required: true, doc: "always `function`"},
	field{name: "function", rule: newObject(
		field{name: "name", rule: toolName{longToolName}, required: true, doc: longToolName.what},
		field{name: "description", rule: text{max: 1 << 16, prompt: true}, doc: "for the model"},
		field{name: "parameters", rule: schema{}, doc: "JSON Schema of the arguments"},
		field{name: "strict", rule: boolean{}, doc: "kept"},
		cacheControl, providerFields,
	), required: true, doc: "the function"},
	cacheControl, providerFields,
)

var toolChoiceWord = choice{words: []string{"none", "auto", "required"}, note: func(s *seen, w string) { s.toolChoice = w }}

var toolChoiceNamed = newObject(
	field{name: "type", rule: oneOf("function"), required: true, doc: "always `function`"},
	field{name: "function", rule: newObject(
		field{name: "name", rule: toolNamed{longToolName}, required: true, doc: "the function to call"},
		field{name: "description", action: drop, doc: "the tool has it"}, field{name: "parameters", action: drop, doc: "the tool has them"},
		field{name: "strict", action: drop, doc: "the tool has it"},
	), required: true, doc: "which"},
)

var responseFormat = func() *object {
	o := newObject(
		field{name: "type", required: true, rule: choice{
			words: []string{"text", "json_object", "json_schema"},
			note:  func(s *seen, w string) { s.format.kind = w },
		}, doc: "the kind of answer"},
		field{name: "json_schema", rule: newObject(
			field{name: "name", rule: functionName, doc: "of the schema"},
			field{name: "description", rule: text{max: 1 << 16}, doc: "kept"},
			field{name: "schema", rule: schema{}, required: true, doc: "JSON Schema of the answer"},
			field{name: "strict", rule: boolean{}, doc: "kept; the schema is always enforced"},
		), note: func(s *seen) { s.format.schema = true }, doc: "with `type` `json_schema`"},
	)
	o.after = func(r *reader) *Error {
		s := &r.seen
		switch {
		case s.format.kind == "json_schema" && !s.format.schema:
			return fault(faultMissing, "").at("json_schema")
		case s.format.kind != "json_schema" && s.format.schema:
			return fault(faultConflict, "type").at("json_schema")
		case s.format.schema && s.format.empty: // the runtime takes it for no constraint at all
			return fault(faultEmpty, "").at("schema").at("json_schema")
		}
		return nil
	}
	return o
}()

func join(groups ...[]field) (all []field) {
	for _, g := range groups {
		all = append(all, g...)
	}
	return all
}
