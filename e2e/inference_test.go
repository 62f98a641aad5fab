package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"companion/e2e/harness"
)

const (
	chatPath       = "/chat/completions"
	completionPath = "/completions"
)

// completion has the fields of an answer, or of an event of a stream, that the tests read.
type completion struct {
	Model   string
	Choices []struct {
		Index        int
		FinishReason string `json:"finish_reason"`
		Text         string
		Message      struct {
			Role, Content string
			ToolCalls     []struct {
				Function struct{ Name, Arguments string }
			} `json:"tool_calls"`
		}
		Logprobs struct {
			Content []struct {
				Logprob     float64
				TopLogprobs []struct{ Logprob float64 } `json:"top_logprobs"`
			}
		}
	}
	Usage *struct {
		PromptTokens     int `json:"prompt_tokens"`
		CompletionTokens int `json:"completion_tokens"`
	}
}

// ask sends a good request, which must succeed.
func ask(t *testing.T, door *harness.Door, path, body string) completion {
	t.Helper()
	reply := door.Do(t.Context(), http.MethodPost, path, body)
	var answer completion
	if err := json.Unmarshal([]byte(reply.Body), &answer); reply.Status != http.StatusOK || err != nil || len(answer.Choices) == 0 {
		t.Fatalf("%s: got %d %q, %v, want 200 with an answer", body, reply.Status, reply.Body, reply.Err)
	}
	return answer
}

// text sends a request and returns the text of the only choice.
func text(t *testing.T, door *harness.Door, path, body string) string {
	t.Helper()
	choice := ask(t, door, path, body).Choices[0]
	return choice.Text + choice.Message.Content
}

// L5, L6a, L8: the guarantees of the endpoint, with the real runtime.
func TestInference(t *testing.T) {
	c := harness.Ready(t, "")
	door := c.Door()
	for name, check := range map[string]func(*testing.T, *harness.Door){
		"chat":          checkChat,
		"completion":    checkCompletion,
		"stream":        checkStream,
		"include_usage": checkIncludeUsage,
		"seed":          checkSeed,
		"stop":          checkStop,
		"schema":        checkSchema,
		"tools":         checkTools,
		"n":             checkN,
		"logprobs":      checkLogprobs,
		"models":        checkModelsRoute,
		"refused":       checkRefused,
		"messages":      checkMessages,
		"responses":     checkResponses,
		"clients":       checkWhatClientsSend,
	} {
		t.Run(name, func(t *testing.T) { check(t, door) })
	}
	if status, _ := c.Status(); !status.CompanionAvailable || status.Runtime.Restarts != 0 {
		t.Errorf("afterwards: got available %v, %d restarts, want true, 0", status.CompanionAvailable, status.Runtime.Restarts)
	}
	c.Stop()
}

func checkChat(t *testing.T, door *harness.Door) {
	answer := ask(t, door, chatPath, harness.Question(8, ""))
	choice := answer.Choices[0]
	if answer.Model != harness.ModelName || choice.Message.Role != "assistant" || choice.Message.Content == "" ||
		choice.FinishReason != "length" || answer.Usage == nil || answer.Usage.CompletionTokens != 8 {
		t.Errorf("got %+v, want an answer of eight tokens that ends with length", answer)
	}
	parts := `{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":[{"type":"text","text":"Name a"},{"type":"text","text":" colour."}]}],"max_tokens":4,"ignore_eos":true}`
	if text(t, door, chatPath, parts) == "" {
		t.Error("content in parts: got an empty answer, want text")
	}
}

func checkCompletion(t *testing.T, door *harness.Door) {
	answer := ask(t, door, completionPath, `{"prompt":"The capital of France is","max_tokens":5,"ignore_eos":true}`)
	if answer.Model != harness.ModelName || answer.Choices[0].Text == "" || answer.Usage == nil || answer.Usage.CompletionTokens != 5 {
		t.Errorf("got %+v, want a completion of five tokens", answer)
	}
}

// event is one server-sent event and its time of arrival.
type event struct {
	data string
	at   time.Time
}

// events requests a stream and reads it to its end.
func events(t *testing.T, door *harness.Door, path, body string) []event {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, door.BaseURL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+door.Token)
	request.Header.Set("Content-Type", "application/json")
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if kind := response.Header.Get("Content-Type"); response.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "text/event-stream") {
		t.Fatalf("a stream: got %d, %s, want 200 as text/event-stream", response.StatusCode, kind)
	}
	var all []event
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if data, found := strings.CutPrefix(lines.Text(), "data: "); found {
			all = append(all, event{data, time.Now()})
		}
	}
	if err := lines.Err(); err != nil || len(all) < 3 || all[len(all)-1].data != "[DONE]" {
		t.Fatalf("got %d events that end with %v, %v, want at least 3 and [DONE]", len(all), all[max(0, len(all)-1):], err)
	}
	return all
}

