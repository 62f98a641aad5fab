package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"companion/e2e/harness"
	"companion/messages"
)

const (
	// completer is what llama.vscode sends.
	completer = `{"input_prefix":"def add(a, b):\n","input_suffix":"\nprint(add(1, 2))","input_extra":[{"filename":"a.py","text":"x = 1"}],"prompt":"    return ","n_predict":8,` +
		`"top_k":40,"top_p":0.99,"samplers":["top_k","top_p","infill"],"cache_prompt":true,"t_max_prompt_ms":500,"t_max_predict_ms":2500,"response_fields":["content"]`
	suffixed = `{"prompt":"def add(a, b):\n    return ","suffix":"\nprint(add(1, 2))","max_tokens":8,"temperature":0`
)

// L13, L8: a real runtime with a model that has tokens for filling in the middle answers /infill and a completion with a
// suffix, whole and as a stream, and stops when the client leaves. A model without the tokens answers 400.
func TestInfill(t *testing.T) {
	parts, hub := harness.Parts(t), harness.NewHub(t)
	hub.Publish("model", harness.ModelName, middled(t, harness.Instructed(t).File), "--version", "1", "--default")
	hub.Publish("runtime", harness.RuntimeName, parts.Runtime.File, "--version", parts.Runtime.Version, "--default")
	c := hub.Companion("")
	c.Start()
	c.SignIn()
	c.Available()
	baseURL, token := c.Endpoint()
	v1, root := c.Door(), harness.NewDoor(strings.TrimSuffix(baseURL, "/v1"), token)

	reply := root.Do(t.Context(), http.MethodPost, "/infill", completer+"}")
	var whole struct {
		Content string
		Stop    bool
		Prompt  string
		Model   string
	}
	if err := json.Unmarshal([]byte(reply.Body), &whole); err != nil || reply.Status != http.StatusOK || whole.Content == "" || !whole.Stop || whole.Model != harness.ModelName {
		t.Errorf("/infill: got %d %.500s, want a text", reply.Status, reply.Body)
	}
	if !strings.Contains(whole.Prompt, "<PRE>def add(a, b):\n    return <SUF>\nprint") || !strings.HasSuffix(whole.Prompt, "<MID>") {
		t.Errorf("/infill: the runtime read %q, want the texts between the model's tokens", whole.Prompt)
	}
	reply = root.Do(t.Context(), http.MethodPost, "/infill", completer+`,"stream":true}`)
	if events := strings.Split(strings.TrimSuffix(reply.Body, "\n\n"), "\n\n"); len(events) < 2 || !strings.Contains(events[len(events)-1], `"stop":true`) || strings.Contains(reply.Body, "error") {
		t.Errorf("/infill as a stream: got %d %.1000s, want it whole", reply.Status, reply.Body)
	}
	var completion struct {
		Choices []struct{ Text string }
		Usage   struct {
			Prompt int `json:"prompt_tokens"`
		}
	}
	tokens := func(body string) (text string, prompt int) {
		t.Helper()
		reply := v1.Do(t.Context(), http.MethodPost, "/completions", body)
		if err := json.Unmarshal([]byte(reply.Body), &completion); err != nil || reply.Status != http.StatusOK || len(completion.Choices) != 1 {
			t.Fatalf("%s: got %d %.500s, want a completion", body, reply.Status, reply.Body)
		}
		return completion.Choices[0].Text, completion.Usage.Prompt
	}
	plain, short := tokens(`{"prompt":"def add(a, b):\n    return ","max_tokens":8,"temperature":0}`)
	filled, long := tokens(suffixed + "}")
	if long < short+3+5 || filled == plain {
		t.Errorf("with a suffix: got %q from %d tokens, without it %q from %d, want the suffix and three tokens more, and another text", filled, long, plain, short)
	}
	if reply := v1.Do(t.Context(), http.MethodPost, "/completions", suffixed+`,"stream":true}`); !strings.HasSuffix(reply.Body, "data: [DONE]\n\n") {
		t.Errorf("with a suffix, as a stream: got %.500s, want it whole", reply.Body)
	}

	for path, body := range map[string]string{"/infill": `{"input_prefix":"a","input_suffix":"b"`, "/v1/completions": `{"prompt":"a","suffix":"b"`} {
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan harness.Reply, 1)
		go func() { left <- root.Do(ctx, http.MethodPost, path, body+`,"ignore_eos":true,"max_tokens":3000}`) }()
		c.Await("running", time.Minute, func(s messages.Status) bool { return s.FrontDoor.InFlight == 1 })
		leave()
		<-left
		c.Await("the end of the abandoned request", 10*time.Second, func(s messages.Status) bool { return s.FrontDoor.InFlight == 0 })
	}
	long6000 := strings.Repeat("word ", 6000)
	if reply := v1.Do(t.Context(), http.MethodPost, "/completions", `{"prompt":"a","suffix":"`+long6000+`"}`); reply.Status != http.StatusBadRequest || !strings.Contains(reply.Body, "and the context holds 4096.") {
		t.Errorf("a suffix that does not fit: got %d %.300s, want 400 with both numbers", reply.Status, reply.Body)
	}
	c.Stop()
}

// L13: a model without the tokens for it refuses to fill in the middle, and says why.
func TestInfillWithoutTokens(t *testing.T) {
	c := harness.Ready(t, "")
	baseURL, token := c.Endpoint()
	root := harness.NewDoor(strings.TrimSuffix(baseURL, "/v1"), token)
	for path, body := range map[string]string{"/infill": completer + "}", "/v1/completions": suffixed + "}"} {
		reply := root.Do(t.Context(), http.MethodPost, path, body)
		if reply.Status != http.StatusBadRequest || !strings.Contains(reply.Body, "has no tokens for filling in the middle") {
			t.Errorf("%s: got %d %.300s, want 400 that says why", path, reply.Status, reply.Body)
		}
	}
}

// middled is a copy of a model in whose vocabulary three tokens have the texts by which the runtime recognizes the tokens
// for filling in the middle. The texts have the length of the former ones, so everything keeps its place.
func middled(t *testing.T, file string) string {
	t.Helper()
	model, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	key := "tokenizer.ggml.tokens"
	at := bytes.Index(model, append(binary.LittleEndian.AppendUint64(nil, uint64(len(key))), key...)) + 8 + len(key) + 4 + 4
	texts := []string{"<PRE>", "<SUF>", "<MID>"}
	count := binary.LittleEndian.Uint64(model[at:])
	at += 8
	var five []int // where texts of five bytes begin
	for range count {
		length := int(binary.LittleEndian.Uint64(model[at:]))
		if length == len(texts[0]) {
			five = append(five, at+8)
		}
		at += 8 + length
	}
	for i, text := range texts {
		copy(model[five[len(five)-len(texts)+i]:], text)
	}
	copied := filepath.Join(harness.TempDir(t), "middled.gguf")
	if err := os.WriteFile(copied, model, 0o600); err != nil {
		t.Fatal(err)
	}
	return copied
}
