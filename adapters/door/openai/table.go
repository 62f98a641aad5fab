package openai

import "math"

// The table. docs/api.md has its order.

var routes = [...]*object{Chat: chatRequest, Completions: completionRequest, Embeddings: embeddingRequest}

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
		{name: "max_completion_tokens", rule: hiddenRule{tokenBound{"max_completion_tokens"}}, doc: "the same under its newer name"},
		{name: "modalities", rule: list{of: oneOf("text"), min: 1, max: 1}, doc: "text is the only one"},
		{name: "reasoning_effort", rule: oneOf("none", "minimal", "low", "medium", "high", "xhigh"), doc: "for models that reason"},
		{name: "audio", action: refuse}, {name: "function_call", action: refuse}, {name: "functions", action: refuse},
		{name: "prediction", action: refuse}, {name: "web_search_options", action: refuse}, {name: "verbosity", action: refuse},
	}, common, sampling, droppedFields, forbiddenFields)...)

var completionRequest = newObject(join(
	[]field{
		{name: "prompt", rule: prompt(32), required: true, doc: "the text to continue"},
		{name: "model", rule: hiddenRule{modelRule{}}, doc: docModel},
		{name: "max_tokens", rule: hiddenRule{tokenBound{"max_tokens"}}, doc: "longest answer; the context when absent"},
		{name: "logprobs", rule: integer{min: 0, max: 5}, doc: "alternatives per token"},
		{name: "echo", action: refuse}, {name: "suffix", action: refuse}, {name: "best_of", action: refuse},
	}, common, sampling, droppedFields, forbiddenFields)...)

var embeddingRequest = newObject(join(
	[]field{
		{name: "input", rule: prompt(2048), required: true, doc: "the text or texts"},
		{name: "model", rule: hiddenRule{modelRule{}}, doc: docModel},
		{name: "encoding_format", rule: oneOf("float", "base64"), doc: "how the vectors are written"},
		{name: "dimensions", action: refuse},
	}, droppedFields, forbiddenFields)...)

// common holds the fields of both kinds of completion.
var common = []field{
	{name: "stream", rule: boolean{note: func(s *seen, on bool) { s.stream = on }}, doc: "answer by server-sent events"},
	{name: "stream_options", rule: streamOptions, note: func(s *seen) { s.streamOptions = true }, doc: "needs `stream`"},
	{name: "n", rule: answers{}, doc: "answers per request, which share its place in the queue"},
	{name: "stop", rule: either{'"': text{min: 1, max: 256}, '[': list{of: text{min: 1, max: 256}, max: 16}}, doc: "where the answer ends"},
}

// sampling holds the sampling fields of OpenAI, and then those that llama.cpp adds.
var sampling = []field{
	{name: "temperature", rule: number{0, 2}, doc: "randomness"},
	{name: "top_p", rule: number{0, 1}, doc: "nucleus"},
	{name: "presence_penalty", rule: number{-2, 2}, doc: "against tokens that have appeared"},
	{name: "frequency_penalty", rule: number{-2, 2}, doc: "against tokens that have appeared often"},
	{name: "seed", rule: integer{min: 0, max: math.MaxUint32}, doc: "same seed, same text"},
	{name: "logit_bias", rule: biases, doc: "token number to bias"},
	{name: "top_k", rule: integer{min: 0, max: 1 << 20}, doc: "llama.cpp; 0 turns it off"},
	{name: "min_p", rule: number{0, 1}, doc: "llama.cpp"},
	{name: "typical_p", rule: number{0, 1}, doc: "llama.cpp"},
	{name: "top_n_sigma", rule: number{-1, 100}, doc: "llama.cpp; -1 turns it off"},
	{name: "repeat_penalty", rule: number{0, 10}, doc: "llama.cpp"},
	{name: "repeat_last_n", rule: integer{min: 0, max: 1 << 16}, doc: "llama.cpp; 0 turns it off"},
	{name: "dynatemp_range", rule: number{0, 10}, doc: "llama.cpp"},
	{name: "dynatemp_exponent", rule: number{0, 10}, doc: "llama.cpp"},
	{name: "xtc_probability", rule: number{0, 1}, doc: "llama.cpp"},
	{name: "xtc_threshold", rule: number{0, 1}, doc: "llama.cpp"},
	{name: "dry_multiplier", rule: number{0, 10}, doc: "llama.cpp"},
	{name: "dry_base", rule: number{1, 10}, doc: "llama.cpp"},
	{name: "dry_allowed_length", rule: integer{min: 1, max: 1 << 16}, doc: "llama.cpp"},
	{name: "dry_penalty_last_n", rule: integer{min: 0, max: 1 << 16}, doc: "llama.cpp; 0 turns it off"},
	{name: "dry_sequence_breakers", rule: list{of: text{min: 1, max: 64}, min: 1, max: 16}, doc: "llama.cpp"},
	{name: "mirostat", rule: integer{min: 0, max: 2}, doc: "llama.cpp"},
	{name: "mirostat_tau", rule: number{0, 100}, doc: "llama.cpp"},
	{name: "mirostat_eta", rule: number{0, 1}, doc: "llama.cpp"},
	{name: "samplers", rule: list{of: oneOf("dry", "top_k", "typ_p", "top_p", "top_n_sigma", "min_p", "xtc", "temperature", "penalties"), max: 16}, doc: "llama.cpp; their order"},
	{name: "ignore_eos", rule: boolean{}, doc: "llama.cpp; goes on until the token bound"},
}

