package openai

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// checked returns the body for the runtime, or the field and text of the refusal.
func checked(route Route, s Serving, in string) (out string, r Result, refused string) {
	body, result, err := Check(route, []byte(in), s, nil)
	if err != nil {
		return "", Result{}, err.Param + ": " + err.Error()
	}
	return string(body), result, ""
}

func chatOf(rest string) string { return `{` + hi + `,` + rest + `}` }

func sentChat(rest string, bound int) string {
	if rest != "" {
		rest = "," + rest
	}
	return fmt.Sprintf(`{%s%s,"model":"gemma","max_tokens":%d}`, hi, rest, bound)
}

func history(message string) string { return `{"messages":[` + message + `]}` }

func sentHistory(message string) string {
	return `{"messages":[` + message + `],"model":"gemma","max_tokens":4096}`
}

// L12: what well-known clients send means what their senders mean.
func TestWhatClientsSend(t *testing.T) {
	call := func(more string) string {
		return `{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"` + more + `}}]}`
	}
	tools := `"tools":[{"type":"function","function":{"name":"f"}}]`
	for name, c := range map[string]struct{ in, want string }{
		"more than the context":       {chatOf(`"max_tokens":32000`), sentChat("", 4096)},
		"newer name, more than that":  {chatOf(`"max_completion_tokens":8000`), sentChat("", 4096)},
		"far more":                    {chatOf(`"max_tokens":1e300`), sentChat("", 4096)},
		"no limit":                    {chatOf(`"max_tokens":-1`), sentChat("", 4096)},
		"no limit, newer name":        {chatOf(`"max_completion_tokens":-1`), sentChat("", 4096)},
		"llama.cpp's name":            {chatOf(`"n_predict":5`), sentChat("", 5)},
		"llama.cpp's no limit":        {chatOf(`"n_predict":-1`), sentChat("", 4096)},
		"both bounds, equal":          {chatOf(`"max_tokens":9,"max_completion_tokens":9.0`), sentChat("", 9)},
		"both above the context":      {chatOf(`"max_tokens":9000,"max_completion_tokens":9000`), sentChat("", 4096)},
		"random seed":                 {chatOf(`"seed":-1`), sentChat("", 4096)},
		"seed of 64 bits":             {chatOf(`"seed":81985529216486895`), sentChat(`"seed":2290649224,"cache_prompt":false`, 4096)},
		"negative seed":               {chatOf(`"seed":-2`), sentChat(`"seed":1,"cache_prompt":false`, 4096)},
		"seed that the runtime takes": {chatOf(`"seed":4294967294`), sentChat(`"seed":4294967294,"cache_prompt":false`, 4096)},
		"folded to the random one":    {chatOf(`"seed":18446744069414584320`), sentChat(`"seed":4294967294,"cache_prompt":false`, 4096)},
		"top_k off":                   {chatOf(`"top_k":-1`), sentChat(`"top_k":0`, 4096)},
		"whole context":               {chatOf(`"repeat_last_n":-1,"dry_penalty_last_n":-1`), sentChat(`"repeat_last_n":4096,"dry_penalty_last_n":4096`, 4096)},
		"empty stop":                  {chatOf(`"stop":""`), sentChat("", 4096)},
		"empty stop among others":     {chatOf(`"stop":["","a",""]`), sentChat(`"stop":["a"]`, 4096)},
		"empty stops":                 {chatOf(`"stop":[]`), sentChat(`"stop":[]`, 4096)},
		"32 stops":                    {chatOf(`"stop":[` + strings.Repeat(`"a",`, 31) + `"a"]`), sentChat(`"stop":[`+strings.Repeat(`"a",`, 31)+`"a"]`, 4096)},
		"cache":                       {chatOf(`"cache_prompt":true`), sentChat(`"cache_prompt":true`, 4096)},
		"timings":                     {chatOf(`"timings_per_token":true`), sentChat(`"timings_per_token":true`, 4096)},
		"no thinking":                 {chatOf(`"chat_template_kwargs":{"enable_thinking":false}`), sentChat(`"chat_template_kwargs":{"enable_thinking":false}`, 4096)},
		"cache retention":             {chatOf(`"prompt_cache_retention":"24h"`), sentChat("", 4096)},
		"empty extra_body":            {chatOf(`"extra_body":{ }`), sentChat("", 4096)},
		"parsed answer":               {history(`{"role":"assistant","content":"x","parsed":{"a":[1]},"refusal":null}`), sentHistory(`{"role":"assistant","content":"x"}`)},
		"parsed arguments":            {history(call(`,"parsed_arguments":{"a":1}`)), sentHistory(call(""))},
		"cache control":               {`{"messages":[{"role":"user","content":[{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}],"cache_control":{"type":"ephemeral"}}],"tools":[{"type":"function","function":{"name":"f","cache_control":{}},"cache_control":{}}]}`, `{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],` + tools + `,"model":"gemma","max_tokens":4096}`},
		"fields of gateways":          {history(`{"role":"assistant","content":"x","provider_specific_fields":{"a":null}}`), sentHistory(`{"role":"assistant","content":"x"}`)},
		"empty result":                {history(`{"role":"tool","tool_call_id":"c","content":[]}`), sentHistory(`{"role":"tool","tool_call_id":"c","content":""}`)},
		"result without content":      {history(`{"role":"tool","tool_call_id":"c","content":null}`), sentHistory(`{"role":"tool","tool_call_id":"c","content":""}`)},
		"only reasoning":              {history(`{"role":"assistant","reasoning_content":"r"}`), sentHistory(`{"role":"assistant","reasoning_content":"r","content":""}`)},
		"reasoning of other servers":  {history(`{"role":"assistant","content":"x","reasoning":"r","reasoning_details":[{"type":"x"}]}`), sentHistory(`{"role":"assistant","content":"x"}`)},
		"no calls":                    {history(`{"role":"assistant","content":"x","tool_calls":[]}`), sentHistory(`{"role":"assistant","content":"x"}`)},
		"no content and no calls":     {history(`{"content":null,"role":"assistant","tool_calls":[ ]}`), sentHistory(`{"role":"assistant","content":""}`)},
		"role last":                   {history(`{"content":[],"tool_call_id":"c","role":"tool"}`), sentHistory(`{"content":"","tool_call_id":"c","role":"tool"}`)},
		"prediction, verbosity":       {chatOf(`"prediction":{"type":"content","content":"x"},"verbosity":"low"`), sentChat("", 4096)},
	} {
		got, _, refused := checked(Chat, serving, c.in)
		if refused != "" {
			t.Errorf("%s: got a refusal, want none: %s", name, refused)
		} else if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: got a difference (-want +got): %s", name, diff)
		}
	}
	got, _, refused := checked(Completions, serving, `{"prompt":"x","echo":false,"best_of":1,"suffix":"","n_predict":3,"extra_body":{}}`)
	if want := `{"prompt":"x","model":"gemma","max_tokens":3}`; got != want {
		t.Errorf("legacy fields: got %s %s, want %s", got, refused, want)
	}
}

