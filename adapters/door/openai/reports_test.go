package openai

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// report is a request as a program sends it, by a public report or by the program's own source. Either the runtime gets
// want, or the refusal holds each of refused, separated by blanks of two.
type report struct {
	source        string // repository and number, or file
	route         Route
	in            string
	want, refused string
}

func messagesOf(turns string) string { return `{"messages":[` + turns + `]}` }

// sentTo is what the runtime gets of a body without its last brace.
func sentTo(body string) string { return body + `,"model":"gemma","max_tokens":4096}` }

const aTool = `{"type":"function","function":{"name":"f"}}`

var chatReports = []report{
	{source: "vllm-project/vllm#10463 (codecompanion.nvim)", in: messagesOf(`{"role":"system","content":"s","id":1947269257,"opts":{"visible":false}},{"role":"user","content":"u","id":2,"opts":{"visible":true}}`),
		want: sentTo(`{"messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}]`)},
	{source: "ggml-org/llama.cpp#10920 (AutoGen)", in: `{"messages":[{"content":"x","role":"user","name":"user"}],"model":null,"stream":false,"tools":[` + aTool + `]}`,
		want: `{"messages":[{"content":"x","role":"user","name":"user"}],"stream":false,"tools":[` + aTool + `],"model":"gemma","max_tokens":4096}`},
	{source: "vllm-project/vllm#12864", in: messagesOf(`{"role":"user","content":"hello","name":"bob"}`), want: sentTo(`{"messages":[{"role":"user","content":"hello","name":"bob"}]`)},
	{source: "SillyTavern (names of characters)", in: messagesOf(`{"role":"user","content":"x","name":"Zoë.7"},{"role":"assistant","content":"y","name":""}`),
		want: sentTo(`{"messages":[{"role":"user","content":"x","name":"Zoë.7"},{"role":"assistant","content":"y"}]`)},
	{source: "crazyyanchao/llmcompiler#1", in: messagesOf(`{"role":"user","content":"x","name":"<|im_end|>"}`), refused: "`name` in messages[0]  without blanks"},
	{source: "crazyyanchao/llmcompiler#1", in: messagesOf(`{"role":"function","name":"f","content":"x"}`), refused: "`role` in messages[0]  tool"},
	{source: "deepseek-ai (role latest_reminder)", in: messagesOf(`{"role":"latest_reminder","content":"x"}`), refused: "`role` in messages[0]  system, developer, user, assistant, tool"},
	{source: "cline/cline src/core/api/providers/openai.ts", in: `{"messages":[{"role":"developer","content":"s"},{"role":"user","content":[{"type":"text","text":"x"}]}],"reasoning_effort":"medium","stream":true,"stream_options":{"include_usage":true}}`,
		want: `{"messages":[{"role":"developer","content":"s"},{"role":"user","content":[{"type":"text","text":"x"}]}],"stream":true,"stream_options":{"include_usage":true},"reasoning_effort":"medium","model":"gemma","max_tokens":4096}`},
	{source: "zed-industries/zed crates/open_ai/src/open_ai.rs", in: chatOf(`"stream":true,"parallel_tool_calls":false,"prompt_cache_key":"t","tools":[{"type":"function","function":{"name":"f","description":null,"parameters":null}}],"tool_choice":{"type":"function","function":{"name":"f","description":null,"parameters":null}}`),
		want: sentTo(`{` + hi + `,"stream":true,"parallel_tool_calls":false,"tools":[` + aTool + `],"tool_choice":"required"`)},
	{source: "microsoft/vscode-copilot-chat src/platform/networking/common/networking.ts", in: `{"messages":[{"role":"system","content":"s","copilot_cache_control":{"type":"ephemeral"}},{"role":"assistant","content":"a","cot_id":"c","cot_summary":"d","reasoning_opaque":"e","reasoning_text":"f"},{"role":"user","content":"u"}],"temperature":0.1,"top_p":1,"n":1,"stream":true,"intent":false,"intent_threshold":0.7,"snippy":{"enabled":false},"prediction":{"type":"content","content":"x"}}`,
		want: sentTo(`{"messages":[{"role":"system","content":"s"},{"role":"assistant","content":"a"},{"role":"user","content":"u"}],"temperature":0.1,"top_p":1,"n":1,"stream":true`)},
	{source: "abdulmominsakib/localmind#11", in: messagesOf(`{"role":"user","content":"x"},{"role":"assistant","content":""}`), want: sentTo(`{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":""}]`)},
	{source: "open-webui/open-webui#12441 (n8n)", in: messagesOf(`{"role":"user","content":"x"},{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","content":"42","tool_call_id":"c"}`),
		want: sentTo(`{"messages":[{"role":"user","content":"x"},{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","content":"42","tool_call_id":"c"}]`)},
	{source: "open-webui/open-webui#26655", in: chatOf(`"tools":[],"tool_choice":"auto"`), want: sentChat("", 4096)},
	{source: "open-webui/open-webui#17135", in: messagesOf(`{"role":"tool","tool_call_id":"c","content":[{"type":"input_text","text":"x"}]}`), want: sentTo(`{"messages":[{"role":"tool","tool_call_id":"c","content":[{"type":"text","text":"x"}]}]`)},
	{source: "lmstudio-ai/lmstudio-bug-tracker#261", in: chatOf(`"parallel_tool_calls":false,"stream":true,"stream_options":{"include_usage":true},"tools":[{"type":"function","function":{"name":"g","parameters":{"properties":{},"type":"object"},"description":"d"}}]`),
		want: sentTo(`{` + hi + `,"parallel_tool_calls":false,"stream":true,"stream_options":{"include_usage":true},"tools":[{"type":"function","function":{"name":"g","parameters":{"properties":{},"type":"object"},"description":"d"}}]`)},
	{source: "TencentCloud/TencentDB-Agent-Memory#1313 (Vercel ai)", in: messagesOf(`{"role":"system","content":[{"type":"text","text":"s"}]},{"role":"user","content":[{"type":"text","text":"x"}]},{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"{\"a\":1}"}`),
		want: sentTo(`{"messages":[{"role":"system","content":[{"type":"text","text":"s"}]},{"role":"user","content":[{"type":"text","text":"x"}]},{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"{\"a\":1}"}]`)},
	{source: "vllm-project/vllm#30958", in: messagesOf(`{"role":"user","content":[{"type":"image","image":"data:image/jpeg;base64,AA"}]}`), refused: "`type` in messages[0].content[0]  write `image_url` with a `data:` URL"},
	{source: "several (image_url as a text)", in: messagesOf(`{"role":"user","content":[{"type":"image_url","image_url":"data:image/png;base64,AA=="}]}`), want: sentTo(`{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}]}]`)},
	{source: "vllm-project/vllm#4597", in: chatOf(`"guided_choice":["positive","negative"]`), refused: "`guided_choice`  write `response_format` with a JSON schema"},
	{source: "TypeWhisper/typewhisper-win#343, nashsu/llm_wiki#336 (DeepSeek, GLM, Kimi)", in: chatOf(`"temperature":0.1,"max_tokens":2048,"thinking":{"type":"disabled"}`), want: sentChat(`"temperature":0.1,"chat_template_kwargs":{"enable_thinking":false}`, 2048)},
	{source: "Open-Historia/open-historia#383", in: chatOf(`"reasoning_effort":"medium","enable_thinking":true`), want: sentChat(`"reasoning_effort":"medium","chat_template_kwargs":{"enable_thinking":true}`, 4096)},
	{source: "ollama/ollama#14820 (reasoning.effort)", in: chatOf(`"reasoning":{"effort":"high"}`), want: sentChat(`"reasoning_effort":"high"`, 4096)},
	{source: "docker/model-runner#1028", in: chatOf(`"reasoning_effort":"none"`), want: sentChat(`"reasoning_effort":"none","chat_template_kwargs":{"enable_thinking":false}`, 4096)},
	{source: "FlashML-org/FreeToken#2 (chat_template_kwargs wins)", in: chatOf(`"reasoning_effort":"none","chat_template_kwargs":{"enable_thinking":true}`), want: sentChat(`"reasoning_effort":"none","chat_template_kwargs":{"enable_thinking":true}`, 4096)},
	{source: "Mesh-LLM/mesh-llm#636", in: chatOf(`"thinking_budget":0`), want: sentChat(`"thinking_budget_tokens":0`, 4096)},
	{source: "ollama/ollama#17785", in: chatOf(`"chat_template_kwargs":{"enable_thinking":true,"low_effort":true}`), refused: "`low_effort` in chat_template_kwargs"},
	{source: "OpenRouter's reasoning (Roo Code, LibreChat)", in: chatOf(`"reasoning":{"enabled":false,"exclude":true},"include_reasoning":false,"usage":{"include":true},"provider":{"sort":"price"},"models":["a"],"transforms":[],"plugins":[],"route":"fallback"`), want: sentChat(`"chat_template_kwargs":{"enable_thinking":false}`, 4096)},
	{source: "two switches that differ", in: chatOf(`"enable_thinking":true,"thinking":{"type":"disabled"}`), refused: "`type` in thinking  another value of enable_thinking"},
	{source: "MiniMax (reasoning_split)", in: chatOf(`"reasoning_split":true`), want: sentChat("", 4096)},
	{source: "router-for-me/CLIProxyAPI#658, Soju06/codex-lb#833, Helicone/helicone#5629 (Cursor)", in: `{"input":[{"role":"user","content":"x"}],"tools":[]}`, refused: "`input`  POST /v1/responses"},
	{source: "Responses fields on chat", in: chatOf(`"instructions":"x"`), refused: "`instructions`  POST /v1/responses"},
	{source: "Anthropic fields on chat", in: chatOf(`"system":"x"`), refused: "`system`  POST /v1/messages"},
	{source: "Anthropic fields on chat", in: chatOf(`"stop_sequences":["x"]`), refused: "`stop_sequences`  write `stop`"},
	{source: "Anthropic blocks on chat", in: messagesOf(`{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"x"}]}`), refused: "`type` in messages[0].content[0]  POST /v1/messages"},
	{source: "Mistral's and LibreChat's thinking parts", in: messagesOf(`{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"y"}]},{"role":"assistant","content":[{"type":"reasoning","text":"r"}]}`),
		want: sentTo(`{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"text","text":"y"}]},{"role":"assistant","content":""}]`)},
	{source: "openai-openapi (refusal part)", in: messagesOf(`{"role":"assistant","content":[{"type":"refusal","refusal":"no"}],"refusal":null,"audio":null,"function_call":null,"annotations":[]}`), want: sentTo(`{"messages":[{"role":"assistant","content":[{"type":"text","text":"no"}]}]`)},
	{source: "DeepSeek's prefix and Kimi's partial", in: messagesOf(`{"role":"user","content":"x"},{"role":"assistant","content":"y","prefix":true,"partial":true}`), want: sentTo(`{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]`)},
	{source: "BerriAI/litellm (names of MCP tools)", in: chatOf(`"tools":[{"type":"function","function":{"name":"` + strings.Repeat("n", 128) + `"}}]`), want: sentTo(`{` + hi + `,"tools":[{"type":"function","function":{"name":"` + strings.Repeat("n", 128) + `"}}]`)},
	{source: "SillyTavern/SillyTavern src/constants.js (OPENROUTER_KEYS)", in: chatOf(`"repetition_penalty":1.1,"min_p":0.05,"top_a":0,"top_k":-1,"logit_bias":{},"stop":[]`), want: sentChat(`"min_p":0.05,"top_k":0,"logit_bias":{},"stop":[],"repeat_penalty":1.1`, 4096)},
	{source: "SillyTavern (top_a)", in: chatOf(`"top_a":0.2`), refused: "`top_a`  no such sampler"},
	{source: "vLLM's sampling parameters", in: chatOf(`"repetition_penalty":1,"length_penalty":1.0,"use_beam_search":false,"early_stopping":false,"skip_special_tokens":true,"spaces_between_special_tokens":true,"include_stop_str_in_output":false,"add_special_tokens":false,"continue_final_message":false,"min_tokens":0,"stop_token_ids":[]`), want: sentChat(`"repeat_penalty":1`, 4096)},
	{source: "vLLM's sampling parameters", in: chatOf(`"include_stop_str_in_output":true`), refused: "`include_stop_str_in_output`  add the text yourself"},
	{source: "DashScope (enable_search)", in: chatOf(`"enable_search":false,"enable_thinking":false`), want: sentChat(`"chat_template_kwargs":{"enable_thinking":false}`, 4096)},
	{source: "llama.cpp's web page", in: chatOf(`"reasoning_format":"auto","return_progress":true,"timings_per_token":true,"cache_prompt":true`), want: sentChat(`"timings_per_token":true,"cache_prompt":true`, 4096)},
	{source: "llama.cpp's web page", in: chatOf(`"reasoning_format":"none"`), refused: "`reasoning_format`  controls the runtime itself"},
	{source: "Ollama-minded programs", in: chatOf(`"num_ctx":4096,"keep_alive":-1,"options":{}`), want: sentChat("", 4096)},
	{source: "Ollama-minded programs", in: chatOf(`"num_ctx":32768`), refused: "`num_ctx`  holds 4096 tokens  `model.context`"},
	{source: "Ollama-minded programs", in: chatOf(`"options":{"num_ctx":8192}`), refused: "`options`  Ollama's own API"},
	{source: "Ollama-minded programs", in: chatOf(`"think":false`), refused: "`think`  `reasoning_effort`"},
	{source: "legacy functions", in: chatOf(`"functions":[],"function_call":null`), want: sentChat("", 4096)},
	{source: "OpenAI, everything that says nothing", in: chatOf(`"n":1,"logprobs":false,"top_logprobs":0,"modalities":["text"],"audio":null,"response_format":{"type":"text"},"verbosity":"medium","store":false,"metadata":{},"service_tier":"auto","safety_identifier":"s","user":"","logit_bias":null,"tools":null,"tool_choice":null,"parallel_tool_calls":null,"stop":null,"seed":null,"frequency_penalty":0,"presence_penalty":0`),
		want: sentChat(`"n":1,"logprobs":false,"top_logprobs":0,"modalities":["text"],"response_format":{"type":"text"},"frequency_penalty":0,"presence_penalty":0`, 4096)},
	{source: "OpenAI (web_search_options)", in: chatOf(`"web_search_options":{}`), refused: "`web_search_options`  leave it out"},
	{source: "OpenAI (strict: null)", in: chatOf(`"tools":[{"type":"function","function":{"name":"f","strict":null,"description":null}}]`), want: sentTo(`{` + hi + `,"tools":[` + aTool + `]`)},
	{source: "OpenRouter's automatic caching", in: chatOf(`"cache_control":{"type":"ephemeral"}`), want: sentChat("", 4096)},
	{source: "numbers as texts", in: chatOf(`"max_tokens":"1024"`), refused: "`max_tokens`  a whole number"},

	{source: "ggml-org/llama.cpp#12591", route: Completions, in: `{"prompt":"x","echo":true}`, refused: "`echo`  put it before the answer yourself"},
	{source: "a chat sent to completions", route: Completions, in: messagesOf(`{"role":"user","content":"x"}`), refused: "`messages`  POST /v1/chat/completions"},
	{source: "SillyTavern (VLLM_KEYS)", route: Completions, in: `{"prompt":"x","best_of":1,"echo":false,"ignore_eos":false,"length_penalty":1,"logprobs":0,"max_tokens":7,"min_tokens":0,"n":1,"repetition_penalty":1,"seed":-1,"skip_special_tokens":true,"spaces_between_special_tokens":true,"stop":["\n"],"stop_token_ids":[],"temperature":1,"top_k":-1,"top_p":1,"user":"u"}`,
		want: `{"prompt":"x","ignore_eos":false,"logprobs":0,"n":1,"stop":["\n"],"temperature":1,"top_k":0,"top_p":1,"repeat_penalty":1,"model":"gemma","max_tokens":7}`},
}

