package frontdoor

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"companion/adapters/door/openai"
	"companion/messages"
)

// bodiesOf has a small body for each route with a body.
var bodiesOf = map[string]string{
	routeChat: chatBody, routeCompletions: `{"prompt":"a"}`, routeMessages: chatBody, routeCountTokens: chatBody,
	routeResponses: `{"input":"hi"}`, routeInfill: `{"input_prefix":"a","input_suffix":"b"}`,
}

// answersWith serves one JSON answer for every request.
func answersWith(body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, body)
	})
}

// streamWith serves one stream for every request.
func streamWith(events string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, events)
	})
}

// L13: every route with a body has the refusals of section L, with the errors of its own format, and the runtime gets
// the path without the query.
func TestRefusalsOnEveryRoute(t *testing.T) {
	paths := make(chan string, 1)
	r := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths <- r.RequestURI
		answersWith(`{}`).ServeHTTP(w, r)
	}), func(d *Deps) { d.Bounds.BodyBytes = 200 })
	for path, body := range bodiesOf {
		if a := r.one(r.request("POST", path+"?beta=true", body)); a.status != 200 {
			t.Errorf("%s: got %+v, want 200", path, a)
		} else if got := <-paths; got != path {
			t.Errorf("%s: the runtime got %s, want the same path", path, got)
		}
		good := r.request("POST", path, body)
		swap := func(old, new string) string { return strings.Replace(good, old, new, 1) }
		length := fmt.Sprintf("Content-Length: %d\r\n", len(body))
		for name, c := range map[string]struct {
			raw    string
			status int
			reason messages.Reason
			kind   string // in the Anthropic format
		}{
			"evil host":       {swap("Host: 127", "Host: 126"), 403, messages.ReasonHostNotAllowed, "permission_error"},
			"evil origin":     {swap("Content-Type", "Origin: https://evil.example\r\nContent-Type"), 403, messages.ReasonCrossSiteForbidden, "permission_error"},
			"cross site":      {swap("Content-Type", "Sec-Fetch-Site: cross-site\r\nContent-Type"), 403, messages.ReasonCrossSiteForbidden, "permission_error"},
			"wrong token":     {swap(token, "x"), 401, messages.ReasonInvalidToken, "authentication_error"},
			"no token":        {swap("Authorization", "X-Other"), 401, messages.ReasonMissingToken, "authentication_error"},
			"put":             {swap("POST", "PUT"), 403, messages.ReasonMethodNotAllowed, "permission_error"},
			"get":             {r.request("GET", path, ""), 404, messages.ReasonUnknownPath, "not_found_error"},
			"text":            {swap("application/json", "text/plain"), 400, messages.ReasonBadRequest, "invalid_request_error"},
			"coded":           {swap("Content-Type", "Content-Encoding: gzip\r\nContent-Type"), 400, messages.ReasonBadRequest, "invalid_request_error"},
			"too large":       {r.request("POST", path, `{"x":"`+strings.Repeat("x", 200)+`"}`), 413, messages.ReasonBodyTooLarge, "request_too_large"},
			"two members":     {r.request("POST", path, `{"stream":false,"stream":false,`+body[1:]), 400, messages.ReasonBadRequest, "invalid_request_error"},
			"grammar":         {r.request("POST", path, `{"grammar":"root ::= \"a\"",`+body[1:]), 400, messages.ReasonBadRequest, "invalid_request_error"},
			"slot":            {r.request("POST", path, `{"id_slot":0,`+body[1:]), 400, messages.ReasonBadRequest, "invalid_request_error"},
			"another model":   {r.request("POST", path, `{"model":"gpt-5",`+body[1:]), 404, messages.ReasonModelNotFound, "not_found_error"},
			"not an object":   {r.request("POST", path, `[]`), 400, messages.ReasonBadRequest, "invalid_request_error"},
			"invalid UTF-8":   {r.request("POST", path, "{\"\xff\":1}"), 400, messages.ReasonBadRequest, "invalid_request_error"},
			"two lengths":     {swap(length, length+length), 403, messages.ReasonMalformedRequest, ""},
			"framed twice":    {swap(length, length+"Transfer-Encoding: chunked\r\n"), 403, messages.ReasonMalformedRequest, ""},
			"another upgrade": {swap("Content-Type", "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Type"), 403, messages.ReasonMalformedRequest, ""},
		} {
			a := r.one(c.raw)
			if a.status != c.status || a.code() != c.reason {
				t.Errorf("%s, %s: got %+v, want %d %s", path, name, a, c.status, c.reason)
			}
			var e struct {
				Type  string
				Error struct{ Type, Message string }
			}
			if err := json.Unmarshal([]byte(a.body), &e); err != nil || e.Error.Message == "" {
				t.Errorf("%s, %s: got %v: %s, want an error with a message", path, name, err, a.body)
			}
			if anthropic := shapeOf(path) == shapeAnthropic && c.kind != ""; anthropic && (e.Type != "error" || e.Error.Type != c.kind) {
				t.Errorf("%s, %s: got %s, want type %s", path, name, a.body, c.kind)
			} else if !anthropic && e.Type != "" {
				t.Errorf("%s, %s: got %s, want the OpenAI form", path, name, a.body)
			}
		}
	}
	if len(paths) > 0 {
		t.Errorf("a refused request reached the runtime: got %s, want none", <-paths)
	}
}

