package frontdoor

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// cutAnswer is an answer of the runtime in the Responses form, which it calls complete whatever ended it.
func cutAnswer(text string, prompt, answer int) string {
	return fmt.Sprintf(`{"id":"r","output":[{"content":[{"type":"output_text","text":%q}],"id":"m","status":"completed","type":"message"}],"status":"completed","usage":{"input_tokens":%d,"output_tokens":%d}}`, text, prompt, answer)
}

// L13: an answer in the Responses form that the client's bound or the context cut off says so, whole and as a stream.
func TestCutOffResponses(t *testing.T) {
	const quoted = `"status":"completed"` // in a text of the model
	for name, c := range map[string]struct {
		more           string // of the request
		prompt, answer int
		deltas         int
		long, cut      bool
	}{
		"ended":                    {`,"max_output_tokens":5`, 10, 4, 4, false, false},
		"at the bound":             {`,"max_output_tokens":5`, 10, 5, 5, false, true},
		"at the context":           {``, 4000, 95, 2, false, true},
		"below the context":        {``, 4000, 90, 2, false, false},
		"a long one, at the bound": {`,"max_output_tokens":5`, 10, 5, 5, true, true},
		"a long one, ended":        {`,"max_output_tokens":9`, 10, 5, 5, true, false},
	} {
		text := quoted
		if c.long {
			text += strings.Repeat("x", 100<<10)
		}
		whole := cutAnswer(text, c.prompt, c.answer)
		want := map[bool]string{false: `"completed"null`, true: `"incomplete"{"reason":"max_output_tokens"}`}[c.cut]
		check := func(how, answer string) {
			t.Helper()
			var got struct {
				Status  json.RawMessage
				Details json.RawMessage `json:"incomplete_details"`
				Output  []struct {
					Status  string
					Content []struct{ Text string }
				}
			}
			if err := json.Unmarshal([]byte(answer), &got); err != nil {
				t.Fatalf("%s, %s: %v: %s", name, how, err, short(answer))
			}
			if string(got.Status)+string(got.Details) != want || got.Output[0].Content[0].Text != text || `"`+got.Output[0].Status+`"` != string(got.Status) {
				t.Errorf("%s, %s: got %s, want %s and the same text", name, how, short(answer), want)
			}
		}
		r := start(t, answersWith(whole), nil)
		check("whole", r.one(r.request("POST", routeResponses, `{"input":"hi"`+c.more+`}`)).body)
		r.stop()

		delta := "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"item_id\":\"m\",\"delta\":\"x\"}\n\n"
		stream := strings.Repeat(delta, c.deltas) + "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":" + whole + "}\n\n"
		r = start(t, streamWith(stream), nil)
		body := r.one(r.request("POST", routeResponses, `{"stream":true,"input":"hi"`+c.more+`}`)).body
		last := body[strings.LastIndex(body, "event: "):]
		kind := "response.completed"
		if c.cut {
			kind = "response.incomplete"
		}
		_, data, _ := strings.Cut(last, "\ndata: ")
		var event struct {
			Type     string
			Response json.RawMessage
		}
		if err := json.Unmarshal([]byte(data), &event); err != nil || event.Type != kind || !strings.HasPrefix(last, "event: "+kind+"\n") {
			t.Fatalf("%s: got the last event %s, %v, want %s", name, short(last), err, kind)
		}
		check("a stream", string(event.Response))
		r.stop()
	}
}

// L13: a part of a text that begins has the members that the library of OpenAI declares.
func TestPartsThatBegin(t *testing.T) {
	for part, want := range map[string]string{
		`{"type":"output_text","text":""}`:                  `{"type":"output_text","annotations":[],"logprobs":[],"text":""}`,
		`{"type":"output_text","annotations":[],"text":""}`: `{"type":"output_text","annotations":[],"text":""}`,
		`{"type":"refusal","refusal":""}`:                   `{"type":"refusal","refusal":""}`,
	} {
		r := newResponseEvents("m", bounds{})
		got := string(r.Event(nil, []byte("event: response.content_part.added\ndata: {\"item_id\":\"m\",\"part\":"+part+"}\n\n")))
		if want := "event: response.content_part.added\ndata: {\"sequence_number\":0,\"output_index\":0,\"content_index\":0,\"item_id\":\"m\",\"part\":" + want + "}\n\n"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// L13: an answer in the Anthropic form that ends at a text of the client's says so.
func TestStoppedMessages(t *testing.T) {
	const text = `"content":[{"type":"text","text":"\"stop_reason\":\"end_turn\""}],`
	for end, want := range map[string]string{
		`"stop_reason":"end_turn","stop_sequence":"o"`:    `"stop_reason":"stop_sequence","stop_sequence":"o"`,
		`"stop_reason":"end_turn","stop_sequence":null`:   `"stop_reason":"end_turn","stop_sequence":null`,
		`"stop_reason":"max_tokens","stop_sequence":null`: `"stop_reason":"max_tokens","stop_sequence":null`,
	} {
		r := start(t, answersWith(`{"type":"message",`+text+end+`}`), nil)
		if a := r.one(r.request("POST", routeMessages, chatBody)); a.body != `{"type":"message",`+text+want+`}` {
			t.Errorf("got %s, want %s", a.body, want)
		}
		r.stop()
		delta := func(end string) string {
			return "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{" + end + "},\"usage\":{\"output_tokens\":4}}\n\n"
		}
		const stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
		r = start(t, streamWith(anthropicStart+delta(end)+stop), nil)
		if a := r.one(r.request("POST", routeMessages, `{"stream":true,`+chatBody[1:])); a.body != anthropicStart+delta(want)+stop {
			t.Errorf("a stream: got %s, want %s", a.body, want)
		}
		r.stop()
	}
}
