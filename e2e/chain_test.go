package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"companion/adapters/authority/keychain"
	"companion/e2e/harness"
	"companion/messages"
)

// The whole chain with real parts: sign in, manifest, download, verify, spawn, health, available, chat,
// enrich, log out, shutdown, and a second start without the hub.
func TestChain(t *testing.T) {
	c := harness.RealHub(t).Companion("")
	began := time.Now()
	stage := func(name string) {
		t.Logf("%6.2f s  %s", time.Since(began).Seconds(), name)
	}
	daemon := c.Start()
	if status, _ := c.Status(); status.CompanionAvailable || status.Session.State != messages.SessionSignedOut {
		t.Fatalf("before the sign-in: got available %v, session %s, want false and signed out", status.CompanionAvailable, status.Session.State)
	}
	stage("daemon answers")
	watch := c.Watch()
	c.SignIn()
	stage("signed in")
	if who := c.Must("whoami"); !strings.Contains(strings.ToLower(who), harness.User) {
		t.Errorf("whoami says %q, want %s", who, harness.User)
	}
	status := watch.Await("available", harness.AvailableWithin, func(s messages.Status) bool { return s.CompanionAvailable })
	stage("manifest, download, verify, spawn, health: available")
	checkReady(t, status, daemon.PID)
	checkModels(t, c.Must("models", "--json"))

	baseURL, token := c.Endpoint()
	checkOpenAIClient(t, baseURL, token)
	stage("the OpenAI client's list, chat, stream and completion")
	if out := c.Must("chat", "--max-tokens", "24", "Name three planets."); strings.TrimSpace(out) == "" {
		t.Error("got an empty chat answer, want text")
	}
	if out := c.RunWith("Name three rivers.", "chat", "--max-tokens", "24"); out.Code != 0 || strings.TrimSpace(out.Stdout) == "" {
		t.Errorf("chat from standard input: got exit %d, %q, want 0 and an answer", out.Code, out.Stdout)
	}
	stage("chat")
	checkExec(t, c, baseURL)
	checkEnrich(t, c, status)
	stage("enriched")

	c.Must("logout")
	if _, found := c.Secret(keychain.AccessToken); found {
		t.Error("the access token is in the keychain after logout, want it removed")
	}
	// O9, R13: the loopback token is not touched, and verified artifacts continue to serve, in a new runtime that
	// holds no prompt.
	before := status.Runtime.PID
	watch.Await("the end of the runtime", harness.AvailableWithin, func(s messages.Status) bool { return !s.CompanionAvailable })
	status = watch.Await("another runtime", harness.AvailableWithin, func(s messages.Status) bool { return s.CompanionAvailable })
	if status.Runtime.PID == before {
		t.Errorf("after logout: got process %d again, want another", before)
	}
	if status.Session.State != messages.SessionSignedOut || status.Runtime.Restarts != 0 {
		t.Errorf("after logout: got session %s and %d crashes, want signed out and none", status.Session.State, status.Runtime.Restarts)
	}
	if out := c.Must("chat", "--max-tokens", "4", "One more word."); strings.TrimSpace(out) == "" {
		t.Error("got an empty chat answer after logout, want text")
	}
	stage("signed out")
	checkShutdown(t, c, watch, status.Runtime.PID)
	stage("shut down")

	// A second start needs neither sign-in nor network for verified artifacts (M1).
	c.Hub.Stop()
	c.Start()
	second := c.Available()
	stage("available again, hub gone")
	if second.Runtime.PID == status.Runtime.PID || !reflect.DeepEqual(second.Model, status.Model) {
		t.Errorf("the second start serves %+v by process %d, want %+v by another process than %d", second.Model, second.Runtime.PID, status.Model, status.Runtime.PID)
	}
	c.Stop()
}