// droppedFields have no effect in this program and are left out (L6a).
var droppedFields = []field{
	{name: "user", action: drop}, {name: "metadata", action: drop}, {name: "store", action: drop},
	{name: "service_tier", action: drop}, {name: "safety_identifier", action: drop}, {name: "prompt_cache_key", action: drop},
}

// forbiddenFields control the runtime itself (L6a). They are listed so that the error says that they are not
// allowed, and not that they are unknown.
var forbiddenFields = []field{
	{name: "id_slot", action: forbid}, {name: "lora", action: forbid}, {name: "n_discard", action: forbid},
	{name: "n_keep", action: forbid}, {name: "response_fields", action: forbid}, {name: "n_predict", action: forbid},
	{name: "grammar", action: forbid}, {name: "grammar_lazy", action: forbid}, {name: "grammar_triggers", action: forbid},
	{name: "json_schema", action: forbid}, {name: "cache_prompt", action: forbid}, {name: "n_indent", action: forbid},
	{name: "n_probs", action: forbid}, {name: "post_sampling_probs", action: forbid}, {name: "min_keep", action: forbid},
	{name: "return_tokens", action: forbid}, {name: "return_progress", action: forbid}, {name: "timings_per_token", action: forbid},
	{name: "t_max_predict_ms", action: forbid}, {name: "chat_template_kwargs", action: forbid}, {name: "reasoning_format", action: forbid},
	{name: "chat_template", action: forbid}, {name: "add_generation_prompt", action: forbid}, {name: "speculative.n_max", action: forbid},
	{name: "speculative.n_min", action: forbid}, {name: "speculative.p_min", action: forbid},
}

var streamOptions = newObject(
	field{name: "include_usage", rule: boolean{}, doc: "a last event with the token counts"},
	field{name: "include_obfuscation", action: drop},
)

// prompt is a text, token numbers, or at most most of either. The runtime answers each, and all of them take one
// place in the queue.
func prompt(most int) rule { return either{'"': text{}, '[': promptList{most}} }

// token is the number of a token. No model has more than a million.
var token = integer{min: 0, max: 1 << 20}

var message = func() *object {
	o := newObject(
		field{name: "role", required: true, rule: choice{
			words: []string{"system", "developer", "user", "assistant", "tool"},
			note:  func(s *seen, w string) { s.message.role = w },
		}, doc: "who speaks"},
		field{name: "content", rule: either{'"': text{}, '[': list{of: part, min: 1}}, note: func(s *seen) { s.message.content = true }, doc: "what is said: text or parts; may be absent in an assistant's message with `tool_calls`"},
		field{name: "name", rule: functionName, doc: "of the speaker"},
		field{name: "tool_calls", rule: list{of: toolCall, min: 1, max: maxTools}, note: func(s *seen) { s.message.calls = true }, doc: "what an assistant called"},
		field{name: "tool_call_id", rule: text{min: 1, max: 256}, doc: "which call a tool answers"},
		field{name: "reasoning_content", rule: text{}, doc: "an assistant's earlier reasoning (llama.cpp)"},
		field{name: "refusal", action: drop}, field{name: "annotations", action: drop}, field{name: "audio", action: refuse},
		field{name: "function_call", action: refuse},
	)
	o.before = func(s *seen) { s.message.role, s.message.content, s.message.calls = "", false, false }
	o.after = func(s *seen) *Error {
		m := s.message
		switch {
		case m.calls && m.role != "assistant":
			return fault(faultRefused, "").at("tool_calls")
		case !m.content && !m.calls:
			return fault(faultMissing, "").at("content")
		}
		return nil
	}
	return o
}()

