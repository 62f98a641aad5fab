package harness

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ToolTemplate is a chat template that shows tools and calls, in the form that many models use.
const ToolTemplate = `{%- if tools %}<|im_start|>system
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

// WithTemplate copies a GGUF file and adds a chat template. The new key comes before the others and has a
// length that is a multiple of the alignment, so that everything after it stays aligned.
func WithTemplate(t testing.TB, model, template string) string {
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
	path := filepath.Join(TempDir(t), "tools.gguf")
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
