package openai

import (
	"fmt"
	"strings"
	"testing"
)

// toolCallOf is a call of a chat message.
func toolCallOf(id string) string {
	return `{"id":"` + id + `","type":"function","function":{"name":"f","arguments":"{}"}}`
}

// L6b, T16: what costs the runtime more than its bytes before it counts tokens is bounded whatever the context holds, with
// both numbers in the error: the number of messages, parts and tool calls, and earlier reasoning.
func TestFitWithoutContext(t *testing.T) {
	large := serving
	large.Model.Context = 1 << 20
	turns := func(n int) string { return repeated(`{"messages":[`, n, `{"role":"user","content":"x"}`, `]}`) }
	calls := func(n int) string {
		full := `{"role":"assistant","tool_calls":` + repeated("[", maxTools, toolCallOf("a"), "]") + `}`
		rest := n - 3 - n/(maxTools+1)*(maxTools+1)
		return repeated(`{"messages":[`, n/(maxTools+1), full, `,{"role":"user","content":`) + repeated("[", rest+2, `{"type":"text","text":"x"}`, "]") + `}]}`
	}
	reasoning := func(n int) string {
		half := strings.Repeat("x", n/2)
		return `{"messages":[{"role":"assistant","content":"x","reasoning_content":"` + half + `"},` +
			`{"role":"assistant","content":"x","reasoning_content":"` + strings.Repeat("x", n-len(half)) + `"}]}`
	}
	for name, c := range map[string]struct {
		route Route
		body  func(n int) string
		most  int
		what  string
	}{
		"messages":        {Chat, turns, maxPieces, "messages, parts and tool calls"},
		"calls and parts": {Chat, calls, maxPieces, "messages, parts and tool calls"},
		"turns":           {Messages, turns, maxPieces, "messages, parts and tool calls"},
		"items": {Responses, func(n int) string {
			return repeated(`{"input":[`, n, `{"role":"user","content":"x"}`, `]}`)
		}, maxPieces, "messages, parts and tool calls"},
		"reasoning": {Chat, reasoning, maxReasoning, "bytes of earlier reasoning"},
		"thinking": {Messages, func(n int) string {
			return `{"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"` + strings.Repeat("x", n) + `"}]}]}`
		}, maxReasoning, "bytes of earlier reasoning"},
	} {
		if _, _, err := Check(c.route, []byte(c.body(c.most)), large, nil); err != nil {
			t.Errorf("%s: got %v for %d, want it to pass", name, err, c.most)
		}
		_, _, err := Check(c.route, []byte(c.body(c.most+1)), large, nil)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprint("has ", c.most+1, " ", c.what)) || !strings.Contains(err.Error(), fmt.Sprint("at most ", c.most)) {
			t.Errorf("%s: got %v for %d, want a refusal with both numbers", name, err, c.most+1)
		}
	}
}

// L9, T16: a prompt that cannot fit the context is refused before the runtime reads it, with both numbers; one that
// could fit passes.
func TestFit(t *testing.T) {
	small := serving
	small.Model.Context = 100
	x := func(n int) string { return strings.Repeat("x", n) }
	most := 100*tokenBytes + tokenBytes - 1
	messages := func(n int, form string) string { return repeated(`{"messages":[`, n, form, `]}`) }
	for name, c := range map[string]struct {
		route Route
		body  func(n int) string
		most  int
	}{
		"chat, messages": {Chat, func(n int) string { return messages(n, `{"role":"user","content":"x"}`) }, 100},
		"chat, parts": {Chat, func(n int) string {
			return `{"messages":[{"role":"user","content":` + repeated("[", n-1, `{"type":"text","text":""}`, "]") + `}]}`
		}, 100},
		"chat, one text": {Chat, func(n int) string { return messages(1, `{"role":"user","content":"`+x(n)+`"}`) }, most},
		"chat, two parts": {Chat, func(n int) string {
			return messages(1, `{"role":"user","content":[{"type":"text","text":"x"},{"type":"text","text":"`+x(n-1)+`"}]}`)
		}, most},
		"chat, arguments": {Chat, func(n int) string { return callsWith(`{"a":"` + x(n-8) + `"}`)[Chat] }, most},
		"chat, tool calls": {Chat, func(n int) string {
			return `{"messages":[{"role":"assistant","tool_calls":` + repeated("[", n-1, toolCallOf("a"), "]") + `}]}`
		}, 100},
		"chat, description": {Chat, func(n int) string {
			return `{` + hi + `,"tools":[{"type":"function","function":{"name":"f","description":"` + x(n-2) + `"}}]}`
		}, most},
		"responses, items": {Responses, func(n int) string {
			return repeated(`{"input":[`, n, `{"type":"function_call_output","call_id":"c","output":""}`, `]}`)
		}, 100},
		"responses, input": {Responses, func(n int) string { return `{"instructions":"x","input":"` + x(n-1) + `"}` }, most},
		"responses, parts": {Responses, func(n int) string {
			return `{"input":[{"role":"user","content":[{"type":"input_text","text":"` + x(n) + `"}]}]}`
		}, most},
		"responses, call": {Responses, func(n int) string { return callsWith(x(n))[Responses] }, most},
		"messages, turns": {Messages, func(n int) string { return messages(n, `{"role":"user","content":"x"}`) }, 100},
		"messages, blocks": {Messages, func(n int) string {
			return `{"messages":[{"role":"user","content":` + repeated("[", n-1, `{"type":"text","text":""}`, "]") + `}]}`
		}, 100},
		"messages, system": {Messages, func(n int) string { return `{"system":"` + x(n-2) + `",` + hi + `}` }, most},
		"messages, tool_use": {CountTokens, func(n int) string {
			return messages(1, `{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":{"a":"`+x(n-8)+`"}}]}`)
		}, most},
		"completions, prompt": {Completions, func(n int) string { return `{"prompt":"` + x(n) + `"}` }, most},
		"completions, second": {Completions, func(n int) string { return `{"prompt":["` + x(most) + `","` + x(n) + `"]}` }, most},
		"embeddings, input":   {Embeddings, func(n int) string { return `{"input":["a","` + x(n) + `","b"]}` }, most},
	} {
		if _, _, err := Check(c.route, []byte(c.body(c.most)), small, nil); err != nil {
			t.Errorf("%s: got %v for %d, want it to pass", name, err, c.most)
		}
		_, _, err := Check(c.route, []byte(c.body(c.most+1)), small, nil)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprint("has ", c.most+1)) || !strings.Contains(err.Error(), "holds 100 tokens") {
			t.Errorf("%s: got %v for %d, want a refusal with both numbers", name, err, c.most+1)
		}
	}
	for name, body := range map[string]string{
		"a picture":         `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,` + x(4*most) + `"}}]}]}`,
		"earlier reasoning": `{"messages":[{"role":"assistant","content":"x","reasoning_content":"` + x(2*most) + `"}]}`,
		"metadata":          `{` + hi + `,"metadata":{"a":"` + x(2*most) + `"}}`,
	} {
		if _, _, err := Check(Chat, []byte(body), small, nil); err != nil {
			t.Errorf("%s: got %v, want it to pass: it takes no tokens for its bytes", name, err)
		}
	}
}
