package openai

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"runtime"
	"slices"
	"strings"
	"testing"
	"weak"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	served   = messages.Model{Name: "gemma", Version: "1", Context: 4096}
	serving  = Serving{Model: served, Slots: 4}
	serving3 = Serving{Model: served, Slots: 3}
	serving2 = Serving{Model: served, Slots: 2}
)

const hi = `"messages":[{"role":"user","content":"hi"}]`

// L6a: accepted bodies, and what the runtime gets.
func TestAccepted(t *testing.T) {
	for name, c := range map[string]struct {
		route    Route
		in, want string
	}{
		"smallest chat":    {Chat, `{` + hi + `}`, `{` + hi + `,"model":"gemma","max_tokens":4096}`},
		"blanks and names": {Chat, " {\n\t\"model\" : \"\", " + hi + "} ", `{` + hi + `,"model":"gemma","max_tokens":4096}`},
		"served name":      {Chat, `{"model":"gemma",` + hi + `,"max_tokens":7}`, `{` + hi + `,"model":"gemma","max_tokens":7}`},
		"newer bound":      {Chat, `{` + hi + `,"max_completion_tokens":9.0}`, `{` + hi + `,"model":"gemma","max_tokens":9}`},
		"null is absent":   {Chat, `{` + hi + `,"stop":null,"temperature":null,"max_tokens":null}`, `{` + hi + `,"model":"gemma","max_tokens":4096}`},
		"dropped": {Chat, `{` + hi + `,"user":"me","metadata":{"a":[{}]},"store":true,"service_tier":"x","safety_identifier":"x","prompt_cache_key":"x"}`,
			`{` + hi + `,"model":"gemma","max_tokens":4096}`},
		"escapes are written in one form": {Chat, `{"\u006dessages":[{"role":"us\u0065r","content":"\u00e9\/\ud83d\ude00\u0000"}]}`,
			`{"messages":[{"role":"user","content":"é/😀\u0000"}],"model":"gemma","max_tokens":4096}`},
		"samplers": {Chat, `{` + hi + `,"temperature":0.50,"top_k":40,"min_p":5e-2,"seed":42,"logit_bias":{"15":-100},"samplers":["top_k","temperature"],"dry_sequence_breakers":["\n"]}`,
			`{` + hi + `,"temperature":0.5,"top_k":40,"min_p":0.05,"seed":42,"logit_bias":{"15":-100},"samplers":["top_k","temperature"],"dry_sequence_breakers":["\n"],"cache_prompt":false,"model":"gemma","max_tokens":4096}`},
		"a seed without a cached prompt":    {Completions, `{"prompt":"x","seed":0}`, `{"prompt":"x","seed":0,"cache_prompt":false,"model":"gemma","max_tokens":4096}`},
		"a seed with the client's own wish": {Completions, `{"prompt":"x","cache_prompt":true,"seed":7}`, `{"prompt":"x","cache_prompt":true,"seed":7,"model":"gemma","max_tokens":4096}`},
		"a random seed":                     {Completions, `{"prompt":"x","seed":-1}`, `{"prompt":"x","model":"gemma","max_tokens":4096}`},
		"stream": {Chat, `{` + hi + `,"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}`,
			`{` + hi + `,"stream":true,"stream_options":{"include_usage":true},"model":"gemma","max_tokens":4096}`},
		"logprobs": {Chat, `{` + hi + `,"top_logprobs":3,"logprobs":true,"n":2,"stop":["a","b"]}`,
			`{` + hi + `,"top_logprobs":3,"logprobs":true,"n":2,"stop":["a","b"],"model":"gemma","max_tokens":4096}`},
		"parts": {Chat, `{"messages":[{"role":"user","content":[{"type":"text","text":"see"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"low"}},{"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}}]}]}`,
			`{"messages":[{"role":"user","content":[{"type":"text","text":"see"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"low"}},{"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}}]}],"model":"gemma","max_tokens":4096}`},
		"tool turn": {Chat, `{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"ok"}]}`,
			`{"messages":[{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"ok"}],"model":"gemma","max_tokens":4096}`},
		"tools": {Chat, `{` + hi + `,"tool_choice":"auto","tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"$ref":"#/$defs/x"}},"$defs":{"x":{}}}}}]}`,
			`{` + hi + `,"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"$ref":"#/$defs/x"}},"$defs":{"x":{}}}}}],"tool_choice":"auto","model":"gemma","max_tokens":4096}`},
		"one tool by name": {Chat, `{"tool_choice":{"type":"function","function":{"name":"g"}},` + hi + `,"tools":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"g"}}]}`,
			`{` + hi + `,"tools":[{"type":"function","function":{"name":"g"}}],"tool_choice":"required","model":"gemma","max_tokens":4096}`},
		"an answer as a client's library keeps it": {Chat, `{"messages":[{"role":"assistant","content":"b","refusal":null,"annotations":null,"audio":null,"function_call":null,"tool_calls":null}]}`,
			`{"messages":[{"role":"assistant","content":"b"}],"model":"gemma","max_tokens":4096}`},
		"refused fields that are null": {Completions, `{"prompt":"x","best_of":null,"suffix":null,"echo":null}`, `{"prompt":"x","model":"gemma","max_tokens":4096}`},
		"no tools":                     {Chat, `{` + hi + `,"tools":[],"tool_choice":"none"}`, `{` + hi + `,"model":"gemma","max_tokens":4096}`},
		"schema": {Chat, `{` + hi + `,"response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"array","maxItems":3,"items":{"type":"string","pattern":"^a$","enum":["a",1,null,true,1.5]}}}}}`,
			`{` + hi + `,"response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"array","maxItems":3,"items":{"type":"string","pattern":"^a$","enum":["a",1,null,true,1.5]}}}},"model":"gemma","max_tokens":4096}`},
		"whole numbers of 64 bits": {Chat, `{` + hi + `,"tools":[{"type":"function","function":{"name":"f","parameters":{"enum":[9007199254740993,-9223372036854775808,18446744073709551615,18446744073709551616,-0,1e3,0.10]}}}]}`,
			`{` + hi + `,"tools":[{"type":"function","function":{"name":"f","parameters":{"enum":[9007199254740993,-9223372036854775808,18446744073709551615,1.8446744073709552e+19,0,1000,0.1]}}}],"model":"gemma","max_tokens":4096}`},
		"schema that refers to itself": {Chat, `{` + hi + `,"response_format":{"type":"json_schema","json_schema":{"schema":{"allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"properties":{"properties":{"type":["object","null"]},"enum":{"$ref":"#/$defs/a"}}}}}}}}`,
			`{` + hi + `,"response_format":{"type":"json_schema","json_schema":{"schema":{"allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"properties":{"properties":{"type":["object","null"]},"enum":{"$ref":"#/$defs/a"}}}}}}},"model":"gemma","max_tokens":4096}`},
		"recursion inside an allOf": {Chat, `{` + hi + `,"response_format":{"type":"json_schema","json_schema":{"schema":{"$defs":{"n":{"allOf":[{"properties":{"next":{"$ref":"#/$defs/n"}}}]}},"$ref":"#/$defs/n"}}}}`,
			`{` + hi + `,"response_format":{"type":"json_schema","json_schema":{"schema":{"$defs":{"n":{"allOf":[{"properties":{"next":{"$ref":"#/$defs/n"}}}]}},"$ref":"#/$defs/n"}}},"model":"gemma","max_tokens":4096}`},
		"two tools with the same definition": {Chat, `{` + hi + `,"tools":[` + toolWith(`{"$ref":"#/$defs/y","$defs":{"y":{"type":"object"}}}`) + `,` + toolWith(`{"$ref":"#/$defs/y","$defs":{"y":{"type":"object"},"z":{}}}`) + `]}`,
			`{` + hi + `,"tools":[` + toolWith(`{"$ref":"#/$defs/y","$defs":{"y":{"type":"object"}}}`) + `,` + toolWith(`{"$ref":"#/$defs/y","$defs":{"y":{"type":"object"},"z":{}}}`) + `],"model":"gemma","max_tokens":4096}`},
		"one bound of an integer": {Chat, `{` + hi + `,"tools":[` + toolWith(`{"properties":{"a":{"type":"integer","minimum":1900},"b":{"type":["null","integer"],"exclusiveMaximum":-100},"c":{"type":"number","minimum":0.5,"exclusiveMinimum":true,"required":true}}}`) + `]}`,
			`{` + hi + `,"tools":[` + toolWith(`{"properties":{"a":{"type":"integer","minimum":1900,"maximum":999999999999999},"b":{"type":["null","integer"],"exclusiveMaximum":-100,"minimum":-999999999999999},"c":{"type":"number","minimum":0.5,"exclusiveMinimum":true,"required":true}}}`) + `],"model":"gemma","max_tokens":4096}`},
		"any object": {Chat, `{` + hi + `,"response_format":{"type":"json_object"}}`,
			`{` + hi + `,"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object"}}},"model":"gemma","max_tokens":4096}`},
		"completion":        {Completions, `{"prompt":"once","logprobs":2}`, `{"prompt":"once","logprobs":2,"model":"gemma","max_tokens":4096}`},
		"tokens":            {Completions, `{"prompt":[1,2]}`, `{"prompt":[1,2],"model":"gemma","max_tokens":4096}`},
		"lists of tokens":   {Completions, `{"prompt":[[1],[2,3]]}`, `{"prompt":[[1],[2,3]],"model":"gemma","max_tokens":4096}`},
		"embedding":         {Embeddings, `{"input":"a","model":"gemma","encoding_format":"float","user":"u"}`, `{"input":"a","encoding_format":"float","model":"gemma"}`},
		"several to embed":  {Embeddings, `{"input":["a","b"]}`, `{"input":["a","b"],"model":"gemma"}`},
		"content once more": {Chat, `{"messages":[{"role":"user","content":""}]}`, `{"messages":[{"role":"user","content":""}],"model":"gemma","max_tokens":4096}`},
	} {
		got, result, err := Check(c.route, []byte(c.in), serving, nil)
		if err != nil {
			t.Errorf("%s: %s: %v", name, err.Param, err)
			continue
		}
		if diff := cmp.Diff(c.want, string(got)); diff != "" {
			t.Errorf("%s: got a difference (-want +got): %s", name, diff)
		}
		if want := name == "logprobs" || name == "completion"; result.Probabilities != want {
			t.Errorf("%s: got probabilities %v, want %v", name, result.Probabilities, want)
		}
		if want := name == "stream"; result.Stream != want {
			t.Errorf("%s: got stream %v, want %v", name, result.Stream, want)
		}
	}
}