// L13: requests with the headers that clients of several families send are accepted.
func TestHeadsOfClients(t *testing.T) {
	r := start(t, llama(t), nil)
	for name, extra := range map[string][]string{
		"Java":      {"Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA", "Upgrade: h2c"},
		"curl":      {"Connection: upgrade, http2-settings", "upgrade: H2C", "http2-settings: AAMAAABkAAQAoAAAAAIAAAAA"},
		"Anthropic": {"x-api-key: " + token, "anthropic-version: 2023-06-01", "anthropic-beta: a,b"},
	} {
		for _, raw := range []string{r.request("GET", "/v1/models", "", extra...), r.request("POST", "/v1/chat/completions", chatBody, extra...)} {
			if a := r.one(raw); a.status != 200 || a.closed {
				t.Errorf("%s: got %+v, want 200 and an open connection", name, a)
			}
		}
	}
}

// L12: a wrong base URL is answered with the right one, for callers with the token only.
func TestWrongBaseURL(t *testing.T) {
	r := start(t, llama(t), nil)
	for _, path := range []string{"/v1/v1/chat/completions", "//v1/chat/completions", "/v1//chat/completions", "/chat/completions", "/", "/v1", "/v1/", "/v1/v1/messages", "/models", "/api/chat"} {
		a := r.one(r.request("POST", path, chatBody))
		if a.status != 404 || a.code() != messages.ReasonUnknownPath || !strings.Contains(a.body, r.baseURL+" for OpenAI") || !strings.Contains(a.body, "http://"+r.address+" for Anthropic") {
			t.Errorf("%s: got %+v, want 404 unknown_path that names both base URLs", path, a)
		}
		stranger := strings.Replace(r.request("POST", path, chatBody), token, "x", 1)
		if a := r.one(stranger); a.status != 401 || strings.Contains(a.body, r.address) {
			t.Errorf("%s without the token: got %+v, want 401 without the address", path, a)
		}
	}
}

// L13: GET /v1/models/{id}.
func TestModelByName(t *testing.T) {
	r := start(t, llama(t), nil)
	a := r.one(r.request("GET", "/v1/models/gemma", ""))
	if want := `{"id":"gemma","object":"model","created":-62135596800,"owned_by":"companion","meta":{"n_ctx":4096},"type":"model","display_name":"gemma","created_at":"0001-01-01T00:00:00Z"}`; a.status != 200 || a.body != want {
		t.Errorf("got %+v, want %s", a, want)
	}
	for path, want := range map[string]messages.Reason{
		"/v1/models/gpt-5": messages.ReasonModelNotFound, "/v1/models/gemma/x": messages.ReasonModelNotFound, "/v1/models/": messages.ReasonUnknownPath,
	} {
		if a := r.one(r.request("GET", path, "")); a.status != 404 || a.code() != want {
			t.Errorf("%s: got %+v, want %s", path, a, want)
		}
	}
	s := r.snapshot.Get()
	s.State, s.Available = messages.StateStarting, false
	r.snapshot.Set(s)
	if a := r.one(r.request("GET", "/v1/models/gemma", "")); a.status != 503 {
		t.Errorf("while the runtime starts: got %+v, want 503", a)
	}
}