// checkReady compares the whole status of a ready companion with the facts (X3, A5).
func checkReady(t *testing.T, s messages.Status, pid int) {
	t.Helper()
	if s.PID != pid || s.Lifecycle != messages.StateReady || s.Reason != messages.ReasonOK {
		t.Errorf("got process %d, lifecycle %s, reason %s, want %d, ready, ok", s.PID, s.Lifecycle, s.Reason, pid)
	}
	f := s.Facts
	if !f.Verified || !f.Ready || !f.Bound || !f.Token || !f.HealthRecent || f.LastHealth == nil {
		t.Errorf("available with the facts %+v, want all true", f)
	}
	if s.Model.Name != harness.ModelName || !s.Model.Verified || s.Model.Grace {
		t.Errorf("got model %+v, want %s, verified, not in grace", s.Model, harness.ModelName)
	}
	r := s.Runtime
	if r.Name != harness.RuntimeName || r.PID == 0 || r.BackEnd != "unix" || !r.Pinned || r.Restarts != 0 || r.LastExit != nil {
		t.Errorf("got runtime %+v, want %s, pinned, on a Unix socket, without restarts or exit", r, harness.RuntimeName)
	}
	if s.Session.State != messages.SessionSignedIn || !strings.Contains(strings.ToLower(s.Session.User), harness.User) {
		t.Errorf("got session %+v, want %s signed in", s.Session, harness.User)
	}
	if s.Manifest.Version < 1 || s.Manifest.Expires == nil || s.Manifest.CheckedAt == nil {
		t.Errorf("got manifest %+v, want its version, expiry and time of the check", s.Manifest)
	}
	for _, actor := range s.Actors {
		if actor.Restarts != 0 {
			t.Errorf("%s was restarted %d times, want 0: %s", actor.Name, actor.Restarts, actor.LastError)
		}
	}
	if len(s.Actors) != 11 {
		t.Errorf("%d actors are shown, want all eleven", len(s.Actors))
	}
}

func checkModels(t *testing.T, out string) {
	t.Helper()
	var list struct{ Models []messages.ModelRow }
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Models) != 1 {
		t.Fatalf("models --json: got %v: %s, want one model", err, out)
	}
	m := list.Models[0]
	if m.Name != harness.ModelName || !m.Default || !m.Selected || !m.Here || !m.Verified || m.Size != 253113024 {
		t.Errorf("the model is listed as %+v, want %s, default, selected, verified, 253113024 bytes", m, harness.ModelName)
	}
}

// checkOpenAIClient uses the official client as any program would (L5, X4).
func checkOpenAIClient(t *testing.T, baseURL, token string) {
	t.Helper()
	ctx := t.Context()
	client := openai.NewClient(option.WithBaseURL(baseURL), option.WithAPIKey(token), option.WithMaxRetries(0))
	list, err := client.Models.List(ctx)
	if err != nil || len(list.Data) != 1 || list.Data[0].ID != harness.ModelName {
		t.Fatalf("got models %+v, %v, want only %s", list, err, harness.ModelName)
	}
	question := openai.ChatCompletionNewParams{
		Model: harness.ModelName, MaxTokens: openai.Int(16), Seed: openai.Int(7),
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Count to five.")},
	}
	chat, err := client.Chat.Completions.New(ctx, question)
	if err != nil || len(chat.Choices) != 1 || chat.Choices[0].Message.Content == "" || chat.Model != harness.ModelName {
		t.Fatalf("chat: got %+v, %v, want one answer of %s", chat, err, harness.ModelName)
	}
	stream := client.Chat.Completions.NewStreaming(ctx, question)
	var text strings.Builder
	events := 0
	for stream.Next() {
		for _, choice := range stream.Current().Choices {
			text.WriteString(choice.Delta.Content)
		}
		events++
	}
	if err := errors.Join(stream.Err(), stream.Close()); err != nil || events < 3 {
		t.Fatalf("streamed chat: got %d events, %v, want at least 3", events, err)
	}
	if text.String() != chat.Choices[0].Message.Content {
		t.Errorf("got %q from the stream, want the text of the answer with the same seed: %q", text.String(), chat.Choices[0].Message.Content)
	}
	completion, err := client.Completions.New(ctx, openai.CompletionNewParams{
		Model: harness.ModelName, MaxTokens: openai.Int(8),
		Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("The capital of France is")},
	})
	if err != nil || len(completion.Choices) != 1 || completion.Choices[0].Text == "" {
		t.Fatalf("completion: got %+v, %v, want one answer", completion, err)
	}
	// The model computes no embeddings, and the error says so.
	_, err = client.Embeddings.New(ctx, openai.EmbeddingNewParams{Model: harness.ModelName,
		Input: openai.EmbeddingNewParamsInputUnion{OfString: openai.String("x")}})
	var refused *openai.Error
	if !errors.As(err, &refused) || refused.StatusCode != 400 {
		t.Errorf("embeddings: %v, want a clear 400", err)
	}
}

