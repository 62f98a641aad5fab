package openai

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// L13: a conversation that a strict chat template refuses gets the form that every template accepts: one system message, and
// then user and assistant in turn. No text is lost.
func TestFold(t *testing.T) {
	const end = `"model":"gemma","max_tokens":4096}`
	for name, c := range map[string]struct {
		route    Route
		in, want string // without the end; want is empty if nothing is to be folded
	}{
		"nothing to do":       {Chat, messagesOf(`{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}`), ``},
		"vllm#6862":           {Chat, messagesOf(`{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"user","content":"b"}`), `{"messages":[{"role":"system","content":[{"type":"text","text":"s"}]},{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}],`},
		"conversations#197":   {Chat, messagesOf(`{"role":"system","content":"s"},{"role":"developer","content":[{"type":"text","text":"t"}]},{"role":"user","content":"a"}`), `{"messages":[{"role":"system","content":[{"type":"text","text":"s"},{"type":"text","text":"t"}]},{"role":"user","content":[{"type":"text","text":"a"}]}],`},
		"a late system":       {Chat, messagesOf(`{"role":"user","content":"a"},{"role":"system","content":"s"}`), `{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"s"}]}],`},
		"speakers":            {Chat, messagesOf(`{"role":"user","name":"ann","content":"a"},{"role":"user","name":"bob","content":"b"}`), `{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}],`},
		"calls":               {Chat, messagesOf(`{"role":"user","content":"a"},{"role":"assistant","content":"x"},{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"r"},{"role":"tool","tool_call_id":"d","content":"s"}`), `{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]},{"role":"assistant","content":[{"type":"text","text":"x"}],"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"r"},{"role":"tool","tool_call_id":"d","content":"s"}],`},
		"an empty assistant":  {Messages, messagesOf(`{"role":"user","content":"a"},{"role":"assistant","content":""},{"role":"assistant","content":"b"}`), `{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]},{"role":"assistant","content":[{"type":"text","text":"b"}]}],`},
		"Claude Code 2.1.300": {Messages, `{"messages":[{"role":"user","content":[{"type":"text","text":"r"}]},{"role":"system","content":"e"},{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"hi"}]},{"role":"system","content":[{"type":"text","text":"n"}]}],"system":[{"type":"text","text":"s"}]}`, `"system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":[{"type":"text","text":"r"},{"type":"text","text":"e"}]},{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"hi"},{"type":"text","text":"n"}]}],`},
		"a system first":      {Messages, `{"system":"s","messages":[{"role":"system","content":"e"},{"role":"user","content":"a"}]}`, `"system":[{"type":"text","text":"s"},{"type":"text","text":"e"}],"messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],`},
		"codex 0.160.0":       {Responses, `{"instructions":"i","input":[{"type":"message","role":"developer","content":[{"type":"input_text","text":"d"}]},{"role":"user","content":"u"},{"role":"user","content":[{"type":"input_text","text":"v"}]},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"r"}]}`, `"instructions":"i\n\nd","input":[{"role":"user","content":[{"type":"input_text","text":"u"},{"type":"input_text","text":"v"}],"type":"message"},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"r"}],`},
		"a text as input":     {Responses, `{"input":"x"}`, ``},
		"completions":         {Completions, `{"prompt":"x"}`, ``},
	} {
		checkedBody, _, refused := checked(c.route, serving, c.in)
		if refused != "" {
			t.Fatalf("%s: got a refusal, want none: %s", name, refused)
		}
		folded, changed := Fold(c.route, []byte(checkedBody))
		bound := end
		if c.route == Responses {
			bound = strings.Replace(end, "max_tokens", "max_output_tokens", 1)
		}
		want := checkedBody
		if c.want != "" {
			want = "{" + strings.TrimPrefix(c.want, "{") + bound
		}
		if diff := cmp.Diff(want, string(folded)); diff != "" || changed != (c.want != "") {
			t.Errorf("%s: changed %v, got a difference (-want +got): %s", name, changed, diff)
		}
		if twice, again := Fold(c.route, folded); again && c.route == Chat {
			t.Errorf("%s: got %s after folding twice, want no change", name, twice)
		}
		if limited, ok := LimitAnswer(c.route, folded, 7); !ok || !json.Valid(limited) || !strings.HasSuffix(string(limited), `:7}`) {
			t.Errorf("%s: got the bound %s, want it lowered to 7", name, limited)
		}
	}
}