// L6a: what is refused, with the field's name.
func TestRefused(t *testing.T) {
	deep := strings.Repeat(`[`, 40) + strings.Repeat(`]`, 40)
	format := func(schema string) string {
		return `{` + hi + `,"response_format":{"type":"json_schema","json_schema":{"schema":` + schema + `}}}`
	}
	user := func(content string) string { return `{"messages":[{"role":"user","content":` + content + `}]}` }
	for _, c := range []struct{ in, param string }{
		{``, ""}, {`[]`, ""}, {`"x"`, ""}, {`{`, ""}, {`{}`, "messages"}, {`{` + hi + `} x`, ""}, {`{` + hi + `}{}`, ""},
		{"\xef\xbb\xbf{" + hi + "}", ""}, {`{"messages":[{"role":"user","content":"` + "\xff" + `"}]}`, "messages[0].content"},
		{`{"messages":[{"role":"user","content":"\ud800"}]}`, "messages[0].content"},
		{`{` + hi + `,` + hi + `}`, ""}, {`{"seed":1,"seed":1}`, ""}, {`{"messages":[{"role":"user","role":"user","content":"x"}]}`, "messages[0]"},
		{`{"messages":[]}`, "messages"}, {`{"messages":null}`, "messages"}, {`{"messages":{}}`, "messages"},
		{`{"messages":[{"content":"x"}]}`, "messages[0].role"}, {`{"messages":[{"role":"user"}]}`, "messages[0].content"},
		{`{"messages":[{"role":"root","content":"x"}]}`, "messages[0].role"}, {user(`7`), "messages[0].content"},
		{`{"messages":[{"role":"user","content":"x","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":""}}]}]}`, "messages[0].tool_calls"},
		{user(`[{"type":"text"}]`), "messages[0].content[0].text"}, {user(`[{"type":"text","text":"x","image_url":{"url":"data:image/png;base64,AA"}}]`), "messages[0].content[0].image_url"},
		{user(`[{"type":"image_url","image_url":{"url":"http://10.0.0.1/x"}}]`), "messages[0].content[0].image_url.url"},
		{user(`[{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}]`), "messages[0].content[0].image_url.url"},
		{user(`[{"type":"image_url","image_url":{"url":" data:image/png;base64,AA"}}]`), "messages[0].content[0].image_url.url"},
		{user(`[{"type":"image_url","image_url":"http://10.0.0.1/x"}]`), "messages[0].content[0].image_url"},
		{user(`[{"type":"file","file":{}}]`), "messages[0].content[0].type"}, {user(`[]`), "messages[0].content"},
		{`{` + hi + `,"frobnicate":1}`, "frobnicate"}, {`{` + hi + `,"Temperature":1}`, "Temperature"}, {`{` + hi + `,"` + strings.Repeat("é", 50) + `":1}`, strings.Repeat("?", 32)},
		{`{` + hi + `,"id_slot":0}`, "id_slot"}, {`{` + hi + `,"lora":[]}`, "lora"}, {`{` + hi + `,"n_discard":1}`, "n_discard"}, {`{` + hi + `,"n_keep":1}`, "n_keep"},
		{`{` + hi + `,"response_fields":[]}`, "response_fields"}, {`{` + hi + `,"grammar":"root ::= \"a\""}`, "grammar"}, {`{` + hi + `,"id_slot":null}`, "id_slot"}, {`{` + hi + `,"grammar":null}`, "grammar"},
		{`{` + hi + `,"audio":{}}`, "audio"}, {`{` + hi + `,"frobnicate":null}`, "frobnicate"}, {`{"messages":[{"role":"user","content":"x","function_call":{}}]}`, "messages[0].function_call"},
		{`{` + hi + `,"temperature":2.1}`, "temperature"}, {`{` + hi + `,"temperature":"1"}`, "temperature"}, {`{` + hi + `,"temperature":1e999}`, "temperature"}, {`{` + hi + `,"temperature":NaN}`, "temperature"},
		{`{` + hi + `,"seed":1.5}`, "seed"}, {`{` + hi + `,"n":0}`, "n"}, {`{` + hi + `,"n":5}`, "n"},
		{`{` + hi + `,"max_tokens":0}`, "max_tokens"}, {`{` + hi + `,"max_tokens":-2}`, "max_tokens"}, {`{` + hi + `,"max_tokens":1.5}`, "max_tokens"}, {`{` + hi + `,"max_tokens":1,"max_completion_tokens":2}`, "max_completion_tokens"},
		{`{` + hi + `,"stop":[1]}`, "stop[0]"}, {`{` + hi + `,"stop":["` + strings.Repeat(`a","`, 32) + `b"]}`, "stop"},
		{`{` + hi + `,"logit_bias":{"a":1}}`, "logit_bias.a"}, {`{` + hi + `,"logit_bias":{"01":1}}`, "logit_bias.01"}, {`{` + hi + `,"logit_bias":{"1":101}}`, "logit_bias.1"},
		{`{` + hi + `,"stream_options":{}}`, "stream_options"}, {`{` + hi + `,"stream":1}`, "stream"}, {`{` + hi + `,"top_logprobs":2}`, "top_logprobs"},
		{`{` + hi + `,"tool_choice":"required"}`, "tool_choice"}, {`{` + hi + `,"tool_choice":"f"}`, "tool_choice"},
		{`{` + hi + `,"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"g"}}}`, "tool_choice.function.name"},
		{`{` + hi + `,"tools":[{"type":"function","function":{"name":"a b"}}]}`, "tools[0].function.name"}, {`{` + hi + `,"tools":[{"type":"web"}]}`, "tools[0].type"},
		{`{` + hi + `,"tools":[{"type":"function","function":{"name":"f","parameters":{"$ref":"https://evil.example/s"}}}]}`, "tools[0].function.parameters.$ref"},
		{`{` + hi + `,"response_format":{"type":"json_schema"}}`, "response_format.json_schema"}, {`{` + hi + `,"response_format":{"type":"json_object","json_schema":{"schema":{}}}}`, "response_format.json_schema"},
		{`{` + hi + `,"response_format":{"type":"json_schema","json_schema":{"schema":{"items":{"pattern":"` + strings.Repeat("a", 257) + `"}}}}}`, "response_format.json_schema.schema.items.pattern"},
		{`{` + hi + `,"response_format":{"type":"json_schema","json_schema":{"schema":{"minItems":2001}}}}`, "response_format.json_schema.schema.minItems"},
		{`{` + hi + `,"metadata":` + deep + `}`, "metadata" + strings.Repeat("[0]", 31)},
		{`{` + hi + `,"metadata":` + members(maxMembers+1) + `}`, "metadata"},
		{`{{}:1}`, ""}, {`{[]:1}`, ""}, {`{1:1}`, ""}, {`{null:1}`, ""}, {`{]`, ""}, {`{"messages":[{{}:1}]}`, "messages[0]"},
		{`{` + hi + `,"metadata":{{}:1}}`, "metadata"}, {`{` + hi + `,"metadata":{"a":1,[]:1}}`, "metadata"}, {`{` + hi + `,"logit_bias":{{}:1}}`, "logit_bias"},
		{`{` + hi + `,"temperature":1.` + strings.Repeat("0", maxNumeral) + `}`, "temperature"}, {`{` + hi + `,"metadata":1` + strings.Repeat("0", 310) + `}`, "metadata"},
		{format(`{"properties":` + schemaMembers(maxProperties+1) + `}`), "response_format.json_schema.schema.properties"},
		{format(`{"prefixItems":[` + strings.Repeat(`{"required":[],"properties":`+schemaMembers(500)+`},`, 4) + `{"properties":` + schemaMembers(99) + `}]}`), "response_format.json_schema.schema.prefixItems[4].properties.42"},
		{format(`{"items":{"enum":` + strings.Replace(numbers(maxParts), "[", "[1000000,", 1) + `}}`), "response_format.json_schema.schema.items.enum[2046]"},
		{format(`{"items":{"enum":[1,2,1]}}`), "response_format.json_schema.schema.items.enum[2]"},
		{format(`{"anyOf":[{},{"properties":{"enum":{"oneOf":[{}` + strings.Repeat(",{}", maxParts) + `]}}}]}`), "response_format.json_schema.schema.anyOf[1].properties.enum.oneOf[2044]"},
		{format(`{"type":["object","null","object"]}`), "response_format.json_schema.schema.type"}, {format(`{"type":[]}`), "response_format.json_schema.schema.type"}, {format(`{"type":"objekt"}`), "response_format.json_schema.schema.type"},
		{format(`{"description":"` + strings.Repeat("x", maxSchema) + `"}`), "response_format.json_schema.schema"},
		{format(`{"properties":{"a":true}}`), "response_format.json_schema.schema.properties.a"}, {format(`{"properties":{"":{}}}`), "response_format.json_schema.schema.properties"},
		{format(`{"properties":{"$ref":{}}}`), "response_format.json_schema.schema.properties.$ref"}, {format(`{"default":{"$ref":"#/x"}}`), "response_format.json_schema.schema.default.$ref"},
		{format(`{"properties":{"` + strings.Repeat("_", maxPropertyName+1) + `":{}}}`), "response_format.json_schema.schema.properties." + strings.Repeat("_", 64)},
		{format(`{"properties":{"a]":{}},"additionalProperties":true}`), "response_format.json_schema.schema"},
		{format(`{"anyOf":[{}],"properties":{"a":{}}}`), "response_format.json_schema.schema"}, {format(`{"anyOf":[{}],"oneOf":[{}]}`), "response_format.json_schema.schema.oneOf"}, {format(`{"anyOf":[]}`), "response_format.json_schema.schema.anyOf"},
		{format(`{"type":"string","minLength":3,"maxLength":2}`), "response_format.json_schema.schema.maxLength"}, {format(`{"items":{},"minItems":3,"maxItems":2}`), "response_format.json_schema.schema.maxItems"},
		{format(`{"items":{},"maxItems":-1}`), "response_format.json_schema.schema.maxItems"}, {format(`{"type":"string","maxLength":2000}`), "response_format.json_schema.schema.maxLength"},
		{format(`{"type":"integer","minimum":123456789012345678}`), "response_format.json_schema.schema.minimum"}, {format(`{"type":["integer","null"],"minimum":1.5}`), "response_format.json_schema.schema.minimum"},
		{format(`{"type":"integer","minimum":3,"exclusiveMinimum":true}`), "response_format.json_schema.schema.minimum"}, {format(`{"type":"integer","minimum":3,"maximum":2}`), "response_format.json_schema.schema.maximum"}, {format(`{"type":"integer","minimum":-9223372036854775808,"maximum":1}`), "response_format.json_schema.schema.minimum"},
		{format(`{}`), "response_format.json_schema.schema"}, {format(`{"$ref":"#"}`), "response_format.json_schema.schema.$ref"}, {format(`{"$ref":"#/x"}`), "response_format.json_schema.schema"}, {format(`{"$dynamicRef":"#/x"}`), "response_format.json_schema.schema.$dynamicRef"},
		{format(`{"allOf":[{"type":"string"}]}`), "response_format.json_schema.schema"}, {format(`{"allOf":[{"properties":{"a":{}}},{"properties":{"a":{}}}]}`), "response_format.json_schema.schema"},
		{format(`{"allOf":[{"enum":["a"]},{"enum":["b"]}]}`), "response_format.json_schema.schema"}, {format(`{"allOf":[{"enum":["a"]},{"properties":{"a":{}}}]}`), "response_format.json_schema.schema"},
		{format(`{"prefixItems":[` + strings.Repeat(`{"required":[],"properties":`+collidingMembers(500)+`},`, 3) + `{}]}`), "response_format.json_schema.schema"},
		{format(`{"items":{"pattern":"^*$"}}`), "response_format.json_schema.schema.items.pattern"}, {format(`{"not":{"pattern":"["}}`), "response_format.json_schema.schema.not.pattern"},
		{format(`{"allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}`), "response_format.json_schema.schema"},
		{format(`{"$ref":"#/$defs/a","$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"},{"type":"null"}]}}}`), "response_format.json_schema.schema"},
		{format(`{"$ref":"#/$defs/n","$defs":{"n":{"properties":{"next":{"allOf":[{"$ref":"#/$defs/n"}]}}}}}`), "response_format.json_schema.schema"},
		{format(`{"$ref":"#/$defs/n","$defs":{"n":{"anyOf":[{"properties":{"next":{"$ref":"#/$defs/n"}}},{"properties":{"next":{"$ref":"#/$defs/n"}}}]}}}`), "response_format.json_schema.schema"},
		{format(`{"$defs":{` + doubling(20) + `},"$ref":"#/$defs/a0"}`), "response_format.json_schema.schema"},
		{format(`{"$defs":{` + forking(24) + `},"$ref":"#/$defs/a0"}`), "response_format.json_schema.schema"},
		{format(`{"allOf":[{"$ref":"#/allOf/0"}]}`), "response_format.json_schema.schema"}, {format(`{"allOf":[{"$ref":"#/allOf/ +00x"}]}`), "response_format.json_schema.schema"},
		{format(`{"properties":{"a":{"$ref":"#/$defs/a.b"},"b":{"$ref":"#/$defs/a-b"},"c":{"$ref":"#/$defs/a:b"}},"$defs":{"a.b":{},"a-b":{},"a:b":{"type":"null"}}}`), "response_format.json_schema.schema"},
		{`{` + hi + `,"tools":[` + toolWith(`{"$ref":"#/$defs/y","$defs":{"y":{}}}`) + `,` + toolWith(`{"$ref":"#/$defs/y","$defs":{"y":{"type":"object"}}}`) + `]}`, "tools[1].function.parameters"},
		{format(`{"enum":` + numbers(maxWidth+1) + `}`), "response_format.json_schema.schema"}, {format(`{"items":{"anyOf":[{"type":"string"}` + strings.Repeat(`,{"type":"string"}`, maxCopies) + `]}}`), "response_format.json_schema.schema"},
		{`{` + hi + `,"n":4,"response_format":{"type":"json_schema","json_schema":{"schema":{"enum":` + numbers(maxWidth/4+1) + `}}}}`, "response_format.json_schema.schema"},
		{`{` + hi + `,"model":7}`, "model"}, {`{` + hi + `,"model":"other"}`, "model"},
	} {
		_, _, err := Check(Chat, []byte(c.in), serving, nil)
		if err == nil {
			t.Errorf("%s is accepted, want it refused", c.in)
			continue
		}
		want := messages.ReasonBadRequest
		if strings.Contains(c.in, `"other"`) {
			want = messages.ReasonModelNotFound
		}
		if err.Param != c.param || err.Reason != want {
			t.Errorf("%s: param %q, reason %s (%v); want param %q", c.in, err.Param, err.Reason, err, c.param)
		}
	}
	for in, param := range map[string]string{`{"prompt":""  ,"echo":true}`: "echo", `{}`: "prompt", `{"prompt":[]}`: "prompt", `{"prompt":[[]]}`: "prompt[0]", `{"prompt":[-1]}`: "prompt[0]",
		`{"prompt":[0` + strings.Repeat(",0", 4096) + `]}`: "prompt", `{"prompt":["x",[0` + strings.Repeat(",0", 4096) + `]]}`: "prompt[1]",
		`{"prompt":[""` + strings.Repeat(`,""`, 32) + `]}`: "prompt", `{"prompt":["",1]}`: "prompt[1]", `{"prompt":[1,""]}`: "prompt[1]"} {
		if _, _, err := Check(Completions, []byte(in), serving, nil); err == nil || err.Param != param {
			t.Errorf("%s: %+v, want param %s", in, err, param)
		}
	}
	for in, param := range map[string]string{`{"input":"x","dimensions":3}`: "dimensions", `{"input":[""` + strings.Repeat(`,""`, 2048) + `]}`: "input"} {
		if _, _, err := Check(Embeddings, []byte(in), serving, nil); err == nil || err.Param != param {
			t.Errorf("%s: %+v, want param %s", in, err, param)
		}
	}
}