// checkExec runs a program with the variables set, and takes its exit code (X4).
func checkExec(t *testing.T, c *harness.Companion, baseURL string) {
	t.Helper()
	r := c.Run("exec", "--", "sh", "-c", `echo "$OPENAI_BASE_URL"; test -n "$OPENAI_API_KEY" && exit 7`)
	if r.Code != 7 || strings.TrimSpace(r.Stdout) != baseURL {
		t.Errorf("exec: got code %d, %q, want 7, %q", r.Code, r.Stdout, baseURL)
	}
}

const note = `---
title: Garden
---
The tomatoes want more sun than the north bed gives them. Move them in May, and ask Ines about the compost.
`

// checkEnrich turns a note into JSON with provenance (E6).
func checkEnrich(t *testing.T, c *harness.Companion, s messages.Status) {
	t.Helper()
	file := filepath.Join(c.Home, "garden.md")
	if err := os.WriteFile(file, []byte(note), 0o600); err != nil {
		t.Fatal(err)
	}
	var result struct {
		Summary       string    `json:"summary"`
		Tags          []string  `json:"tags"`
		OpenQuestions *[]string `json:"open_questions"`
		Provenance    struct {
			GeneratedBy   string    `json:"generated_by"`
			Model         string    `json:"model"`
			ModelVersion  string    `json:"model_version"`
			Lane          string    `json:"lane"`
			CreatedAt     time.Time `json:"created_at"`
			SourceEventID string    `json:"source_event_id"`
		} `json:"provenance"`
	}
	out := c.Must("enrich", file)
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		t.Fatalf("enrich printed %q: %v", out, err)
	}
	p := result.Provenance
	if result.Summary == "" || result.OpenQuestions == nil || p.GeneratedBy == "" || p.Model != s.Model.Name ||
		p.ModelVersion != s.Model.Version || p.Lane != "local" || time.Since(p.CreatedAt) > time.Minute || p.SourceEventID == "" {
		t.Errorf("got note %s, want a summary, open questions and the provenance of this model", out)
	}
}

// checkShutdown ends the daemon by a signal (X7): in order, nothing left.
func checkShutdown(t *testing.T, c *harness.Companion, watch *harness.Watch, runtime int) {
	t.Helper()
	c.Stop()
	watch.Await("not available", time.Second, func(s messages.Status) bool { return !s.CompanionAvailable })
	if alive(runtime) {
		t.Errorf("the runtime %d outlived the daemon, want it ended", runtime)
	}
	if _, found := c.Secret(keychain.LoopbackToken); found {
		t.Error("the loopback token is still in the keychain (K6)")
	}
	if r := c.Run("status"); r.Code != 3 {
		t.Errorf("status without a daemon: exit %d, want 3", r.Code)
	}
	if r := c.Run("env"); r.Code != 3 || strings.Contains(r.Stdout, "OPENAI") {
		t.Errorf("env without a daemon: got exit %d, %q, want 3 and no variables", r.Code, r.Stdout)
	}
	err := filepath.WalkDir(c.RunTime(), func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type() == os.ModeSocket {
			t.Errorf("a socket is left: %s, want none", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// alive reports whether the process exists and is no zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}