// checkStream fails if the answer is buffered: the events of a stream are spread over most of the time of the answer.
func checkStream(t *testing.T, door *harness.Door) {
	for path, body := range map[string]string{
		chatPath:       harness.Question(48, `,"stream":true`),
		completionPath: `{"prompt":"Once upon a time","max_tokens":48,"ignore_eos":true,"stream":true}`,
	} {
		began := time.Now()
		all := events(t, door, path, body)
		total, spread := time.Since(began), all[len(all)-1].at.Sub(all[0].at)
		apart := map[time.Time]bool{}
		for _, e := range all {
			apart[e.at.Truncate(time.Millisecond)] = true
		}
		t.Logf("%s: %d events over %v of %v, in %d different milliseconds", path, len(all), spread, total, len(apart))
		if len(all) < 24 || spread < total/4 || len(apart) < len(all)/4 {
			t.Errorf("%s: got %d events over %v of %v, want at least 24, spread over a quarter of the time", path, len(all), spread, total)
		}
	}
}

func checkIncludeUsage(t *testing.T, door *harness.Door) {
	for options, want := range map[string]bool{"": false, `,"stream_options":{"include_usage":true}`: true} {
		all := events(t, door, chatPath, harness.Question(6, `,"stream":true`+options))
		var last completion
		if err := json.Unmarshal([]byte(all[len(all)-2].data), &last); err != nil {
			t.Fatal(err)
		}
		if got := last.Usage != nil && len(last.Choices) == 0; got != want || want && last.Usage.CompletionTokens != 6 {
			t.Errorf("with %q got last event %s, want usage %v", options, all[len(all)-2].data, want)
		}
	}
}

func checkSeed(t *testing.T, door *harness.Door) {
	question := func(seed int) string {
		return text(t, door, chatPath, harness.Question(16, fmt.Sprintf(`,"temperature":1.2,"seed":%d`, seed)))
	}
	first, second, other := question(7), question(7), question(8)
	if first != second {
		t.Errorf("one seed: got %q and %q, want the same text", first, second)
	}
	if first == other {
		t.Errorf("two seeds: got %q twice, want two texts", first)
	}
}

// checkStop uses a word that the model is known to generate.
func checkStop(t *testing.T, door *harness.Door) {
	const prompt = `{"prompt":"one two three four five","max_tokens":16,"temperature":0,"ignore_eos":true`
	whole := text(t, door, completionPath, prompt+"}")
	words := strings.Fields(whole)
	if len(words) < 3 {
		t.Fatalf("got continuation %q, want at least 3 words", whole)
	}
	stop := words[len(words)/2]
	before, _, _ := strings.Cut(whole, stop)
	for _, field := range []string{quoted(t, stop), quoted(t, []string{"never said", stop})} {
		choice := ask(t, door, completionPath, prompt+`,"stop":`+field+"}").Choices[0]
		if choice.Text != before || choice.FinishReason != "stop" {
			t.Errorf("with stop %s the text is %q, finish_reason %q; want %q", field, choice.Text, choice.FinishReason, before)
		}
	}
}

func quoted(t *testing.T, value any) string {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func checkSchema(t *testing.T, door *harness.Door) {
	const question = `{"messages":[{"role":"user","content":"Describe a fruit."}],"max_tokens":200,"seed":3,"response_format":`
	const schema = `{"type":"json_schema","json_schema":{"name":"fruit","strict":true,"schema":{"type":"object","additionalProperties":false,
		"properties":{"name":{"type":"string","maxLength":12},"colour":{"enum":["red","green","yellow"]},"sweet":{"type":"boolean"},"count":{"type":"integer","minimum":1,"maximum":9}},
		"required":["name","colour","sweet","count"]}}}`
	answer := text(t, door, chatPath, question+schema+"}")
	var fruit struct {
		Name   *string `json:"name"`
		Colour string  `json:"colour"`
		Sweet  *bool   `json:"sweet"`
		Count  int     `json:"count"`
	}
	decoder := json.NewDecoder(strings.NewReader(answer))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&fruit); err != nil {
		t.Fatalf("the answer is %q: %v", answer, err)
	}
	if _, err := decoder.Token(); err != io.EOF || fruit.Name == nil || len([]rune(*fruit.Name)) > 12 || fruit.Sweet == nil ||
		!slices.Contains([]string{"red", "green", "yellow"}, fruit.Colour) || fruit.Count < 1 || fruit.Count > 9 {
		t.Errorf("got answer %q, want one of the schema", answer)
	}
}

// checkTools: requests with optional tools are answered. This model has no template for tools, and the runtime then
// omits them. A required call is refused (checkRefused); TestTools uses a model with a template.
func checkTools(t *testing.T, door *harness.Door) {
	const question = `{"messages":[{"role":"user","content":"What is the weather in Lisbon?"},
		{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"weather","arguments":"{\"town\":\"Porto\"}"}}]},
		{"role":"tool","tool_call_id":"c1","content":"Rain."}],"max_tokens":4,"ignore_eos":true,"tools":[
		{"type":"function","function":{"name":"time","description":"The time.","parameters":{"type":"object","properties":{}}}},
		{"type":"function","function":{"name":"weather","description":"The weather of a town.","parameters":{"type":"object",
			"properties":{"town":{"type":"string"}},"required":["town"]}}}],"tool_choice":`
	for _, choice := range []string{`"none"`, `"auto"`} {
		answer := ask(t, door, chatPath, question+choice+"}")
		if m := answer.Choices[0].Message; m.Content == "" && len(m.ToolCalls) == 0 {
			t.Errorf("with tool_choice %s: got an empty answer, want text or a call", choice)
		}
	}
}

