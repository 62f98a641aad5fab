package frontdoor

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"companion/messages"
)

// jinja is the runtime's answer when a chat template refuses a conversation.
const jinja = `{"error":{"code":400,"message":"Error: Jinja Exception: Conversation roles must alternate user/assistant/user/assistant/...","type":"invalid_request_error"}}`

// strict is a runtime whose template refuses two user messages in a row. It records what it gets.
func strict(seen chan<- string, refuses func(body string) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen <- string(body)
		w.Header().Set("Content-Type", "application/json")
		if refuses(string(body)) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, jinja)
			return
		}
		_, _ = io.WriteString(w, chatAnswer)
	})
}

// L13: a conversation that the model's template refuses is sent again in the form that every template accepts, and later ones at
// once. Without such a form the client learns why.
func TestStrictTemplate(t *testing.T) {
	const twoTurns = `{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}`
	seen := make(chan string, 8)
	refuses := func(body string) bool { return strings.Count(body, `"role":"user"`) > 1 }
	r := start(t, strict(seen, func(b string) bool { return refuses(b) }), nil)
	for i, want := range []int{2, 1} {
		if a := r.one(r.request("POST", "/v1/chat/completions", twoTurns)); a.status != 200 || a.body != chatAnswer {
			t.Errorf("request %d: got %+v, want 200", i, a)
		}
		if got := len(seen); got != want {
			t.Errorf("request %d: the runtime got %d requests, want %d", i, got, want)
		}
		for len(seen) > 1 {
			<-seen
		}
		if got := <-seen; !strings.Contains(got, `[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]`) {
			t.Errorf("request %d: the runtime got %s last, want one user message", i, got)
		}
	}
	// Another launch may have another template.
	s := r.snapshot.Get()
	s.Launch++
	r.snapshot.Set(s)
	r.one(r.request("POST", "/v1/chat/completions", twoTurns))
	if got := len(seen); got != 2 {
		t.Errorf("another launch: the runtime got %d requests, want 2", got)
	}
	for len(seen) > 0 {
		<-seen
	}
	for what, body := range map[string]string{"nothing to fold": chatBody, "folding does not help": twoTurns} {
		refuses = func(string) bool { return true }
		s.Launch++
		r.snapshot.Set(s)
		a := r.one(r.request("POST", "/v1/chat/completions", body))
		if a.status != 400 || a.code() != messages.ReasonBadRequest || !strings.Contains(a.body, "chat template does not accept this conversation") || strings.Contains(a.body, "Jinja") {
			t.Errorf("%s: got %+v, want 400 that says so in our words", what, a)
		}
		for len(seen) > 0 {
			<-seen
		}
	}
}

// L12: a program of another API learns that this is none of its routes, and what to choose.
func TestForeignRoutes(t *testing.T) {
	r := start(t, llama(t), nil)
	for _, c := range []struct{ source, method, path, api string }{
		{"vierisid/jarvis#194", "POST", "/api/chat", "Ollama's own API"},
		{"vierisid/jarvis#194", "POST", "/v1/api/chat", "Ollama's own API"},
		{"SillyTavern text-completions.js", "GET", "/api/tags", "Ollama's own API"},
		{"SillyTavern text-completions.js", "POST", "/completion", "llama.cpp's own API"},
		{"continuedev/continue core/llm/llms/LlamaCpp.ts", "POST", "/completion", "llama.cpp's own API"},
		{"SillyTavern text-completions.js", "GET", "/props", "llama.cpp's own API"},
		{"SillyTavern text-completions.js", "GET", "/v1/internal/model/info", "text-generation-webui's own API"},
		{"gemini-cli bridges", "POST", "/v1beta/models/gemma:generateContent", "Gemini's API"},
		{"Azure clients", "POST", "/openai/deployments/gemma/chat/completions?api-version=2024-10-21", "Azure's API"},
		{"old OpenAI clients", "GET", "/v1/engines", "OpenAI's old API"},
		{"cline/cline#224", "POST", "/chat/completions", ""},
		{"no /v1", "POST", "/completions", ""},
		{"no /v1", "POST", "/embeddings", ""},
		{"no /v1", "GET", "/models", ""},
		{"a slash at the end", "POST", "/v1/chat/completions/", ""},
		{"health checks", "GET", "/health", ""},
	} {
		body := ""
		if c.method == "POST" {
			body = chatBody
		}
		a := r.one(r.request(c.method, c.path, body))
		if a.status != 404 || a.code() != messages.ReasonUnknownPath || !strings.Contains(a.body, r.baseURL+" for OpenAI") || !strings.Contains(a.body, "http://"+r.address+" for Anthropic") {
			t.Errorf("%s, %s: got %+v, want 404 with both base URLs", c.source, c.path, a)
		}
		if foreign := strings.Contains(a.body, "This is a route of "+c.api); c.api != "" && !foreign || c.api == "" && strings.Contains(a.body, "This is a route of") {
			t.Errorf("%s, %s: got %s, want it to name %q", c.source, c.path, a.body, c.api)
		}
	}
	for _, path := range []string{"/v1/models?limit=1000", "/v1/models?after_id=x&beta=true"} {
		if a := r.one(r.request("GET", path, "")); a.status != 200 {
			t.Errorf("%s: got %+v, want 200", path, a)
		}
	}
}