// L12: a value that cannot be honored is refused, and the message names the field and what to do.
func TestWhatClientsMayNotSend(t *testing.T) {
	for _, c := range []struct {
		route     Route
		in, texts string
	}{
		{Completions, `{"prompt":"x","echo":true}`, "`echo` put it before"},
		{Completions, `{"prompt":"x","best_of":2}`, "`best_of` use `n`"},
		{Completions, `{"prompt":"x","best_of":"1"}`, "`best_of`"},
		{Completions, `{"prompt":"x","suffix":"y"}`, "`suffix`"},
		{Completions, `{"prompt":"x","suffix":" "}`, "`suffix`"},
		{Chat, chatOf(`"extra_body":{"a":1}`), "`extra_body` next to the others"},
		{Chat, chatOf(`"chat_template_kwargs":{"enable_thinking":true,"tools":[]}`), "Unknown field `tools` in chat_template_kwargs"},
		{Chat, chatOf(`"chat_template_kwargs":{"enable_thinking":"no"}`), "`enable_thinking` true or false"},
		{Chat, chatOf(`"chat_template":"x"`), "`chat_template` controls the runtime"},
		{Chat, chatOf(`"functions":[{}]`), "`functions` `tools`"},
		{Chat, chatOf(`"repetition_penalty":1.1,"repeat_penalty":1.2`), "`repeat_penalty` repetition_penalty"},
		{Chat, chatOf(`"guided_json":{}`), "`response_format`"},
		{Chat, chatOf(`"max_tokens":0`), "`max_tokens` at least 1"},
		{Chat, chatOf(`"seed":1.5`), "`seed` 64 bits"},
		{Chat, chatOf(`"seed":18446744073709551616`), "`seed`"},
		{Chat, chatOf(`"top_k":-2`), "`top_k` from -1"},
		{Chat, chatOf(`"repeat_last_n":-2`), "`repeat_last_n` from -1"},
		{Chat, chatOf(`"frobnicate":1`), "`frobnicate` front_door.unknown_fields"},
		{Chat, history(`{"role":"user","content":[]}`), "`content` empty"},
		{Chat, history(`{"role":"user","content":null}`), "`content` missing"},
		{Chat, history(`{"role":"user","content":"x","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":""}}]}`), "`tool_calls` only an assistant"},
		{Messages, `{` + hi + `,"mcp_servers":[{}]}`, "`mcp_servers` nothing is fetched"},
		{Messages, `{` + hi + `,"tools":[{"type":"web_search_20250305","name":"web_search"}]}`, "`type` in tools[0] a provider runs"},
		{Messages, `{` + hi + `,"tools":[{"name":"f","input_schema":{"type":"object","properties":{"a":{"pattern":"x("}}}}]}`, "`pattern` in tools[0].input_schema.properties.a"},
		{Messages, `{` + hi + `,"tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"tool"}}`, "`name` in tool_choice missing"},
		{Messages, `{` + hi + `,"tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"tool","name":"g"}}`, "`name` in tool_choice"},
		{Messages, `{` + hi + `,"tool_choice":{"type":"any"}}`, "`tool_choice` tools"},
		{Messages, `{` + hi + `,"output_format":{"type":"json_schema"}}`, "`output_format` response_format"},
		{Messages, `{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"http://10.0.0.1/x"}}]}]}`, "`type` in messages[0].content[0].source nothing is fetched"},
		{Messages, `{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"\u0022}"}}]}]}`, "`data` base64"},
		{Messages, `{"messages":[{"role":"user","content":[{"text":"x"}]}]}`, "`type` in messages[0].content[0] missing"},
		{Messages, `{"messages":[{"role":"user","content":[{"type":7}]}]}`, "`type` in messages[0].content[0] a string"},
		{Messages, `{"messages":[{"role":"user","content":[{"type":"document","source":{}}]}]}`, "`type` in messages[0].content[0] files"},
		{Messages, `{"messages":[{"role":"user","content":[{"type":"text","text":"x","type":"image"}]}]}`, "`type`"},
		{Messages, `{"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":[]}]}]}`, "`input` an object"},
		{Messages, `{"messages":[{"role":"user","content":"hi"}],"grammar":"x"}`, "`grammar`"},
		{Responses, `{"input":"x","previous_response_id":"resp_1"}`, "`previous_response_id` whole conversation"},
		{Responses, `{"input":"x","conversation":"c"}`, "`conversation`"}, {Responses, `{"input":"x","background":true}`, "`background`"},
		{Responses, `{"input":"x","grammar":"x"}`, "`grammar` schema"}, {Responses, `{"input":"x","id_slot":1}`, "`id_slot`"},
		{Responses, `{"input":"x","tools":[{"type":"file_search"}]}`, "`type` in tools[0] a provider runs"},
		{Responses, `{"input":"x","tools":[{"type":"function","name":"f","parameters":{"$ref":"http://x"}}]}`, "`$ref` in tools[0].parameters"},
		{Responses, `{"input":"x","text":{"format":{"type":"json_schema","name":"n","schema":{"type":"string","pattern":"("}}}}`, "`pattern` in text.format.schema"},
		{Responses, `{"input":"x","text":{"format":{"type":"json_schema","name":"n","schema":{"enum":` + numbers(maxWidth+1) + `}}}}`, "`schema` in text.format"},
		{Responses, `{"input":"x","text":{"format":{"type":"json_schema"}}}`, "`schema` in text.format missing"},
		{Responses, `{"input":[{"type":"item_reference","id":"x"}]}`, "`type` in input[0] whole conversation"},
		{Responses, `{"input":[{"role":"user","content":[{"type":"input_image","image_url":"https://x/y.png"}]}]}`, "`image_url` in input[0].content[0] nothing is fetched"},
		{Responses, `{"input":[{"role":"user","content":[{"type":"input_file","file_id":"f"}]}]}`, "`type` in input[0].content[0] files"},
		{Responses, `{"input":[]}`, "`input` empty"}, {Responses, `{}`, "`input` missing"},
		{Responses, `{"input":"x","model":"other"}`, "gemma"}, {Messages, `{` + hi + `,"model":"other"}`, "gemma"},
	} {
		_, _, refused := checked(c.route, serving, c.in)
		if refused == "" {
			t.Errorf("%s is accepted, want it refused", c.in)
			continue
		}
		want := []string{c.texts}
		if m := fieldAndText.FindStringSubmatch(c.texts); m != nil {
			want = m[1:]
		}
		for _, want := range want {
			if !strings.Contains(refused, want) {
				t.Errorf("%s: got %q, want it to hold %q", c.in, refused, want)
			}
		}
	}
}

