package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"companion/adapters/completion"
	"companion/adapters/completion/lane"
)

// smallContext is an endpoint whose context holds most messages, and that notes what it was sent.
func smallContext(t *testing.T, most int) (*completion.Client, *[][]string) {
	t.Helper()
	var sent [][]string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Messages []struct{ Role, Content string }
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		if len(body.Messages) > most {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":{"message":"The prompt does not fit the context of 4096 tokens.","type":"invalid_request_error","code":"bad_request","param":null}}`)
			return
		}
		var all []string
		for _, m := range body.Messages {
			all = append(all, m.Content)
		}
		sent = append(sent, all)
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"answer %d\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n", len(sent))
	}))
	t.Cleanup(server.Close)
	client := completion.New(completion.Target{BaseURL: server.URL, Model: "m", Local: true})
	t.Cleanup(client.Close)
	return client, &sent
}

// A conversation that outgrows the context goes on without its oldest messages, says so once, and keeps the system
// message.
func TestOldestMessagesLeave(t *testing.T) {
	client, sent := smallContext(t, 4) // the system message, a question with its answer, and the new question
	said, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c := &conversation{app: &app{in: null, out: null, err: said}, client: client, context: 4096, out: &out,
		system: []completion.Message{{Role: "system", Content: "be short"}}}
	for i := range 5 {
		if err := c.ask(t.Context(), fmt.Sprintf("question %d", i+1)); err != nil {
			t.Fatalf("question %d: %v", i+1, err)
		}
	}
	last := strings.Join((*sent)[4], ", ")
	if want := "be short, question 4, answer 4, question 5"; last != want {
		t.Errorf("got the messages %q, want %q", last, want)
	}
	text, err := os.ReadFile(said.Name())
	if err != nil || strings.Count(string(text), "oldest messages are left out") != 1 {
		t.Errorf("got %q, %v; want it said once", text, err)
	}
	if !strings.Contains(out.String(), "answer 5\n") {
		t.Errorf("got %q, want all answers", out.String())
	}
}

// One message that is too long alone is an error that says so, and the conversation stays as it was.
func TestOneMessageTooLong(t *testing.T) {
	client, _ := smallContext(t, 0)
	c := &conversation{app: &app{out: os.Stdout, err: os.Stderr}, client: client, context: 4096, out: &bytes.Buffer{}}
	err := c.ask(t.Context(), "long")
	var f *failure
	if !errors.As(err, &f) || f.message != "the prompt is too long for the 4096-token context" || !strings.Contains(f.hint, "model.context") || len(c.turns) != 0 {
		t.Errorf("got %v and %d messages, want the error and none", err, len(c.turns))
	}
}

// A conversation outlives the daemon: while it is away the message is refused, and afterwards it goes on at the new address,
// with the earlier turns and the attached file.
func TestConversationOutlivesTheDaemon(t *testing.T) {
	first, _ := smallContext(t, 9)
	second, sent := smallContext(t, 9)
	away := errors.New("away")
	said, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	gone := completion.New(completion.Target{BaseURL: "http://127.0.0.1:1/v1", Model: "m", Local: true})
	t.Cleanup(gone.Close)
	a := &app{in: said, out: said, err: said}
	c := &conversation{app: a, client: first, context: 4096, lane: lane.Local, out: &bytes.Buffer{}}
	c.reopen = func(context.Context) (*conversation, error) {
		if away != nil {
			return nil, &failure{code: "not_running", message: "the companion is not running", exit: exitNotRunning}
		}
		return &conversation{client: second, context: 4096, model: "m"}, nil
	}
	in := newChatInput(nil, func() {})
	say := func(line string) {
		t.Helper()
		if done, err := a.chatLine(t.Context(), c, in, line); done || err != nil {
			t.Errorf("%s: got an end, %v; want the conversation to go on", line, err)
		}
	}
	say("one")
	c.client = gone
	c.attached = []attachment{{name: "f", text: "file f"}}
	say("two")
	away = nil
	say("three")
	if len(*sent) != 1 || strings.Join((*sent)[0], ", ") != "one, answer 1, file f\n\nthree" {
		t.Errorf("got the messages %q at the new daemon, want the earlier turns, the file and the last message", *sent)
	}
	if text, err := os.ReadFile(said.Name()); err != nil || strings.Count(string(text), "the companion is not running") != 1 {
		t.Errorf("got %q, %v; want it said once that the daemon is away", text, err)
	}
}

// The endpoint's own words for a prompt that is too long are the ones that the client looks for.
func TestTooLongIsTheEndpointsWord(t *testing.T) {
	source, err := os.ReadFile("../../actors/door/frontdoor/answer.go")
	if err != nil || !strings.Contains(string(source), "does not fit the context of") {
		t.Errorf("got another text in the endpoint's answers (%v), want does not fit the context of, which completion.Error.TooLong needs", err)
	}
}