// L6a, T16: the longest accepted prompts.
func TestLongestPrompts(t *testing.T) {
	for in, route := range map[string]Route{
		`{"prompt":[0` + strings.Repeat(",0", 4095) + `]}`: Completions, `{"prompt":[[1]` + strings.Repeat(`,""`, 31) + `]}`: Completions,
		`{"input":[0` + strings.Repeat(",0", 4095) + `]}`: Embeddings, `{"input":[""` + strings.Repeat(`,""`, 2047) + `]}`: Embeddings,
	} {
		if _, _, err := Check(route, []byte(in), serving, nil); err != nil {
			t.Errorf("%s: %v", err.Param, err)
		}
	}
}

// doubling returns n definitions, each of which merges the next one twice.
func doubling(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"a%d":{"properties":{"x":{"allOf":[{"$ref":"#/$defs/a%[2]d"}]},"y":{"allOf":[{"$ref":"#/$defs/a%[2]d"}]}}},`, i, i+1)
	}
	return b.String() + fmt.Sprintf(`"a%d":{}`, n)
}

// L6a: a request for more answers than the runtime has slots is refused.
func TestNoMoreAnswersThanSlots(t *testing.T) {
	for _, route := range []Route{Chat, Completions} {
		in := `{` + hi + `,"n":3}`
		if route == Completions {
			in = `{"prompt":"x","n":3}`
		}
		if _, _, err := Check(route, []byte(in), serving3, nil); err != nil {
			t.Errorf("three of three slots: %v", err)
		}
		_, _, err := Check(route, []byte(in), serving2, nil)
		if err == nil || err.Param != "n" || !strings.Contains(err.Error(), "from 1 to 2") {
			t.Errorf("three of two slots: got %+v, want an error about n that says from 1 to 2", err)
		}
	}
}

// forking returns n definitions, each with the next one as two of its alternatives.
func forking(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"a%d":{"anyOf":[{"$ref":"#/$defs/a%[2]d"},{"$ref":"#/$defs/a%[2]d"}]},`, i, i+1)
	}
	return b.String() + fmt.Sprintf(`"a%d":{"type":"null"}`, n)
}