const (
	anthropicStart = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"cache_read_input_tokens\":30,\"input_tokens\":1,\"output_tokens\":0}}}\n\n"
	anthropicEnd   = "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":4}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
	infillEvent    = "data: {\"content\":\"\\\"stop\\\":true\",\"stop\":false,\"tokens_predicted\":1}\n\n" // its text looks like the end
	infillEnd      = "data: {\"content\":\"\",\"stop\":true,\"timings\":{\"prompt_n\":31,\"predicted_n\":4}}\n\n"
	toolStart      = "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"t\"}}\n\n"
	responsesStart = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\"}}\n\n"
	responsesEnd   = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"usage\":{\"input_tokens\":31,\"output_tokens\":4}}}\n\n"
)

// L8, L13: streams of both formats end with the last event of the format, and fail with its error event.
func TestStreamsOfOtherFormats(t *testing.T) {
	anthropicFault := "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"The model's runtime failed.\",\"code\":\"upstream_failed\"}}\n\n"
	responsesFault := "event: error\ndata: {\"type\":\"error\",\"code\":\"upstream_failed\",\"message\":\"The model's runtime failed.\",\"param\":null,\"sequence_number\":1," +
		"\"error\":{\"type\":\"server_error\",\"code\":\"upstream_failed\",\"message\":\"The model's runtime failed.\",\"param\":null}}\n\n"
	created := "event: response.created\ndata: {\"sequence_number\":0,\"type\":\"response.created\",\"response\":{" + responseMembers + "\"output\":[],\"created_at\":0,\"model\":\"gemma\",\"id\":\"r\"}}\n\n"
	long := "event: response.output_text.done\ndata: {\"type\":\"x\",\"item_id\":\"m\",\"text\":\"" + strings.Repeat("x", 100<<10) + "\"}\n\n"
	longEnd := "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"text\":\"" + strings.Repeat("x", 100<<10) + "\",\"usage\":{\"input_tokens\":31,\"output_tokens\":4}}}\n\n"
	for name, c := range map[string]struct {
		path, sent, want string
		reason           messages.Reason
	}{
		"infill":                 {routeInfill, infillEvent + infillEnd, infillEvent + infillEnd, messages.ReasonOK},
		"infill, more at end":    {routeInfill, infillEvent + infillEnd + "data: /secret\n\n", infillEvent + infillEnd, messages.ReasonOK},
		"infill, broken":         {routeInfill, infillEvent, infillEvent + string(errorEvent(messages.ReasonUpstreamFailed)), messages.ReasonUpstreamFailed},
		"infill, failed":         {routeInfill, infillEvent + "data: {\"error\":{\"message\":\"/secret\"}}\n\n", infillEvent + string(errorEvent(messages.ReasonUpstreamFailed)), messages.ReasonUpstreamFailed},
		"messages":               {routeMessages, anthropicStart + anthropicEnd + "\n", anthropicStart + anthropicEnd, messages.ReasonOK},
		"messages, a call":       {routeMessages, anthropicStart + toolStart + anthropicEnd, anthropicStart + strings.Replace(toolStart, `"id"`, `"input":{},"id"`, 1) + anthropicEnd, messages.ReasonOK},
		"messages, more at end":  {routeMessages, anthropicStart + anthropicEnd + "data: /secret\n\n", anthropicStart + anthropicEnd, messages.ReasonOK},
		"messages, broken":       {routeMessages, anthropicStart, anthropicStart + anthropicFault, messages.ReasonUpstreamFailed},
		"messages, failed":       {routeMessages, anthropicStart + "event: error\ndata: {\"message\":\"/secret\"}\n\n", anthropicStart + anthropicFault, messages.ReasonUpstreamFailed},
		"responses":              {routeResponses, responsesStart + responsesEnd + "\n", created + completedEvent(1), messages.ReasonOK},
		"responses, broken":      {routeResponses, responsesStart, created + responsesFault, messages.ReasonUpstreamFailed},
		"responses, a long text": {routeResponses, long + responsesEnd, strings.Replace(long, `{`, `{"sequence_number":0,"output_index":0,"content_index":0,"logprobs":[],`, 1) + completedEvent(1), messages.ReasonOK},
		"responses, a long end":  {routeResponses, longEnd, strings.Replace(strings.Replace(longEnd, `"response":{`, `"response":{`+responseMembers, 1), `{"type`, `{"sequence_number":0,"type`, 1), messages.ReasonOK},
	} {
		r := start(t, streamWith(c.sent), nil)
		body := `{"stream":true,` + bodiesOf[c.path][1:]
		a := r.one(r.request("POST", c.path, body))
		if got := someTime.ReplaceAllString(a.body, `"created_at":0`); a.status != 200 || got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, short(got), short(c.want))
		}
		line := r.logs.FilterMessage("request").All()[0].ContextMap()
		if line["reason"] != string(c.reason) {
			t.Errorf("%s: logged %v, want reason %s", name, line, c.reason)
		}
		if c.reason == messages.ReasonOK && (line["promptTokens"] != int64(31) || line["completionTokens"] != int64(4)) {
			t.Errorf("%s: logged %v, want 31 and 4 tokens", name, line)
		}
		r.stop()
	}
}