var responsesReports = []report{
	{source: "codex 0.160.0, as it sends it", in: `{"model":"gemma","instructions":"i","input":[{"type":"message","id":"msg_1","role":"developer","content":[{"type":"input_text","text":"d"}]},{"type":"message","id":"msg_2","role":"user","content":[{"type":"input_text","text":"u"}]},{"type":"function_call","id":"fc_1","name":"exec_command","arguments":"{}","call_id":"c1"},{"type":"function_call_output","id":"fco_1","call_id":"c1","output":"hi"}],"tool_choice":"auto","parallel_tool_calls":true,"reasoning":{"summary":"auto"},"store":false,"stream":true,"include":["reasoning.encrypted_content"],"prompt_cache_key":"k","client_metadata":{"turn_id":"t"},"tools":[{"type":"function","name":"exec_command","description":"d","strict":false,"parameters":{"type":"object","properties":{}}},{"type":"namespace","name":"multi_agent_v1","description":"d","tools":[]},{"type":"web_search","external_web_access":true}]}`,
		want: `{"instructions":"i","input":[{"role":"developer","content":[{"type":"input_text","text":"d"}],"type":"message"},{"role":"user","content":[{"type":"input_text","text":"u"}],"type":"message"},{"type":"function_call","name":"exec_command","arguments":"{}","call_id":"c1"},{"type":"function_call_output","call_id":"c1","output":"hi"}],"parallel_tool_calls":true,"reasoning":{},"stream":true,"tools":[{"type":"function","name":"exec_command","description":"d","strict":false,"parameters":{"type":"object","properties":{}}}],"tool_choice":"auto","model":"gemma","max_output_tokens":4096}`},
	{source: "ggml-org/llama.cpp#20156, openai/codex#10635, unslothai/unsloth#5141", in: `{"input":"x","tools":[{"type":"web_search"},{"type":"image_generation"},{"type":"namespace","name":"mcp__idea__","tools":[{}]},{"type":"custom","name":"apply_patch"},{"type":"tool_search"}]}`, want: `{"input":"x","model":"gemma","max_output_tokens":4096}`},
	{source: "ggml-org/llama.cpp#23465", in: `{"input":[{"type":"function_call_output","call_id":"c","output":[{"type":"output_text","text":"x"},{"type":"text","text":"y"}]}]}`, want: `{"input":[{"type":"function_call_output","call_id":"c","output":[{"type":"input_text","text":"x"},{"type":"input_text","text":"y"}]}],"model":"gemma","max_output_tokens":4096}`},
	{source: "ikawrakow/ik_llama.cpp#1964 (a probe)", in: `{"input":"","max_output_tokens":1}`, want: `{"input":"","model":"gemma","max_output_tokens":1}`},
	{source: "ikawrakow/ik_llama.cpp#1964, microsoft/vscode-copilot-chat openAIEndpoint.ts", in: `{"input":"x","store":true,"previous_response_id":"resp_1"}`, refused: "`previous_response_id`  whole conversation in `input`"},
	{source: "home-assistant/core openai_conversation/entity.py", in: `{"model":"gemma","input":[{"type":"message","role":"developer","content":"s"},{"type":"message","role":"user","content":"x"},{"type":"web_search_call","id":"ws_1","status":"completed","action":{"type":"search","query":"q"}}],"max_output_tokens":3000,"top_p":1.0,"temperature":1.0,"user":"u","store":false,"stream":true,"reasoning":{"effort":"low","summary":"auto"},"include":["reasoning.encrypted_content"],"text":{"verbosity":"medium"},"tools":[{"type":"function","name":"HassTurnOn","parameters":{"type":"object","properties":{}},"description":"d","strict":false},{"type":"web_search_preview","search_context_size":"medium","user_location":{"type":"approximate"}}]}`,
		want: `{"input":[{"role":"developer","content":"s","type":"message"},{"role":"user","content":"x","type":"message"}],"top_p":1,"temperature":1,"stream":true,"reasoning":{"effort":"low"},"tools":[{"type":"function","name":"HassTurnOn","parameters":{"type":"object","properties":{}},"description":"d","strict":false}],"model":"gemma","max_output_tokens":3000}`},
	{source: "home-assistant/core openai_conversation/entity.py", in: `{"input":"x","tools":[{"type":"code_interpreter","container":{"type":"auto"}}]}`, refused: "`type` in tools[0]  call tools yourself"},
	{source: "home-assistant/core openai_conversation/entity.py", in: `{"input":"x","tools":[{"type":"image_generation"}],"tool_choice":{"type":"image_generation"}}`, refused: "`type` in tool_choice  function"},
	{source: "home-assistant/core openai_conversation/entity.py", in: `{"input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"x"},{"type":"input_file","filename":"f","file_data":"data:application/pdf;base64,AA"}]}]}`, refused: "`type` in input[0].content[1]  put their text into a text part"},
	{source: "docker/model-runner#1028, on this route", in: `{"input":"x","reasoning":{"effort":"none"}}`, want: `{"input":"x","reasoning":{"effort":"none"},"chat_template_kwargs":{"enable_thinking":false},"model":"gemma","max_output_tokens":4096}`},
	{source: "OpenAI, everything that says nothing", in: `{"input":"x","background":false,"conversation":null,"previous_response_id":null,"include":[],"instructions":null,"max_tool_calls":null,"metadata":{},"prompt":null,"reasoning":null,"safety_identifier":"s","service_tier":"auto","stream_options":{"include_obfuscation":false},"text":{"format":{"type":"text"}},"tools":[],"tool_choice":"auto","top_logprobs":0,"truncation":"disabled","user":"u"}`, want: `{"input":"x","model":"gemma","max_output_tokens":4096}`},
}