// L13: heads of programs by public reports. A body that is encoded is refused, and the message says so.
func TestHeadsByReports(t *testing.T) {
	r := start(t, llama(t), nil)
	typed := func(value string, extra ...string) string {
		return strings.Replace(r.request("POST", "/v1/chat/completions", chatBody, extra...), "application/json", value, 1)
	}
	for source, raw := range map[string]string{
		"charset":                       typed("application/json; charset=utf-8"),
		"charset in upper case":         typed("application/json;charset=UTF-8"),
		"headroomlabs-ai/headroom#3017": typed("application/json", "x-api-key: "+token, "anthropic-beta: claude-code-20250219,oauth-2025-04-20", "anthropic-version: 2023-06-01", "anthropic-dangerous-direct-browser-access: true", "x-app: cli", "X-Stainless-Timeout: 600", "Accept-Encoding: gzip, deflate, br, zstd", "X-Claude-Code-Session-Id: x"),
		"codex 0.160.0":                 typed("application/json", "originator: codex_exec", "x-codex-turn-metadata: {\"a\":1}", "accept: text/event-stream"),
		"OpenAI SDKs":                   typed("application/json", "OpenAI-Organization: o", "OpenAI-Project: p", "OpenAI-Beta: assistants=v2", "x-stainless-retry-count: 0", "Idempotency-Key: k"),
		"vscode-copilot-chat":           typed("application/json", "X-Request-Id: 1", "X-Interaction-Type: panel", "OpenAI-Intent: panel", "X-GitHub-Api-Version: 2025-05-01"),
		"SillyTavern":                   typed("application/json", "HTTP-Referer: https://sillytavern.app", "X-Title: SillyTavern"),
		"identity":                      typed("application/json", "Content-Encoding: identity"),
		"consent":                       typed("application/json", "Expect: 100-continue"),
		"chunks":                        strings.Replace(r.request("POST", "/v1/chat/completions", "", "Content-Type: application/json", "Transfer-Encoding: chunked"), "\r\n\r\n", fmt.Sprintf("\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(chatBody), chatBody), 1),
	} {
		answers := r.raw(raw)
		if last := answers[len(answers)-1]; last.status != 200 {
			t.Errorf("%s: got %+v, want 200 last", source, answers)
		}
	}
	for source, raw := range map[string]string{
		"no type": strings.Replace(typed("application/json"), "Content-Type", "X-Type", 1), "a form": typed("application/x-www-form-urlencoded"), "latin": typed("application/json; charset=latin1"),
		"gzip": typed("application/json", "Content-Encoding: gzip"), "zstd (codex)": typed("application/json", "Content-Encoding: zstd"),
	} {
		if a := r.one(raw); a.status != 400 || !strings.Contains(a.body, "application/json without content encoding") {
			t.Errorf("%s: got %+v, want 400 that says what the body must be", source, a)
		}
	}
}