// fieldAndText splits an expected refusal into the field with its place, and the text that must follow.
var fieldAndText = regexp.MustCompile("^(`[^`]+`(?: in \\S+)?) ?(.*)$")

const anthropicExample = `{"model":"gemma","max_tokens":32000,"stream":true,"system":[{"type":"text","text":"be brief","cache_control":{"type":"ephemeral"}}],"metadata":{"user_id":"u"},
"thinking":{"type":"enabled","budget_tokens":1024},"stop_sequences":["","END"],"temperature":1,"context_management":{"edits":[]},"output_config":{"effort":"high"},
"tools":[{"name":"Bash","description":"runs","input_schema":{"type":"object","properties":{"command":{"type":"string"}},"required":["command"]},"cache_control":{"type":"ephemeral"},"eager_input_streaming":true},{"type":"custom","name":"Read","input_schema":{"type":"object"}}],"tool_choice":{"type":"auto","disable_parallel_tool_use":true},
"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"redacted_thinking","data":"x"},{"type":"text","text":"ok","citations":null},{"type":"tool_use","id":"t1","name":"Bash","input":{"command":"ls","cache_control":1}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"a"}],"is_error":false,"cache_control":{"type":"ephemeral"}},{"tool_use_id":"t2","content":[],"type":"tool_result"}]}]}`