// toolWith returns a tool with the given parameters.
func toolWith(parameters string) string {
	return `{"type":"function","function":{"name":"f","parameters":` + parameters + `}}`
}

// numbers returns an array of n numbers.
func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ",%d", i)
	}
	return "[" + b.String()[1:] + "]"
}

// collidingMembers returns an object of n schemas whose names become the same in the runtime.
func collidingMembers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"%c":{}`, 0x4e00+i)
	}
	return "{" + b.String()[1:] + "}"
}

// schemaMembers returns an object of n schemas.
func schemaMembers(n int) string { return strings.ReplaceAll(members(n), ":1", ":{}") }

// members returns an object of n members.
func members(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"%d":1`, i)
	}
	return "{" + b.String()[1:] + "}"
}

// L6a, L9: an object of free JSON may have maxMembers members.
func TestMembers(t *testing.T) {
	if _, _, err := Check(Chat, []byte(`{`+hi+`,"metadata":`+members(maxMembers)+`}`), serving, nil); err != nil {
		t.Errorf("%s: %v", err.Param, err)
	}
}

// L6a, T16: a value in the place of a name is refused before it is read.
func TestOnlyNamesAreRead(t *testing.T) {
	wrong := `{` + members(1<<14) + `:1}`
	for name, in := range map[string]string{
		"request": wrong, "free JSON": `{"metadata":` + wrong + `}`, "biases": `{"logit_bias":` + wrong + `}`,
	} {
		if _, _, err := Check(Chat, []byte(in), serving, nil); err == nil {
			t.Fatalf("%s: accepted", name)
		}
		raw := []byte(in)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, _ = Check(Chat, raw, serving, nil)
		runtime.ReadMemStats(&after)
		if held := after.TotalAlloc - before.TotalAlloc; held > 64<<10 {
			t.Errorf("%s: refusing it took %d bytes, want at most 64 KiB", name, held)
		}
	}
}

