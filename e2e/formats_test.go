package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"companion/e2e/harness"
)

// checkMessages: the Anthropic form with the real runtime.
func checkMessages(t *testing.T, door *harness.Door) {
	const question = `{"max_tokens":4,"temperature":0,"system":"Be brief.","messages":[{"role":"user","content":[{"type":"text","text":"Hello.","cache_control":{"type":"ephemeral"}}]}]`
	var answer struct {
		Type    string
		Content []struct{ Type, Text string }
		Usage   struct {
			Output int `json:"output_tokens"`
		}
		Input int `json:"input_tokens"`
	}
	decode := func(path, body string) {
		t.Helper()
		reply := door.Do(t.Context(), http.MethodPost, path, body)
		if err := json.Unmarshal([]byte(reply.Body), &answer); err != nil || reply.Status != http.StatusOK {
			t.Fatalf("%s: got %d %q, %v, want 200", path, reply.Status, reply.Body, reply.Err)
		}
	}
	decode("/messages?beta=true", question+"}")
	if answer.Type != "message" || len(answer.Content) != 1 || answer.Content[0].Text == "" || answer.Usage.Output == 0 {
		t.Errorf("got %+v, want a message with one text and its usage", answer)
	}
	decode("/messages/count_tokens", question+"}")
	if answer.Input < 5 {
		t.Errorf("counted %d tokens, want at least 5", answer.Input)
	}
	reply := door.Do(t.Context(), http.MethodPost, "/messages", question+`,"stream":true}`)
	if !strings.HasPrefix(reply.Body, "event: message_start\n") || !strings.HasSuffix(reply.Body, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n") {
		t.Errorf("got stream %q, want it from message_start to message_stop", reply.Body)
	}
	reply = door.Do(t.Context(), http.MethodPost, "/messages", question+`,"id_slot":0}`)
	if reply.Status != http.StatusBadRequest || !strings.HasPrefix(reply.Body, `{"type":"error","error":{"type":"invalid_request_error",`) {
		t.Errorf("a slot: got %d %s, want 400 invalid_request_error", reply.Status, reply.Body)
	}
}

// checkResponses: the Responses form with the real runtime. Its schema is enforced, though the runtime does not read
// text.format itself.
func checkResponses(t *testing.T, door *harness.Door) {
	const question = `{"max_output_tokens":40,"temperature":0,"store":true,"instructions":"Be brief.","input":[{"role":"user","content":"Hello."},
		{"role":"assistant","content":"Hi."},{"type":"reasoning","summary":[]},{"type":"message","role":"assistant","content":[{"type":"output_text","text":"Well?","annotations":[]}]},{"role":"user","content":[{"type":"input_text","text":"Go on."}]}]`
	const format = `,"text":{"format":{"type":"json_schema","name":"n","schema":{"type":"string","enum":["quince"]}}}`
	type response struct {
		Status string
		Output []struct {
			Content []struct{ Text string }
		}
	}
	check := func(what string, r response) {
		t.Helper()
		var told string
		if len(r.Output) != 1 || len(r.Output[0].Content) != 1 || json.Unmarshal([]byte(r.Output[0].Content[0].Text), &told) != nil || told != "quince" {
			t.Errorf("%s: answered %+v, want the text of the schema", what, r)
		}
	}
	var whole response
	reply := door.Do(t.Context(), http.MethodPost, "/responses", question+format+"}")
	if err := json.Unmarshal([]byte(reply.Body), &whole); err != nil || reply.Status != http.StatusOK {
		t.Fatalf("got %d %q, %v, want 200", reply.Status, reply.Body, reply.Err)
	}
	check("whole", whole)
	reply = door.Do(t.Context(), http.MethodPost, "/responses", question+format+`,"stream":true}`)
	var last struct {
		Type     string
		Sequence int `json:"sequence_number"`
		Response response
	}
	events := strings.Split(strings.TrimSuffix(reply.Body, "\n\n"), "\n\n")
	for i, event := range events {
		_, data, _ := strings.Cut(event, "\ndata: ")
		if err := json.Unmarshal([]byte(data), &last); err != nil || last.Sequence != i {
			t.Fatalf("got event %q, %v, want sequence number %d", event, err, i)
		}
	}
	if last.Type != "response.completed" {
		t.Errorf("got last event %q, want response.completed", last.Type)
	}
	check("stream", last.Response)
}

