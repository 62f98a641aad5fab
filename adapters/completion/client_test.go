package completion

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs handler and returns its base URL.
func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL + "/v1"
}

func client(t *testing.T, target Target) *Client {
	t.Helper()
	c := New(target)
	t.Cleanup(c.Close)
	return c
}

var hello = []Message{{Role: "system", Content: "be brief"}, {Role: "user", Content: "hello"}}

func stream(w http.ResponseWriter, events ...string) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, event := range events {
		_, _ = fmt.Fprintf(w, "data: %s\n\n", event)
		w.(http.Flusher).Flush()
	}
}

func delta(text, finish string) string {
	quoted, _ := json.Marshal(text)
	if finish == "" {
		return `{"model":"m","choices":[{"index":0,"delta":{"content":` + string(quoted) + `}}]}`
	}
	return `{"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"` + finish + `"}]}`
}

// E5: the OpenAI wire format, the key as a bearer token, nothing about this machine and nothing from
// OPENAI_ variables.
func TestRequestShape(t *testing.T) {
	for _, name := range []string{"OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"} {
		t.Setenv(name, "ambient")
	}
	t.Setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/")
	t.Setenv("OPENAI_CUSTOM_HEADERS", "X-Ambient: ambient")
	var head http.Header
	var body map[string]any
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		head = r.Header.Clone()
		if r.Method != http.MethodPost || r.URL.Path != "/v1/chat/completions" {
			t.Errorf("got %s %s, want POST /v1/chat/completions", r.Method, r.URL.Path)
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		answer(w, `{"model":"m","choices":[{"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}`)
	})
	seed := int64(7)
	c := client(t, Target{BaseURL: base, Key: messages.NewSecret("k3y"), Model: "m"})
	got, err := c.Ask(t.Context(), hello, Options{MaxTokens: 9, Seed: &seed, SchemaName: "s", Schema: map[string]any{"type": "object"}}, time.Second)
	if got.SentBytes < 200 {
		t.Errorf("got %d sent bytes, want the size of the body", got.SentBytes)
	}
	got.SentBytes = 0
	if err != nil || got != (Answer{Text: "hi", Model: "m"}) {
		t.Fatalf("got %+v, %v; want hi of model m", got, err)
	}
	if head.Get("Authorization") != "Bearer k3y" || head.Get("User-Agent") != "companion" {
		t.Errorf("got headers %v, want Bearer k3y and the user agent companion", head)
	}
	for name, values := range head {
		if strings.HasPrefix(name, "X-") || strings.HasPrefix(name, "Openai-") || slices.Contains(values, "ambient") {
			t.Errorf("got header %s: %s, want it absent", name, values)
		}
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"max_completion_tokens":9,"messages":[{"content":"be brief","role":"system"},{"content":"hello","role":"user"}],"model":"m",` +
		`"response_format":{"json_schema":{"name":"s","schema":{"type":"object"},"strict":true},"type":"json_schema"},"seed":7}`
	if string(encoded) != want {
		t.Errorf("got  %s\nwant %s", encoded, want)
	}
}

// Chat delivers each piece when it arrives; a stream without its end marker is an error.
func TestChatStream(t *testing.T) {
	tests := []struct {
		name   string
		events []string
		want   Answer
		pieces []string
		code   string
	}{
		{"whole", []string{delta("a", ""), delta("b", ""), delta("", "stop"), "[DONE]"}, Answer{Text: "ab", Model: "m"}, []string{"a", "b"}, ""},
		{"cut at the limit", []string{delta("a", ""), delta("", "length"), "[DONE]"}, Answer{Text: "a", Model: "m", Truncated: true}, []string{"a"}, ""},
		{"error event", []string{delta("a", ""), `{"error":{"message":"gone","code":"upstream_failed"}}`}, Answer{}, []string{"a"}, "upstream_failed"},
		{"broken off", []string{delta("a", "")}, Answer{}, []string{"a"}, "upstream_failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := client(t, Target{BaseURL: serve(t, func(w http.ResponseWriter, _ *http.Request) { stream(w, tt.events...) })})
			var pieces []string
			got, err := c.Chat(t.Context(), hello, Options{}, func(text string) error {
				pieces = append(pieces, text)
				return nil
			})
			if got != tt.want || !slices.Equal(pieces, tt.pieces) || code(err) != tt.code {
				t.Errorf("got %+v, %v, %v, want %+v, %v, %s", got, pieces, err, tt.want, tt.pieces, tt.code)
			}
		})
	}
}

func answer(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, body)
}

func code(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// E5: a redirect is refused, because it would send the text to another server.
func TestRedirectRefused(t *testing.T) {
	var reached atomic.Bool
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { reached.Store(true) })
	for _, status := range []int{301, 302, 303, 307, 308} {
		c := client(t, Target{BaseURL: serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere, status)
		})})
		if _, err := c.Ask(t.Context(), hello, Options{}, time.Second); code(err) != "redirected" {
			t.Errorf("status %d: got %v, want redirected", status, err)
		}
	}
	if reached.Load() {
		t.Error("redirect target: got a request, want none")
	}
}

// E5: a missing server, and one that is not an OpenAI server, cause an error with a code.
func TestNoAnswer(t *testing.T) {
	page := client(t, Target{BaseURL: serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })})
	if _, err := page.Ask(t.Context(), hello, Options{}, time.Second); code(err) != "malformed_answer" {
		t.Errorf("web page: got %v, want malformed_answer", err)
	}
	none := client(t, Target{Socket: filepath.Join(t.TempDir(), "none"), BaseURL: "http://localhost/v1"})
	if _, err := none.Ask(t.Context(), hello, Options{}, time.Second); code(err) != "unreachable" {
		t.Errorf("no server: got %v, want unreachable", err)
	}
}

// A request is repeated after a busy answer and its Retry-After, and not after a refusal.
func TestRetries(t *testing.T) {
	tests := []struct {
		name   string
		status int
		code   string
		calls  int32
		ok     bool
	}{
		{"queue full", 503, "queue_full", 3, true},
		{"rate", 429, "rate_limited", 3, true},
		{"wrong token", 401, "invalid_token", 1, false},
		{"bad request", 400, "bad_request", 1, false},
		{"upstream", 502, "upstream_failed", 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var calls atomic.Int32
			base := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				if calls.Add(1) < 3 {
					w.Header().Set("Retry-After", "0")
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(tt.status)
					_, _ = fmt.Fprintf(w, `{"error":{"message":"said so","type":"x","code":%q,"param":null}}`, tt.code)
					return
				}
				answer(w, `{"model":"m","choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}`)
			})
			c := client(t, Target{BaseURL: base, Local: true})
			_, err := c.Ask(t.Context(), hello, Options{}, time.Minute)
			if (err == nil) != tt.ok || calls.Load() != tt.calls {
				t.Errorf("got %d calls, %v; want %d, success %t", calls.Load(), err, tt.calls, tt.ok)
			}
			if !tt.ok && (code(err) != tt.code || !strings.Contains(err.Error(), "said so")) {
				t.Errorf("got error %v, want code %s with the server's text", err, tt.code)
			}
		})
	}
}