// L6a, L10: a text holds the served name and the field, and no value of the client.
func TestErrorTexts(t *testing.T) {
	_, _, err := Check(Chat, []byte(`{`+hi+`,"model":"secret-thing"}`), serving, nil)
	if text := err.Error(); !strings.Contains(text, "gemma") || strings.Contains(text, "secret") {
		t.Errorf("got text %q, want one with gemma and without secret", text)
	}
	for kind := range faultTexts {
		text := (&Error{fault: faultKind(kind), limit: "LIMIT"}).Error()
		if text == "" || strings.ContainsAny(text, "%@") {
			t.Errorf("fault %d says %q, want words without a verb or a place", kind, text)
		}
	}
	for in, want := range map[string]string{
		`{"messages":[{"role":"user","content":"x","parse":1}]}`:         "Unknown field `parse` in messages[0]. Remove it or correct its name, or set `front_door.unknown_fields` to \"drop\".",
		`{"messages":[{"role":"user","content":"x","function_call":1}]}`: "`function_call` in messages[0] is not allowed: it is the old form of `tool_calls`; write that.",
		`{` + hi + `,"temperature":3}`:                                   "`temperature` must be a number from 0 to 2.",
		`[]`:                                                             "The body must be an object.",
		`{` + hi + `,"tools":[` + toolWith(`{"properties":{"zip":{"pattern":"^\\d$"}}}`) + `]}`: "`pattern` in tools[0].function.parameters.properties.zip: the runtime does not support " + string(patternEscape) + ".",
	} {
		if _, _, err := Check(Chat, []byte(in), serving, nil); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %q", in, err, want)
		}
	}
}