// someTime is a time after 2001.
var someTime = regexp.MustCompile(`"created_at":1[0-9]{9}\b`)

func completedEvent(n int) string {
	return fmt.Sprintf("event: response.completed\ndata: {\"sequence_number\":%d,\"type\":\"response.completed\",\"response\":{%s\"id\":\"r\",\"usage\":{%s\"input_tokens\":31,\"output_tokens\":4}}}\n\n", n, responseMembers, usageMembers)
}

func short(s string) string {
	if len(s) > 3000 {
		return s[:1000] + "…" + s[len(s)-1000:]
	}
	return s
}

// L13: the events of an answer with a text and two calls, as the runtime writes them, get the places of their items.
func TestPlacesOfItems(t *testing.T) {
	var e responseEvents
	var got []string
	for _, event := range []string{
		`output_item.added {"item":{"content":[],"id":"m"}}`, `content_part.added {"item_id":"m"}`, `output_text.delta {"item_id":"m"}`,
		`output_item.added {"item":{"id":"fc_1","call_id":"c1"}}`, `function_call_arguments.delta {"item_id":"fc_1"}`,
		`output_item.added {"item":{"id":"fc_2"}}`, `function_call_arguments.delta {"item_id":"fc_2"}`,
		`output_item.done {"item":{"type":"message","id":"m"}}`, `output_item.done {"item":{"id":"fc_1"}}`, `output_item.done {"item":{"id":"fc_2"}}`,
	} {
		kind, data, _ := strings.Cut(event, " ")
		out := string(e.Event(nil, []byte("event: response."+kind+"\ndata: "+data+"\n\n")))
		_, data, _ = strings.Cut(out, "data: ")
		var told struct {
			Sequence int  `json:"sequence_number"`
			Output   int  `json:"output_index"`
			Content  *int `json:"content_index"`
		}
		if err := json.Unmarshal([]byte(data), &told); err != nil || told.Sequence != len(got) {
			t.Fatalf("event %s: got %v, want sequence number %d", out, err, len(got))
		}
		got = append(got, fmt.Sprint(told.Output))
	}
	if want := "0 0 0 1 1 2 2 0 1 2"; strings.Join(got, " ") != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := string(e.Event(nil, []byte(": keep-alive\n\n"))); got != ": keep-alive\n\n" {
		t.Errorf("got %q, want the comment unchanged", got)
	}
}