const claudeTool = `{"name":"Bash","input_schema":{"type":"object"}}`

var messagesReports = []report{
	{source: "Claude Code 2.1.300, as it sends it; anthropics/claude-code#77698, lmstudio-bug-tracker#2204", in: `{"model":"gemma","messages":[{"role":"user","content":[{"type":"text","text":"r"},{"type":"text","text":"Run echo hi"}]},{"role":"system","content":"# Environment"},{"role":"assistant","content":[{"type":"tool_use","id":"toolu_1","name":"Bash","input":{"command":"echo hi"}}]},{"role":"user","content":[{"tool_use_id":"toolu_1","type":"tool_result","content":"hi","is_error":false}]},{"role":"system","content":[{"type":"text","text":"<total_tokens>1</total_tokens>","cache_control":{"type":"ephemeral"}}]}],"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],"tools":[` + claudeTool + `],"metadata":{"user_id":"u"},"max_tokens":32000,"thinking":{"type":"adaptive","display":"omitted"},"context_management":{"edits":[{"type":"clear_thinking_20251015","keep":"all"}]},"output_config":{"effort":"high"},"stream":true}`,
		want: sentTo(`{"messages":[{"role":"user","content":[{"type":"text","text":"r"},{"type":"text","text":"Run echo hi"}]},{"role":"system","content":"# Environment"},{"role":"assistant","content":[{"type":"tool_use","id":"toolu_1","name":"Bash","input":{"command":"echo hi"}}]},{"role":"user","content":[{"tool_use_id":"toolu_1","type":"tool_result","content":"hi"}]},{"role":"system","content":[{"type":"text","text":"<total_tokens>1</total_tokens>"}]}],"system":[{"type":"text","text":"s"}],"thinking":{"type":"adaptive"},"stream":true,"tools":[` + claudeTool + `]`)},
	{source: "intel/llm-scaler#341", in: messagesOf(`{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":""},{"type":"text","text":"y"},{"type":"tool_use","id":"t","name":"Read","input":{"file_path":"p"}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"z"}]}`),
		want: sentTo(`{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"y"},{"type":"tool_use","id":"t","name":"Read","input":{"file_path":"p"}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"z"}]}]`)},
	{source: "BerriAI/litellm#6053 (a result and a text in one turn)", in: messagesOf(`{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"z"}]},{"type":"text","text":"go on"}]}`), want: sentTo(`{"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"z"}]},{"type":"text","text":"go on"}]}]`)},
	{source: "anthropics/claude-code#77928, jwadow/kiro-gateway#90, caigee-cmd/cli2api#152", in: messagesOf(`{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"tool_reference","tool_name":"TaskStop"}]}]}`), want: sentTo(`{"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":""}]}]`)},
	{source: "anthropics/claude-code#11678", in: chatOf(`"tools":[{"name":"Grep","input_schema":{},"input_examples":[{"pattern":"x"}],"defer_loading":true,"eager_input_streaming":true}]`), want: sentTo(`{` + hi + `,"tools":[{"name":"Grep","input_schema":{}}]`)},
	{source: "jundot/omlx#3754 (a reference)", in: `{"messages":[{"role":"user","content":"x"},{"role":"system","content":[{"type":"tool_addition","tool":{"type":"tool_reference","name":"Bash"}}]}],"tools":[` + claudeTool + `]}`, want: sentTo(`{"messages":[{"role":"user","content":"x"},{"role":"system","content":""}],"tools":[` + claudeTool + `]`)},
	{source: "jundot/omlx#3754 (a definition, which replaces one)", in: `{"tools":[{"name":"a","input_schema":{}},` + claudeTool + `],"messages":[{"role":"user","content":"x"},{"role":"system","content":[{"type":"text","text":"s"},{"type":"tool_addition","tool":{"type":"tool_definition","definition":{"name":"a","description":"new","input_schema":{"type":"object"}}},"cache_control":{"type":"ephemeral"}}]}]}`,
		want: sentTo(`{"messages":[{"role":"user","content":"x"},{"role":"system","content":[{"type":"text","text":"s"}]}],"tools":[` + claudeTool + `,{"name":"a","description":"new","input_schema":{"type":"object"}}]`)},
	{source: "Anthropic's tool_removal", in: `{"messages":[{"role":"user","content":[{"type":"text","text":"x"},{"type":"tool_removal","tool":{"type":"tool_reference","name":"Bash"}}]}],"tools":[` + claudeTool + `]}`, want: sentTo(`{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}]`)},
	{source: "Anthropic's tool_removal, taken back", in: `{"messages":[{"role":"user","content":[{"type":"text","text":"x"},{"type":"tool_removal","tool":{"type":"tool_reference","name":"Bash"}},{"type":"tool_addition","tool":{"type":"tool_reference","name":"Bash"}}]}],"tools":[` + claudeTool + `]}`, want: sentTo(`{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"tools":[` + claudeTool + `]`)},
	{source: "a tool_addition with a bad schema", in: messagesOf(`{"role":"user","content":[{"type":"tool_addition","tool":{"type":"tool_definition","definition":{"name":"a","input_schema":{"pattern":"x("}}}}]}`), refused: "`pattern` in messages[0].content[0].tool.definition.input_schema"},
	{source: "Anthropic's compaction", in: messagesOf(`{"role":"assistant","content":[{"type":"compaction","content":"so far","tool_changes":[]}]},{"role":"user","content":"x"}`), want: sentTo(`{"messages":[{"role":"assistant","content":[{"type":"text","text":"so far"}]},{"role":"user","content":"x"}]`)},
	{source: "a turn of redacted thoughts alone", in: messagesOf(`{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"redacted_thinking","data":"x"}]}`), want: sentTo(`{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":""}]`)},
	{source: "gateways of Bedrock and Vertex", in: chatOf(`"anthropic_version":"vertex-2023-10-16","anthropic_beta":["x"],"betas":["y"],"container":null,"mcp_servers":[],"service_tier":"auto","user":"u"`), want: sentChat("", 4096)},
	{source: "OpenAI fields in this format", in: chatOf(`"stop":["x"]`), refused: "`stop`  write `stop_sequences`"},
}

// L12: what programs send by public reports and their own sources is passed, dropped or refused by decision; a
// refusal names the field and what to do.
func TestReports(t *testing.T) {
	count := 0
	for route, reports := range map[Route][]report{Chat: chatReports, Responses: responsesReports, Messages: messagesReports} {
		for _, c := range reports {
			count++
			to := route
			if c.route != Chat {
				to = c.route
			}
			got, _, refused := checked(to, serving, c.in)
			switch {
			case c.refused == "" && refused != "":
				t.Errorf("%s: got a refusal, want none: %s\n%s", c.source, refused, c.in)
			case c.refused == "":
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Errorf("%s: got a difference (-want +got): %s", c.source, diff)
				}
			case refused == "":
				t.Errorf("%s: got %s, want a refusal with %s", c.source, got, c.refused)
			}
			for _, want := range strings.Split(c.refused, "  ") {
				if !strings.Contains(refused, want) {
					t.Errorf("%s: got the refusal %q, want it to hold %q", c.source, refused, want)
				}
			}
		}
	}
	if count < 60 {
		t.Errorf("got %d requests, want at least 60", count)
	}
}
