package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"companion/adapters/gguf"
	"companion/e2e/harness"
	"companion/messages"
)

// L15: where memory limits the context, requests share one. Two prompts that do not fit together are both answered, and
// short ones run at once.
func TestSharedContext(t *testing.T) {
	c := harness.RealHub(t).Companion("[runtime]\nmemory_limit = \"1000MiB\"\n")
	c.Extra = []string{"COMPANION_MODEL_CONTEXT=0"}
	c.Start()
	c.SignIn()
	model := c.Available().Model
	if model.ContextBy != messages.ContextMemory || model.ContextShare < 4096 || model.ContextShare*2 > model.Context || model.Context > model.ContextTrained {
		t.Fatalf("status: got %+v, want a context that two requests share", model)
	}
	door := c.Door()
	ask := func(words, bound int) <-chan harness.Reply {
		reply := make(chan harness.Reply, 1)
		go func() {
			reply <- door.Do(t.Context(), http.MethodPost, "/chat/completions",
				fmt.Sprintf(`{"messages":[{"role":"user","content":"%s"}],"max_tokens":%d,"ignore_eos":true}`, strings.Repeat("word ", words), bound))
		}()
		return reply
	}
	long := model.Context * 6 / 10 // two of them do not fit together
	first, second, short := ask(long, 8), ask(long, 8), ask(20, 8)
	for name, reply := range map[string]<-chan harness.Reply{"the first long prompt": first, "the second": second, "a short one": short} {
		if r := <-reply; r.Status != http.StatusOK {
			t.Errorf("%s: got %d %.300s, want 200", name, r.Status, r.Body)
		}
	}
	one, other := ask(20, 400), ask(20, 400)
	c.Await("two at once", time.Minute, func(s messages.Status) bool { return s.FrontDoor.InFlight == 2 && s.FrontDoor.Queued == 0 })
	for _, reply := range []<-chan harness.Reply{one, other} {
		if r := <-reply; r.Status != http.StatusOK {
			t.Errorf("a short prompt: got %d %.300s, want 200", r.Status, r.Body)
		}
	}
	if status, _ := c.Status(); status.Runtime.Restarts != 0 {
		t.Errorf("afterwards: got %d restarts, want none", status.Runtime.Restarts)
	}
}

// L15: by default a request can use what the model was trained for, as the header of its file says, and a prompt beyond
// the former 4096 tokens is answered. A larger model.context is bounded, and status and log say so with the numbers.
func TestContext(t *testing.T) {
	file, err := os.Open(harness.Parts(t).Model.File)
	if err != nil {
		t.Fatal(err)
	}
	header, err := gguf.Read(file)
	_ = file.Close()
	if err != nil {
		t.Fatal(err)
	}
	trained := header.Context()
	if trained != 32768 || header.KVBytes() != 18*1*(256+256)*2 {
		t.Fatalf("header of the fixture: got %d tokens and %d bytes for each, want 32768 and 18432", trained, header.KVBytes())
	}
	c := harness.RealHub(t).Companion("")
	c.Extra = []string{"COMPANION_MODEL_CONTEXT=0", "COMPANION_RUNTIME_MAX_IN_FLIGHT=1"}
	c.Start()
	c.SignIn()
	model := c.Available().Model
	if model.ContextTrained != trained || model.ContextAsked != 0 || model.Context < 4096 || (model.Context != trained) != (model.ContextBy == messages.ContextMemory) {
		t.Fatalf("status: got %+v, want the context as trained, or bounded by memory", model)
	}
	if model.Context < 8192 {
		t.Fatalf("this machine has too little free memory for this test: got %+v, want a context of 8192 or more", model)
	}
	prompt := strings.Repeat("word ", 5000)
	reply := c.Door().Do(t.Context(), http.MethodPost, "/chat/completions", `{"messages":[{"role":"user","content":"`+prompt+`"}],"max_tokens":1}`)
	if reply.Status != http.StatusOK {
		t.Errorf("a prompt of 5000 words: got %d %.300s, want 200", reply.Status, reply.Body)
	}
	c.Stop()

	c.Extra = []string{"COMPANION_MODEL_CONTEXT=999999", "COMPANION_RUNTIME_MAX_IN_FLIGHT=1"}
	c.Start()
	model = c.Await("available", time.Minute, func(s messages.Status) bool { return s.CompanionAvailable }).Model
	if model.ContextAsked != 999999 || model.Context > trained || model.ContextTrained != trained {
		t.Errorf("model.context = 999999: got %+v, want at most %d", model, trained)
	}
	if text := c.Must("status"); !strings.Contains(text, fmt.Sprintf("context %d tokens", model.Context)) || !strings.Contains(text, "999999") && model.ContextBy != messages.ContextMemory {
		t.Errorf("status: got %s, want both numbers", text)
	}
	if log := c.Log(); !strings.Contains(log, `"configured":999999`) {
		t.Error("log: got no warning about model.context, want one with the numbers")
	}
	long := strings.Repeat("word ", trained+1000)
	reply = c.Door().Do(t.Context(), http.MethodPost, "/chat/completions", `{"messages":[{"role":"user","content":"`+long+`"}],"max_tokens":1}`)
	if want := fmt.Sprintf("and the context holds %d.", model.Context); reply.Status != http.StatusBadRequest || !strings.Contains(reply.Body, want) || !strings.Contains(reply.Body, "The prompt has 3") {
		t.Errorf("a prompt that does not fit: got %d %.300s, want 400 with its tokens and %q", reply.Status, reply.Body, want)
	}
}