// L6a: for any input, the output is JSON with fields of the table only, means the same, and is accepted without
// a change.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{
		`{` + hi + `}`, `{` + hi + `,"tools":[{"type":"function","function":{"name":"f","parameters":{"a":[1,null,true]}}}],"tool_choice":{"type":"function","function":{"name":"f"}}}`,
		`{` + hi + `,"response_format":{"type":"json_schema","json_schema":{"schema":{"$ref":"#"}}},"logit_bias":{"1":2},"stop":["x"],"user":{}}`,
		`{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:a;base64,AA"}}]}],"stream":true,"stream_options":{}}`,
		`{` + hi + `,"tools":[{"type":"function","function":{"name":"f","parameters":{"default":null,"enum":[9007199254740993,18446744073709551615,-9223372036854775808,1e20,0.1]}}}],"tool_choice":"auto"}`,
		`{` + hi + `,"tools":[],"tool_choice":"none","max_completion_tokens":7,"refusal":null,"audio":null,"response_format":{"type":"json_object"}}`,
		`{` + hi + `,"seed":-1,"top_k":-1,"repeat_last_n":-1,"stop":["","x"],"n_predict":-1,"cache_prompt":true}`, `{` + hi + `,"seed":18446744073709551615,"stop":"","max_tokens":99999,"extra_body":{}}`,
		`{"messages":[{"role":"tool","tool_call_id":"c","content":[]},{"role":"assistant","content":null,"tool_calls":[],"reasoning_content":"r","parsed":{}}]}`,
		anthropicExample, responsesExample,
		`{"messages":[{"role":"user","content":"hi"}],"system":[{"type":"text","text":"s","cache_control":{}}],"tools":[{"name":"f","input_schema":{"type":"object"}},{"name":"g","input_schema":{}}],"tool_choice":{"type":"tool","name":"g"}}`,
		`{"input":"hi","text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object","properties":{"a":{"pattern":"^a$"}}}}}}`,
		`{"input_prefix":"a","input_suffix":"b","input_extra":[{"text":"c"}],"prompt":"d","n_predict":0,"samplers":["top_k","infill"],"n_indent":2,"response_fields":["content"]}`,
		`{"suffix":"b","prompt":"a","max_tokens":3}`, `{"prompt":"a","suffix":"","n":2}`, `{"prompt":["a"],"suffix":"b"}`,
		`{"prompt":[[1,2]],"logprobs":1,"max_tokens":3}`, `{"input":["a"],"encoding_format":"base64"}`, `{"messages":[{"role":"user","content":"\ud83d\ude00\\u0000"}]}`,
	} {
		for route := range forms {
			f.Add(uint8(route), []byte(s))
		}
	}
	for route, reports := range map[Route][]report{Chat: chatReports, Responses: responsesReports, Messages: messagesReports} {
		for _, r := range reports {
			f.Add(uint8(route), []byte(r.in))
			f.Add(uint8(Completions), []byte(r.in))
		}
	}
	f.Fuzz(func(t *testing.T, route uint8, in []byte) {
		kind := Route(route % uint8(len(forms)))
		out, _, err := Check(kind, in, filling(-1), nil)
		if err != nil {
			if err.Error() == "" || err.Reason != messages.ReasonBadRequest && err.Reason != messages.ReasonModelNotFound {
				t.Fatalf("got %+v, want a reason and a text", err)
			}
			return
		}
		before, after := decode(t, in), decode(t, out)
		suffixed := kind == Completions && before["suffix"] != nil
		for name := range after {
			row, known := forms[kind].fields.byName[name]
			if kind == Responses && name == "response_format" {
				continue // from text.format
			}
			if !known || forms[kind].fields.fields[row].action != accept {
				t.Fatalf("%s is accepted, want it refused", name)
			}
		}
		if kind == Responses {
			delete(after, "response_format")
			out = encode(t, after)
		}
		if kind >= Responses {
			checkNothingInvented(t, before, after)
		} else if diff := cmp.Diff(meant(kind, before), after, cmp.FilterPath(otherBound, cmp.Ignore()), cmp.Comparer(sameNumber), cmp.Comparer(sameText)); diff != "" {
			t.Fatalf("got a difference, want none: %s", diff)
		}
		if suffixed {
			return // the prompt has become what no client may send: a list of texts and tokens
		}
		again, _, err := Check(kind, out, filling(-1), nil)
		if err != nil {
			t.Fatalf("its own output is refused: %s: %v: %s", err.Param, err, out)
		}
		if kind == Responses {
			again = encode(t, decode(t, again))
		}
		if !bytes.Equal(out, again) {
			t.Fatalf("normalized again, got %[2]s, want %[1]s", out, again)
		}
	})
}