// L13: a request of the Anthropic family, and what the runtime gets.
func TestMessages(t *testing.T) {
	got, result, refused := checked(Messages, serving, anthropicExample)
	want := `{"stream":true,"system":[{"type":"text","text":"be brief"}],"thinking":{"type":"enabled","budget_tokens":1024},"stop_sequences":["END"],"temperature":1,` +
		`"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"ok"},{"type":"tool_use","id":"t1","name":"Bash","input":{"command":"ls","cache_control":1}}]},` +
		`{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"a"}]},{"tool_use_id":"t2","content":"","type":"tool_result"}]}],` +
		`"tools":[{"name":"Bash","description":"runs","input_schema":{"type":"object","properties":{"command":{"type":"string"}},"required":["command"]}},{"name":"Read","input_schema":{"type":"object"}}],"tool_choice":{"type":"auto"},"model":"gemma","max_tokens":4096}`
	if refused != "" || !result.Stream || result.ToolForced {
		t.Fatalf("got refusal %q, result %+v, want a stream with no forced tool", refused, result)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for choice, want := range map[string]string{
		`{"type":"any"}`:              `,"tools":[{"name":"f","input_schema":{}},{"name":"g","input_schema":{}}],"tool_choice":{"type":"any"}`,
		`{"name":"g","type":"tool"}`:  `,"tools":[{"name":"g","input_schema":{}}],"tool_choice":{"type":"any"}`,
		`{"type":"none"}`:             ``,
		`{"type":"auto"}`:             `,"tools":[{"name":"f","input_schema":{}},{"name":"g","input_schema":{}}],"tool_choice":{"type":"auto"}`,
		`{"type":"auto","name":null}`: `,"tools":[{"name":"f","input_schema":{}},{"name":"g","input_schema":{}}],"tool_choice":{"type":"auto"}`,
		`null`:                        `,"tools":[{"name":"f","input_schema":{}},{"name":"g","input_schema":{}}]`,
	} {
		in := chatOf(`"max_tokens":9,"tools":[{"name":"f","input_schema":{}},{"name":"g","input_schema":{}}],"tool_choice":` + choice)
		got, result, refused := checked(Messages, serving, in)
		if want := `{` + hi + want + `,"model":"gemma","max_tokens":9}`; got != want {
			t.Errorf("tool_choice %s: got %s%s, want %s", choice, got, refused, want)
		}
		if forced := strings.Contains(choice, "any") || strings.Contains(choice, `"tool"`); result.ToolForced != forced {
			t.Errorf("tool_choice %s: got forced %v, want %v", choice, result.ToolForced, forced)
		}
		got, _, refused = checked(CountTokens, serving, in)
		if want := `{` + hi + want + `,"model":"gemma"}`; got != want {
			t.Errorf("count, tool_choice %s: got %s%s, want %s", choice, got, refused, want)
		}
	}
	if _, result, refused := checked(Messages, serving, `{"messages":[{"role":"user","content":[{"type":"image","source":{"data":"AAAA","type":"base64","media_type":"image/png"}}]}]}`); refused != "" || !result.Images {
		t.Errorf("a picture: got refusal %q, images %v, want none, true", refused, result.Images)
	}
}

const responsesExample = `{"model":"gemma","instructions":"be brief","stream":true,"store":false,"include":["reasoning.encrypted_content"],"reasoning":{"effort":"low","summary":"auto"},"text":{"verbosity":"low"},"parallel_tool_calls":false,"prompt_cache_key":"k","max_output_tokens":99999,
"tools":[{"type":"function","name":"shell","description":"d","strict":false,"parameters":{"type":"object","properties":{"c":{"type":"string"}}}},{"type":"web_search","external_web_access":false},{"format":{"type":"grammar"},"type":"custom","name":"apply_patch"}],"tool_choice":"auto",
"input":[{"role":"developer","content":"d"},{"type":"message","role":"user","content":[{"type":"input_text","text":"hi"}]},{"type":"reasoning","id":"r","summary":[],"encrypted_content":"x"},{"type":"function_call","id":"fc","call_id":"c","name":"shell","arguments":"{}","status":"completed"},{"type":"function_call_output","call_id":"c","output":"ok"},{"id":"msg","type":"message","role":"assistant","status":"completed","content":[{"type":"output_text","text":"done","annotations":[],"logprobs":[]}]},{"role":"assistant","content":[{"type":"refusal","refusal":"no"}]}]}`

// L13: a request of the Responses family, and what the runtime gets.
func TestResponses(t *testing.T) {
	got, result, refused := checked(Responses, serving, responsesExample)
	want := `{"instructions":"be brief","stream":true,"reasoning":{"effort":"low"},"parallel_tool_calls":false,"input":[{"role":"developer","content":"d","type":"message"},{"role":"user","content":[{"type":"input_text","text":"hi"}],"type":"message"},` +
		`{"type":"function_call","call_id":"c","name":"shell","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"ok"},{"role":"assistant","content":[{"type":"input_text","text":"done"}],"type":"message"},{"role":"assistant","content":[{"type":"input_text","text":"no"}],"type":"message"}],` +
		`"tools":[{"type":"function","name":"shell","description":"d","strict":false,"parameters":{"type":"object","properties":{"c":{"type":"string"}}}}],"tool_choice":"auto","model":"gemma","max_output_tokens":4096}`
	if refused != "" || !result.Stream {
		t.Fatalf("got refusal %q, result %+v, want a stream", refused, result)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for format, want := range map[string]string{
		`{"type":"text"}`:        ``,
		`{"type":"json_object"}`: `,"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object"}}}`,
		`{"schema":{"type":"object"},"name":"n","strict":true,"type":"json_schema"}`: `,"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object"},"name":"n","strict":true}}`,
	} {
		got, _, refused := checked(Responses, serving, `{"input":"x","text":{"format":`+format+`}}`)
		if want := `{"input":"x"` + want + `,"model":"gemma","max_output_tokens":4096}`; got != want {
			t.Errorf("format %s: got %s%s, want %s", format, got, refused, want)
		}
	}
	got, _, refused = checked(Responses, serving, `{"input":"x","tools":[{"type":"function","name":"f"},{"type":"function","name":"g"}],"tool_choice":{"type":"function","name":"g"}}`)
	if want := `{"input":"x","tools":[{"type":"function","name":"g"}],"tool_choice":"required","model":"gemma","max_output_tokens":4096}`; got != want {
		t.Errorf("a named function: got %s%s, want %s", got, refused, want)
	}
}

// L12: what is left out is counted by field, each once; a null is not.
func TestDroppedFieldsAreNamed(t *testing.T) {
	for in, want := range map[string][]string{
		chatOf(`"user":"u","store":null,"metadata":{}`): {"user", "metadata"},
		`{"messages":[{"role":"user","content":"x","cache_control":{}},{"role":"user","content":"x","cache_control":{},"parsed":1}]}`: {"cache_control", "parsed"},
		`{` + hi + `}`: nil,
	} {
		if _, result, refused := checked(Chat, serving, in); refused != "" || !slices.Equal(result.Dropped, want) {
			t.Errorf("%s: got %q %s, want %q", in, result.Dropped, refused, want)
		}
	}
}

// L12: with front_door.unknown_fields = "drop", unknown fields are left out at every place of a table, and those that
// are refused by name stay refused.
func TestUnknownFieldsDropped(t *testing.T) {
	dropping := serving
	dropping.DropUnknown = true
	for _, c := range []struct {
		route    Route
		in, want string
	}{
		{Chat, chatOf(`"frobnicate":{"a":[{"b":1}]},"x":1`), sentChat("", 4096)},
		{Chat, history(`{"role":"user","x":[],"content":"hi"}`), sentHistory(`{"role":"user","content":"hi"}`)},
		{Messages, chatOf(`"x":1`), sentChat("", 4096)},
		{Responses, `{"input":"x","y":{}}`, `{"input":"x","model":"gemma","max_output_tokens":4096}`},
	} {
		if got, result, refused := checked(c.route, dropping, c.in); got != c.want || !cmp.Equal(result.Dropped, []string{UnknownField}) {
			t.Errorf("%s: got %s%s, dropped %q, want %s", c.in, got, refused, result.Dropped, c.want)
		}
	}
	for _, in := range []string{chatOf(`"grammar":"x"`), chatOf(`"audio":{}`), chatOf(`"id_slot":null`), chatOf(`"x":1,"x":2`), chatOf(`"x":{"a":1,"a":1}`), chatOf(`"x":`), chatOf(`"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40))} {
		if _, _, refused := checked(Chat, dropping, in); refused == "" {
			t.Errorf("%s is accepted, want it refused", in)
		}
	}
	many := `{` + strings.TrimSuffix(members(maxMembers - 1)[1:], "}") + `,` + hi + `}`
	if _, _, refused := checked(Chat, dropping, many); refused != "" {
		t.Errorf("%d unknown fields: got %s, want them accepted", maxMembers-1, refused)
	}
}