// part is one piece of multi-part content.
var part = func() *object {
	image := newObject(
		field{name: "url", rule: dataURL{}, required: true, doc: "a `data:` URL; nothing is fetched"},
		field{name: "detail", rule: oneOf("auto", "low", "high"), doc: "how closely to look"},
	)
	audio := newObject(
		field{name: "data", rule: text{min: 1, only: base64, what: "base64"}, required: true, doc: "the sound"},
		field{name: "format", rule: oneOf("wav", "mp3"), required: true, doc: "its format"},
	)
	o := newObject(
		field{name: "type", required: true, rule: choice{
			words: []string{"text", "image_url", "input_audio"},
			note:  func(s *seen, w string) { s.part.kind = w },
		}, doc: "which of the others is there"},
		field{name: "text", rule: text{}, note: func(s *seen) { s.part.text = true }, doc: "text"},
		field{name: "image_url", rule: image, note: func(s *seen) { s.part.image = true }, doc: "a picture, for models that see"},
		field{name: "input_audio", rule: audio, note: func(s *seen) { s.part.audio = true }, doc: "sound, for models that hear"},
		field{name: "file", action: refuse}, field{name: "video_url", action: refuse}, field{name: "input_video", action: refuse},
	)
	o.before = func(s *seen) { s.part.kind, s.part.text, s.part.image, s.part.audio = "", false, false, false }
	o.after = func(s *seen) *Error {
		p := s.part
		for _, x := range []struct {
			name  string
			there bool
		}{{"text", p.text}, {"image_url", p.image}, {"input_audio", p.audio}} {
			switch {
			case x.name == p.kind && !x.there:
				return fault(faultMissing, "").at(x.name)
			case x.name != p.kind && x.there:
				return fault(faultConflict, "type").at(x.name)
			}
		}
		return nil
	}
	return o
}()

var functionName = text{min: 1, max: 64, only: nameBytes, what: "letters, digits, _ and -, at most 64"}

var toolCall = newObject(
	field{name: "id", rule: text{min: 1, max: 256}, required: true, doc: "to answer by"},
	field{name: "type", rule: oneOf("function"), required: true, doc: "always `function`"},
	field{name: "function", rule: newObject(
		field{name: "name", rule: functionName, required: true, doc: "which function"},
		field{name: "arguments", rule: text{}, required: true, doc: "JSON in a string"},
	), required: true, doc: "what was called"},
	field{name: "index", rule: integer{min: 0, max: maxTools}, doc: "as streams number it"},
)

var tool = newObject(
	field{name: "type", rule: oneOf("function"), required: true, doc: "always `function`"},
	field{name: "function", rule: newObject(
		field{name: "name", rule: toolName{}, required: true, doc: functionName.what},
		field{name: "description", rule: text{max: 1 << 16}, doc: "for the model"},
		field{name: "parameters", rule: schema{}, doc: "JSON Schema of the arguments"},
		field{name: "strict", rule: boolean{}, doc: "kept"},
	), required: true, doc: "the function"},
)

var toolChoiceWord = choice{words: []string{"none", "auto", "required"}, note: func(s *seen, w string) { s.toolChoice = w }}

var toolChoiceNamed = newObject(
	field{name: "type", rule: oneOf("function"), required: true, doc: "always `function`"},
	field{name: "function", rule: newObject(
		field{name: "name", rule: toolNamed{}, required: true, doc: "the function to call"},
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
	o.after = func(s *seen) *Error {
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
