package e2e

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"companion/e2e/harness"
)

// toolTemplate is a chat template that shows tools and calls, in the form that many models use.
const toolTemplate = `{%- if tools %}<|im_start|>system
You may call these functions:
<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools>
For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{%- if message.content %}
{{ message.content }}
{%- endif %}
{%- if message.tool_calls %}
{%- for tool_call in message.tool_calls %}
<tool_call>
{"name": "{{ tool_call.function.name }}", "arguments": {{ tool_call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}
{%- endif %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}`

// withTemplate copies a GGUF file and adds a chat template. The new key comes before the others and has a
// length that is a multiple of the alignment, so that everything after it stays aligned.
func withTemplate(t *testing.T, model, template string) string {
	t.Helper()
	const key, isString, alignment, headLength = "tokenizer.chat_template", 8, 32, 24
	in, err := os.Open(model)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	head := make([]byte, headLength)
	if _, err := io.ReadFull(in, head); err != nil || string(head[:4]) != "GGUF" {
		t.Fatalf("the model begins with %q, want GGUF: %v", head, err)
	}
	le := binary.LittleEndian
	le.PutUint64(head[16:], le.Uint64(head[16:])+1) // the number of keys
	for (8+len(key)+4+8+len(template))%alignment != 0 {
		template += " "
	}
	head = append(le.AppendUint64(head, uint64(len(key))), key...)
	head = le.AppendUint32(head, isString)
	head = append(le.AppendUint64(head, uint64(len(template))), template...)
	path := filepath.Join(harness.TempDir(t), "tools.gguf")
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, io.MultiReader(strings.NewReader(string(head)), in)); err != nil {
		t.Fatal(err)
	}
	return path
}

// L6a: tools work with the real runtime: the model sees them, and a required call comes back with the
// function and with arguments that its schema allows. The model of the other tests has no template for tools;
// this is the same model with such a template.
func TestTools(t *testing.T) {
	t.Parallel()
	parts := harness.Parts(t)
	hub := harness.NewHub(t)
	hub.Publish("model", harness.ModelName, withTemplate(t, parts.Model.File, toolTemplate), "--version", "1", "--default")
	hub.Publish("runtime", harness.RuntimeName, parts.Runtime.File, "--version", parts.Runtime.Version, "--default")
	c := hub.Companion("")
	c.Start()
	c.SignIn()
	c.Available()
	door := c.Door()
	const (
		question = `{"messages":[{"role":"user","content":"What is the weather in Lisbon?"}],"max_tokens":80,"temperature":0`
		weather  = `{"type":"function","function":{"name":"weather","description":"The weather of a town.","parameters":{"type":"object",
			"properties":{"town":{"type":"string","enum":["Lisbon","Porto"]}},"required":["town"],"additionalProperties":false}}}`
		clock = `{"type":"function","function":{"name":"clock","description":"The time.","parameters":{"type":"object","properties":{}}}}`
	)
	plain := ask(t, door, chatPath, question+"}")
	offered := ask(t, door, chatPath, question+`,"tools":[`+clock+","+weather+`],"tool_choice":"auto"}`)
	if offered.Usage.PromptTokens < plain.Usage.PromptTokens+50 {
		t.Errorf("got %d prompt tokens with tools, %d without, want at least 50 more", offered.Usage.PromptTokens, plain.Usage.PromptTokens)
	}
	for name, field := range map[string]string{
		"required": `,"tools":[` + weather + `],"tool_choice":"required"}`,
		"named":    `,"tools":[` + clock + "," + weather + `],"tool_choice":{"type":"function","function":{"name":"weather"}}}`,
	} {
		calls := ask(t, door, chatPath, question+field).Choices[0].Message.ToolCalls
		if len(calls) == 0 {
			t.Errorf("%s: no call came back", name)
			continue
		}
		// A model this small continues to call, and the token bound can cut the last call off.
		first := calls[0].Function
		var arguments struct{ Town string }
		err := json.Unmarshal([]byte(first.Arguments), &arguments)
		if err != nil || first.Name != "weather" || !slices.Contains([]string{"Lisbon", "Porto"}, arguments.Town) {
			t.Errorf("%s: got call %+v, want weather in Lisbon or Porto", name, first)
		}
	}
	c.Stop()
}