// L13: an answer of the Responses format that is not a stream.
func TestWholeResponse(t *testing.T) {
	r := start(t, answersWith(`{"id":"r","output":[{"text":"\"usage\":{"}],"usage":{"input_tokens":3,"output_tokens":7}}`), nil)
	a := r.one(r.request("POST", routeResponses, bodiesOf[routeResponses]))
	if want := `{` + responseMembers + `"id":"r","output":[{"text":"\"usage\":{"}],"usage":{` + usageMembers + `"input_tokens":3,"output_tokens":7}}`; a.body != want || !json.Valid([]byte(a.body)) {
		t.Errorf("got %s, want %s", a.body, want)
	}
	if line := r.logs.FilterMessage("request").All()[0].ContextMap(); line["promptTokens"] != int64(3) || line["completionTokens"] != int64(7) {
		t.Errorf("logged %v, want 3 prompt tokens and 7 completion tokens", line)
	}
}

// L12: a call is not required of a model whose template has no tools; the runtime would answer without one.
func TestForcedCallWithoutTools(t *testing.T) {
	for props, want := range map[string]int{
		`{"chat_template_caps":{"supports_tools":false}}`: 400, `{"chat_template_caps":{"supports_tools":true}}`: 200,
		`{"chat_template_caps":{}}`: 200, `[`: 200,
	} {
		asked := 0
		r := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/props" {
				asked++
				answersWith(props).ServeHTTP(w, r)
				return
			}
			answersWith(`{}`).ServeHTTP(w, r)
		}), nil)
		const tools = `"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":`
		for range 2 {
			for _, choice := range []string{`"required"`, `{"type":"function","function":{"name":"f"}}`} {
				a := r.one(r.request("POST", routeChat, `{`+tools+choice+`,`+chatBody[1:]))
				if a.status != want || want == 400 && !strings.Contains(a.body, `"param":"tool_choice"`) {
					t.Errorf("%s, %s: got %+v, want %d", props, choice, a, want)
				}
			}
		}
		if props != `[` && asked != 1 {
			t.Errorf("%s: the runtime was asked %d times, want 1", props, asked)
		}
		if a := r.one(r.request("POST", routeChat, `{`+tools+`"auto",`+chatBody[1:])); a.status != 200 {
			t.Errorf("%s, auto: got %+v, want 200", props, a)
		}
		r.stop()
	}
}

// L12: what the runtime refuses is said in words that help.
func TestRuntimeRefusals(t *testing.T) {
	image := `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]}`
	for name, c := range map[string]struct{ body, told, want string }{
		"too long":     {chatBody, `{"error":{"code":400,"message":"request (5031 tokens) exceeds the available context size (2048 tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":5031,"n_ctx":2048}}`, "The prompt has 5031 tokens, and the context holds 4096."},
		"a picture":    {image, `{"error":{"code":500,"message":"image input is not supported - hint: if this is unexpected, you may need to provide the mmproj","type":"server_error"}}`, "does not take images"},
		"another kind": {chatBody, `{"error":{"code":501,"message":"x","type":"not_supported_error"}}`, "cannot do this"},
	} {
		r := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(500)
			fmt.Fprint(w, c.told)
		}), nil)
		if a := r.one(r.request("POST", routeChat, c.body)); a.status != 400 || !strings.Contains(a.body, c.want) {
			t.Errorf("%s: got %+v, want 400 and %q", name, a, c.want)
		}
		r.stop()
	}
}

// L12: fields that are left out are counted, and unknown ones are left out if the user wants it.
func TestDroppedFieldsAreCounted(t *testing.T) {
	body := `{"user":"u","frobnicate":1,` + chatBody[1:]
	r := start(t, llama(t), nil)
	if a := r.one(r.request("POST", routeChat, body)); a.status != 400 || !strings.Contains(a.body, "frobnicate") {
		t.Errorf("by default: got %+v, want 400 that names the field frobnicate", a)
	}
	r.stop()
	r = start(t, llama(t), func(d *Deps) { d.Bounds.DropUnknown = true })
	for range 2 {
		if a := r.one(r.request("POST", routeChat, body)); a.status != 200 {
			t.Errorf("dropping unknown fields: got %+v, want 200", a)
		}
	}
	if got := r.actor.View().Dropped; len(got) != 2 || got["user"] != 2 || got[openai.UnknownField] != 2 {
		t.Errorf("counted %v, want two of user and of unknown", got)
	}
}