// checkWhatClientsSend: what well-known clients send is answered by the real runtime (L12).
func checkWhatClientsSend(t *testing.T, door *harness.Door) {
	const hello = `{"messages":[{"role":"user","content":"Hello."}],"ignore_eos":false`
	for _, more := range []string{
		`"max_tokens":2,"seed":-1,"top_k":-1,"repeat_last_n":-1,"dry_penalty_last_n":-1,"stop":"","cache_prompt":true,"timings_per_token":true`,
		`"max_tokens":2,"seed":81985529216486895,"stop":["","` + strings.Repeat(`x","`, 30) + `y"],"chat_template_kwargs":{"enable_thinking":false},"extra_body":{}`,
		`"n_predict":2,"prompt_cache_retention":"24h","parallel_tool_calls":true`,
		`"max_tokens":99999,"max_completion_tokens":99999,"stop":["e","a","i","o"," "]`,
	} {
		ask(t, door, chatPath, hello+","+more+"}")
	}
	ask(t, door, chatPath, `{"max_tokens":2,"messages":[{"role":"user","content":"a"},{"role":"assistant","reasoning_content":"r"},{"role":"user","content":"b"},
		{"role":"assistant","content":null,"tool_calls":[],"parsed":null},{"role":"user","content":"c"}]}`)
	// Requests of public reports; adapters/door/openai has the whole table.
	for path, bodies := range map[string][]string{
		chatPath: {
			`{"max_tokens":2,"messages":[{"role":"system","content":"s","id":7,"opts":{"visible":false}},{"role":"user","content":"u","name":"Zoë.7"}]}`,
			`{"max_tokens":2,"messages":[{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"thinking","thinking":"hm"}]},{"role":"user","content":[{"type":"input_text","text":"y"}]}]}`,
			`{"max_tokens":2,"messages":[{"role":"user","content":"x"}],"reasoning_effort":"none","repetition_penalty":1.1,"thinking_budget":0,"num_ctx":4096,"top_a":0}`,
			`{"max_tokens":2,"messages":[{"role":"user","content":"x"}],"thinking":{"type":"disabled"},"tools":[],"tool_choice":"none","reasoning_format":"auto","return_progress":true,"stop":[]}`,
		},
		"/messages": {
			`{"max_tokens":2,"system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":"x"},{"role":"system","content":[{"type":"tool_addition","tool":{"type":"tool_reference","name":"Bash"}}]}]}`,
			`{"max_tokens":2,"messages":[{"role":"assistant","content":[{"type":"compaction","content":"so far"}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"tool_reference","tool_name":"T"}]},{"type":"text","text":"x"}]}]}`,
			`{"max_tokens":2,"messages":[{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"redacted_thinking","data":"x"}]},{"role":"user","content":"y"}],"betas":["b"]}`,
		},
		"/responses": {
			`{"max_output_tokens":2,"instructions":"i","input":[{"type":"message","id":"m","role":"developer","content":[{"type":"input_text","text":"d"}]},{"role":"user","content":"u"},{"role":"user","content":"v"},{"type":"web_search_call","id":"w","status":"completed"}],"reasoning":{"effort":"none"},"client_metadata":{"a":"b"}}`,
			`{"max_output_tokens":1,"input":"x","tools":[{"type":"namespace","name":"n","tools":[]},{"type":"web_search"}],"tool_choice":"auto"}`,
		},
	} {
		for _, body := range bodies {
			if reply := door.Do(t.Context(), http.MethodPost, path, body); reply.Status != http.StatusOK {
				t.Errorf("%s %s: answered %d %s, want 200", path, body, reply.Status, reply.Body)
			}
		}
	}
	long := strings.Repeat("word ", 6000)
	for path, body := range map[string]string{
		chatPath: `{"messages":[{"role":"user","content":"` + long + `"}]}`, completionPath: `{"prompt":"` + long + `"}`,
		"/messages": `{"messages":[{"role":"user","content":"` + long + `"}]}`, "/responses": `{"input":"` + long + `"}`,
	} {
		reply := door.Do(t.Context(), http.MethodPost, path, body)
		if reply.Status != http.StatusBadRequest || !strings.Contains(reply.Body, "and the context holds 4096.") || !strings.Contains(reply.Body, "The prompt has 6") {
			t.Errorf("%s, a long prompt: answered %d %s, want both numbers", path, reply.Status, reply.Body)
		}
	}
}