func decode(t *testing.T, b []byte) (object map[string]any) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if !json.Valid(b) || d.Decode(&object) != nil {
		t.Fatalf("got %q, want a JSON object", b)
	}
	return object
}

func encode(t *testing.T, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkNothingInvented fails for a text in the new body that is neither in the request nor a word of the table.
func checkNothingInvented(t *testing.T, before, after any) {
	t.Helper()
	said := map[string]bool{
		served.Name: true, "": true, "message": true, "text": true, "input_text": true, "required": true, "any": true, "auto": true,
	}
	leaves(before, func(s string) {
		said[s] = true
		if p, err := parsePattern([]byte(s)); err == nil {
			said[string(p.text)] = true
		}
	})
	leaves(after, func(s string) {
		if !said[s] {
			t.Fatalf("got string %q, want only strings of the request", s)
		}
	})
}

// leaves calls f for every text and name.
func leaves(v any, f func(string)) {
	switch v := v.(type) {
	case string:
		f(v)
	case map[string]any:
		for _, member := range v {
			leaves(member, f)
		}
	case []any:
		for _, member := range v {
			leaves(member, f)
		}
	}
}

// meant returns what the runtime must get for an accepted request: without null and dropped fields, with sentinels
// as the numbers that they stand for, and with the fields that are always added.
func meant(kind Route, request map[string]any) map[string]any {
	table := forms[kind].fields
	for name := range request {
		row := table.fields[table.byName[name]]
		if _, one := row.rule.(only); one || row.action != accept {
			delete(request, name)
		}
	}
	wishes := wishesMeant(request)
	want := plain(request).(map[string]any)
	for name, value := range wishes {
		want[name] = value
	}
	if after, ok := want["suffix"].(string); ok && kind == Completions {
		if delete(want, "suffix"); after != "" {
			want["prompt"] = []any{json.Number("7"), want["prompt"], json.Number("8"), after, json.Number("9")}
		}
	}
	want["model"] = served.Name
	if kind == Embeddings {
		return want
	}
	bound := int64(served.Context)
	for _, name := range []string{"max_tokens", "max_completion_tokens", "n_predict"} {
		if given, ok := want[name]; ok {
			if x, _ := given.(json.Number).Float64(); x != -1 {
				bound = min(bound, int64(min(x, 1e9)))
			}
			delete(want, name)
		}
	}
	want[forms[kind].bound] = json.Number(fmt.Sprint(bound))
	for name, all := range map[string]string{"top_k": "0", "repeat_last_n": "4096", "dry_penalty_last_n": "4096"} {
		if n, ok := want[name].(json.Number); ok && sameNumber(n, "-1") {
			want[name] = json.Number(all)
		}
	}
	if n, ok := want["seed"].(json.Number); ok {
		want["seed"] = seedMeant(n)
		if sameNumber(n, "-1") {
			delete(want, "seed")
		} else if _, given := want["cache_prompt"]; !given {
			want["cache_prompt"] = false
		}
	}
	if want["stop"] == "" {
		delete(want, "stop")
	} else if stops, ok := want["stop"].([]any); ok {
		want["stop"] = slices.DeleteFunc(stops, func(s any) bool { return s == "" })
	}
	for _, m := range anys(want["messages"]) {
		m := m.(map[string]any)
		delete(m, "id")
		if m["name"] == "" {
			delete(m, "name")
		}
		if parts, ok := m["content"].([]any); ok {
			m["content"] = partsMeant(parts)
		}
		if len(anys(m["tool_calls"])) == 0 {
			delete(m, "tool_calls")
		}
		if parts, ok := m["content"].([]any); ok && len(parts) == 0 || m["content"] == nil && m["tool_calls"] == nil {
			m["content"] = ""
		}
	}
	if format, ok := want["response_format"].(map[string]any); ok && format["type"] == "json_object" {
		want["response_format"] = map[string]any{"type": "json_schema", "json_schema": map[string]any{"schema": map[string]any{"type": "object"}}}
	}
	tools := anys(want["tools"])
	if len(tools) == 0 {
		delete(want, "tools")
		delete(want, "tool_choice") // "none" or "auto"
	}
	if choice, ok := want["tool_choice"].(map[string]any); ok {
		want["tools"] = slices.DeleteFunc(tools, func(tool any) bool { return functionOf(tool) != functionOf(choice) })
		want["tool_choice"] = "required"
	}
	return want
}

func anys(v any) []any {
	all, _ := v.([]any)
	return all
}

// seedMeant computes a folded seed with big numbers.
func seedMeant(n json.Number) json.Number {
	r, ok := new(big.Rat).SetString(string(n))
	if !ok {
		return n
	}
	x := new(big.Int).Mod(r.Num(), new(big.Int).Lsh(big.NewInt(1), 64))
	high, low := new(big.Int).Rsh(x, 32), new(big.Int).And(x, big.NewInt(1<<32-1))
	if high.Sign() != 0 {
		if low.Xor(low, high); low.Int64() == 1<<32-1 {
			low.SetInt64(1<<32 - 2)
		}
	}
	return json.Number(low.String())
}

// functionOf returns the name of the function in a tool or a choice.
func functionOf(v any) any { return v.(map[string]any)["function"].(map[string]any)["name"] }

// droppedInside are the fields of inner objects that are dropped.
var droppedInside = []string{
	"include_obfuscation", "refusal", "annotations", "parsed", "parsed_arguments", "cache_control", "provider_specific_fields",
	"reasoning", "reasoning_details", "thinking_blocks", "extra_content", "reasoning_text", "reasoning_opaque", "cot_id", "cot_summary",
	"copilot_cache_control", "opts", "prefix", "partial", "citations",
}

// plain removes null members and dropped fields, but not inside schemas.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			switch {
			case member == nil || slices.Contains(droppedInside, name) && v["type"] != name:
				delete(v, name)
			case name != "schema" && name != "parameters":
				v[name] = plain(member)
			}
		}
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	}
	return v
}