// FuzzFold: what is folded is JSON, keeps every text, and has no two neighbors with one role.
func FuzzFold(f *testing.F) {
	for _, r := range [][]report{chatReports, responsesReports, messagesReports} {
		for _, c := range r {
			f.Add(uint8(c.route), []byte(c.in))
			f.Add(uint8(Messages), []byte(c.in))
			f.Add(uint8(Responses), []byte(c.in))
		}
	}
	f.Fuzz(func(t *testing.T, to uint8, in []byte) {
		route := []Route{Chat, Messages, CountTokens, Responses}[to%4]
		body, _, err := Check(route, in, serving, nil)
		if err != nil {
			return
		}
		folded, changed := Fold(route, body)
		if !changed {
			return
		}
		var before, after struct {
			Messages, Input []struct{ Role, Type string }
		}
		if json.Unmarshal(body, &before) != nil || json.Unmarshal(folded, &after) != nil {
			t.Fatalf("%s: got %s, want JSON", in, folded)
		}
		for i, m := range append(after.Messages, after.Input...) {
			if (m.Role == "system" || m.Role == "developer") && i > 0 {
				t.Errorf("%s: got a system message at %d in %s, want it first", in, i, folded)
			}
		}
		if lost := len(texts(body)) - len(texts(folded)); lost > 0 && route != Responses {
			t.Errorf("%s: got %q, want all of %q", in, texts(folded), texts(body))
		}
	})
}

// texts are the texts of a body in their order.
func texts(body []byte) (all []string) {
	var v any
	if json.Unmarshal(body, &v) != nil {
		return nil
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if text, ok := v["text"].(string); ok && text != "" {
				all = append(all, text)
			}
			if text, ok := v["content"].(string); ok && text != "" {
				all = append(all, text)
			}
			for _, inside := range v {
				walk(inside)
			}
		case []any:
			for _, inside := range v {
				walk(inside)
			}
		}
	}
	walk(v)
	return all
}

// L6b: folding allocates what FoldMemory says, at most.
func TestFoldMemory(t *testing.T) {
	for name, in := range map[string]string{
		"a long text":    messagesOf(`{"role":"user","content":"` + strings.Repeat("x", 1<<20) + `"},{"role":"user","content":"y"}`),
		"many messages":  messagesOf(strings.TrimSuffix(strings.Repeat(`{"role":"user","content":"x"},`, 4000), ",")),
		"many in turn":   messagesOf(strings.TrimSuffix(strings.Repeat(`{"role":"user","content":"x"},{"role":"assistant","content":""},`, 2000), ",") + `,{"role":"system","content":"s"}`),
		"many speakers":  messagesOf(strings.TrimSuffix(strings.Repeat(`{"role":"user","name":"n","content":"x"},`, 4000), ",")),
		"many parts":     messagesOf(`{"role":"system","content":"s"},{"role":"system","content":[` + strings.TrimSuffix(strings.Repeat(`{"type":"text","text":"x"},`, 4000), ",") + `]},{"role":"user","content":"y"}`),
		"escaped quotes": messagesOf(`{"role":"system","content":"` + strings.Repeat(`\"`, 1<<19) + `"},{"role":"system","content":"s"},{"role":"user","content":"y"}`),
	} {
		body, _, refused := checked(Chat, serving, in)
		if refused != "" {
			t.Fatalf("%s: got a refusal, want none: %s", name, refused)
		}
		raw := []byte(body)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, changed := Fold(Chat, raw)
		runtime.ReadMemStats(&after)
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(FoldMemory(raw)); got > most || !changed {
			t.Errorf("%s: allocated %d bytes for %d, changed %v; want at most %d and true", name, got, len(body), changed, most)
		}
	}
}