// strictTemplate is a chat template that fails as those of Gemma, Mistral and Qwen do.
const strictTemplate = `{%- for m in messages -%}
{%- if m.role == 'system' and loop.index0 > 0 -%}{{ raise_exception('System message must be at the beginning.') }}{%- endif -%}
{%- if loop.index0 > 0 and messages[loop.index0 - 1].role == m.role and m.role != 'tool' -%}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif -%}
{%- if m.role not in ['system', 'user', 'assistant'] -%}{{ raise_exception('Unexpected message role.') }}{%- endif -%}
<|im_start|>{{ m.role }}
{% if m.content is string %}{{ m.content }}{% elif m.content %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}`

// L13: the conversations of Claude Code and codex are answered by a model with a strict chat template. What no form of the
// conversation can mend is refused with the reason.
func TestStrictTemplate(t *testing.T) {
	parts, hub := harness.Parts(t), harness.NewHub(t)
	hub.Publish("model", harness.ModelName, harness.WithTemplate(t, parts.Model.File, strictTemplate), "--version", "1", "--default")
	hub.Publish("runtime", harness.RuntimeName, parts.Runtime.File, "--version", parts.Runtime.Version, "--default")
	c := hub.Companion("")
	c.Start()
	c.SignIn()
	c.Available()
	door := c.Door()
	for path, bodies := range map[string][]string{
		chatPath: {
			`{"max_tokens":2,"messages":[{"role":"system","content":"a"},{"role":"developer","content":"b"},{"role":"user","content":"c"},{"role":"user","content":"d"}]}`,
			`{"max_tokens":2,"stream":true,"messages":[{"role":"user","content":"a"},{"role":"system","content":"b"}]}`,
		},
		"/messages": {
			`{"max_tokens":2,"stream":true,"system":"s","messages":[{"role":"user","content":[{"type":"text","text":"a"}]},{"role":"system","content":"b"},{"role":"assistant","content":"c"},{"role":"user","content":"d"},{"role":"system","content":[{"type":"text","text":"e"}]}]}`,
		},
		"/messages/count_tokens": {`{"messages":[{"role":"user","content":"a"},{"role":"system","content":"b"}]}`},
		"/responses": {
			`{"max_output_tokens":2,"instructions":"i","input":[{"role":"developer","content":"a"},{"role":"user","content":"b"},{"role":"user","content":"c"}]}`,
		},
	} {
		for _, body := range bodies {
			if reply := door.Do(t.Context(), http.MethodPost, path, body); reply.Status != http.StatusOK {
				t.Errorf("%s %s: answered %d %s, want 200", path, body, reply.Status, reply.Body)
			}
		}
	}
	reply := door.Do(t.Context(), http.MethodPost, chatPath, `{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"d"}]}`)
	if reply.Status != http.StatusBadRequest || !strings.Contains(reply.Body, "chat template does not accept this conversation") {
		t.Errorf("the result of a tool: answered %d %s, want 400 that says why", reply.Status, reply.Body)
	}
}