func checkN(t *testing.T, door *harness.Door) {
	choices := ask(t, door, chatPath, harness.Question(12, `,"n":2,"temperature":1.2,"seed":5`)).Choices
	if len(choices) != 2 || choices[0].Index+choices[1].Index != 1 || choices[0].Message.Content == "" || choices[1].Message.Content == "" {
		t.Errorf("got %+v, want two answers with text", choices)
	}
}

func checkLogprobs(t *testing.T, door *harness.Door) {
	tokens := ask(t, door, chatPath, harness.Question(5, `,"logprobs":true,"top_logprobs":3`)).Choices[0].Logprobs.Content
	if len(tokens) != 5 {
		t.Fatalf("got log probabilities of %d tokens, want 5", len(tokens))
	}
	for _, token := range tokens {
		if len(token.TopLogprobs) != 3 || token.Logprob > 0 || token.TopLogprobs[0].Logprob < token.TopLogprobs[2].Logprob {
			t.Errorf("got token %+v, want three alternatives in descending order", token)
		}
	}
	if plain := ask(t, door, chatPath, harness.Question(5, "")).Choices[0].Logprobs.Content; len(plain) != 0 {
		t.Errorf("got log probabilities %+v, want none: the request does not ask for them", plain)
	}
}

func checkModelsRoute(t *testing.T, door *harness.Door) {
	reply := door.Do(t.Context(), http.MethodGet, "/models", "")
	var list struct {
		Object string
		Data   []struct {
			ID, Object string
			Created    int64
			Meta       struct {
				Context int `json:"n_ctx"`
			}
		}
	}
	if err := json.Unmarshal([]byte(reply.Body), &list); err != nil || reply.Status != http.StatusOK || len(list.Data) != 1 {
		t.Fatalf("got %d %s, want 200 with one model", reply.Status, reply.Body)
	}
	if m := list.Data[0]; list.Object != "list" || m.ID != harness.ModelName || m.Object != "model" || m.Created <= 0 || m.Meta.Context != 4096 {
		t.Errorf("got models %s, want %s with a context of 4096", reply.Body, harness.ModelName)
	}
}

// checkRefused: a refusal names the field.
func checkRefused(t *testing.T, door *harness.Door) {
	const hello = `"messages":[{"role":"user","content":"Hello."}]`
	image := func(url string) string {
		return `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"` + url + `"}}]}]}`
	}
	for name, test := range map[string]struct{ path, body, param string }{
		"image to fetch":           {chatPath, image("http://127.0.0.1:1/x.png"), "messages[0].content[0].image_url.url"},
		"image of a file":          {chatPath, image("file:///etc/passwd"), "messages[0].content[0].image_url.url"},
		"slot":                     {chatPath, `{` + hello + `,"id_slot":0}`, "id_slot"},
		"slot of a completion":     {completionPath, `{"prompt":"x","id_slot":0}`, "id_slot"},
		"unknown tool":             {chatPath, `{` + hello + `,"tools":[{"type":"function","function":{"name":"a"}}],"tool_choice":{"type":"function","function":{"name":"b"}}}`, "tool_choice.function.name"},
		"adapter":                  {chatPath, `{` + hello + `,"lora":[]}`, "lora"},
		"more answers than slots":  {chatPath, `{` + hello + `,"n":3}`, "n"},
		"cyclic references":        {chatPath, `{` + hello + `,"response_format":{"type":"json_schema","json_schema":{"schema":{"allOf":[{"$ref":"#/allOf/0"}]}}}}`, "response_format.json_schema.schema"},
		"a required call":          {chatPath, `{` + hello + `,"tools":[{"type":"function","function":{"name":"a"}}],"tool_choice":"required"}`, "tool_choice"}, // L12: this model has no template for tools
		"a required named call":    {chatPath, `{` + hello + `,"tools":[{"type":"function","function":{"name":"a"}}],"tool_choice":{"type":"function","function":{"name":"a"}}}`, "tool_choice"},
		"embeddings of this model": {"/embeddings", `{"input":"x"}`, "model"},
	} {
		reply := door.Do(t.Context(), http.MethodPost, test.path, test.body)
		var refused struct {
			Error struct{ Message, Type, Code, Param string }
		}
		err := json.Unmarshal([]byte(reply.Body), &refused)
		if e := refused.Error; err != nil || reply.Status != http.StatusBadRequest || e.Code != "bad_request" || e.Param != test.param || e.Message == "" {
			t.Errorf("%s: got %d %s, want 400 bad_request for %s", name, reply.Status, reply.Body, test.param)
		}
	}
}