// E4: consent is asked for before each request, also before one that is repeated for a busy server; a refusal is the error.
func TestAllowedBeforeEachRequest(t *testing.T) {
	var calls, asked atomic.Int32
	base := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	withdrawn := errors.New("withdrawn")
	c := client(t, Target{BaseURL: base, Allow: func() error {
		if asked.Add(1) > 2 {
			return withdrawn
		}
		return nil
	}})
	if _, err := c.Ask(t.Context(), hello, Options{}, time.Minute); !errors.Is(err, withdrawn) || calls.Load() != 2 {
		t.Errorf("Ask: got %v after %d requests, want %v after 2", err, calls.Load(), withdrawn)
	}
	if _, err := c.Chat(t.Context(), hello, Options{}, func(string) error { return nil }); !errors.Is(err, withdrawn) || calls.Load() != 2 {
		t.Errorf("Chat: got %v after %d requests, want %v and no more", err, calls.Load(), withdrawn)
	}
	if _, err := c.Complete(t.Context(), "hello", Options{}); !errors.Is(err, withdrawn) || calls.Load() != 2 {
		t.Errorf("Complete: got %v after %d requests, want %v and no more", err, calls.Load(), withdrawn)
	}
}

// T12: the error text of another server may quote the key or the note; it is not shown.
func TestForeignErrorText(t *testing.T) {
	base := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(401)
		_, _ = io.WriteString(w, `{"error":{"message":"bad key k3y for hello","type":"x","code":"Bad key k3y"}}`)
	})
	c := client(t, Target{BaseURL: base, Key: messages.NewSecret("k3y")})
	for _, ask := range []func() error{
		func() error { _, err := c.Ask(t.Context(), hello, Options{}, time.Second); return err },
		func() error {
			_, err := c.Chat(t.Context(), hello, Options{}, func(string) error { return nil })
			return err
		},
		func() error { _, err := c.Complete(t.Context(), "hello", Options{}); return err },
	} {
		err := ask()
		var e *Error
		if !errors.As(err, &e) || e.Status != 401 || strings.Contains(err.Error(), "k3y") || strings.Contains(err.Error(), "hello") {
			t.Errorf("got %v, want status 401 without the key or the prompt", err)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/completions" {
			t.Errorf("got path %s, want /v1/completions", r.URL.Path)
		}
		answer(w, `{"model":"m","choices":[{"text":" world","finish_reason":"length"}]}`)
	})}}
	server.Start()
	t.Cleanup(server.Close)
	c := client(t, Target{BaseURL: "http://localhost/v1", Socket: socket})
	got, err := c.Complete(t.Context(), "hello", Options{MaxTokens: 1})
	if err != nil || got != (Answer{Text: " world", Model: "m", Truncated: true}) {
		t.Errorf("got %+v, %v, want the text \" world\" of model m, truncated", got, err)
	}
}

// The end of the context ends the request at once, with the context's error.
func TestCancelled(t *testing.T) {
	gone := make(chan struct{})
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		stream(w, delta("a", ""))
		<-r.Context().Done()
		close(gone)
	})
	c := client(t, Target{BaseURL: base})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.Chat(ctx, hello, Options{}, func(string) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	<-gone
}