// otherBound finds what Check adds to an integer with one bound.
func otherBound(p cmp.Path) bool {
	name, ok := p.Last().(cmp.MapIndex)
	if !ok {
		return false
	}
	before, after := name.Values()
	return !before.IsValid() && strings.HasSuffix(fmt.Sprint(after), "999999999999999")
}

// sameText reports whether two texts are equal, or one is a pattern and the other its form for the runtime.
func sameText(a, b string) bool {
	if a == b {
		return true
	}
	p, err := parsePattern([]byte(a))
	return err == nil && string(p.text) == b
}

// sameNumber compares exactly those numbers that are written as whole numbers.
func sameNumber(a, b json.Number) bool {
	x, whole := new(big.Int).SetString(string(a), 10)
	y, both := new(big.Int).SetString(string(b), 10)
	if whole && both {
		return x.Cmp(y) == 0
	}
	f, errF := a.Float64()
	g, errG := b.Float64()
	return errF == nil && errG == nil && f == g
}

func BenchmarkSmallChat(b *testing.B) {
	in := []byte(`{"model":"gemma","messages":[{"role":"system","content":"You are helpful."},{"role":"user","content":"Say hello to the world, please."}],"max_tokens":16,"temperature":0.7}`)
	b.ReportAllocs()
	var out []byte
	for b.Loop() {
		var err *Error
		if out, _, err = Check(Chat, in, serving, out[:0]); err != nil {
			b.Fatal(err)
		}
	}
}

// L6a: the pool of readers does not keep a large body alive.
func TestLargeBodyIsLetGo(t *testing.T) {
	last := func() weak.Pointer[byte] {
		raw := []byte(`{"prompt":"` + strings.Repeat("x", keptBytes) + `"}`)
		if _, _, err := Check(Completions, raw, Serving{Model: messages.Model{Name: "m", Context: 4096}, Slots: 4}, nil); err != nil {
			t.Fatal(err)
		}
		return weak.Make(&raw[0])
	}()
	runtime.GC()
	if last.Value() != nil {
		t.Error("got a body that is still referred to, want it collected")
	}
}
