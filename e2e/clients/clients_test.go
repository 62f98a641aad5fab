//go:build clients

package clients

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"companion/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// clientWithin bounds one client.
const clientWithin = 5 * time.Minute

// L12, L13, L14, X13: real libraries and programs work unchanged, through exec and with an application token.
func TestClients(t *testing.T) {
	installed, err := filepath.Abs("../../.cache/clients")
	if err != nil {
		t.Fatal(err)
	}
	scripts, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	node := func(name string) string { // Node looks for modules in the folder of the script
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		module := filepath.Join(installed, name)
		if err := os.WriteFile(module, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return module
	}
	parts, hub := harness.Parts(t), harness.NewHub(t)
	// A model whose template has tools. It seldom ends an answer by itself, so the context bounds the answers of programs
	// that set no bound.
	hub.Publish("model", harness.ModelName, harness.WithTemplate(t, parts.Model.File, harness.ToolTemplate), "--version", "1", "--default")
	hub.Publish("runtime", harness.RuntimeName, parts.Runtime.File, "--version", parts.Runtime.Version, "--default")
	c := hub.Companion("[model]\ncontext = 8192\n")
	c.Start()
	c.SignIn()
	c.Available()
	token := strings.TrimSpace(c.Must("token", "add", "clients", "--expires", "1h"))
	environment := applicationEnvironment(t, c, token)
	python := filepath.Join(installed, "venv/bin/python")
	try := func(name string, command ...string) {
		t.Run(name, func(t *testing.T) {
			if r := c.Run(append([]string{"exec", "--"}, command...)...); r.Code != 0 || last(r.Stdout) != "ok" {
				t.Errorf("through exec: got status %d\n%s\n%s\nwant 0 and ok", r.Code, r.Stdout, r.Stderr)
			}
			ctx, cancel := context.WithTimeout(t.Context(), clientWithin)
			defer cancel()
			direct := exec.CommandContext(ctx, command[0], command[1:]...)
			direct.Env = environment
			if out, err := direct.CombinedOutput(); err != nil || last(string(out)) != "ok" {
				t.Errorf("with an application token: got %v\n%s\nwant ok", err, out)
			}
		})
	}
	for name, command := range map[string][]string{
		"openai, Python":    {python, filepath.Join(scripts, "openai_client.py")},
		"anthropic, Python": {python, filepath.Join(scripts, "anthropic_client.py")},
		"litellm":           {python, filepath.Join(scripts, "litellm_client.py")},
		"langchain, Python": {python, filepath.Join(scripts, "langchain_client.py")},
		"pydantic-ai":       {python, filepath.Join(scripts, "pydantic_ai_client.py")},
		"openai-agents":     {python, filepath.Join(scripts, "agents_client.py")},
		"llm":               {filepath.Join(scripts, "llm_client.sh"), filepath.Join(installed, "venv/bin/llm")},
		"aider":             {filepath.Join(scripts, "aider_client.sh"), filepath.Join(installed, "aider/bin/aider")},
		"openai, Node":      {"node", node("clients.mjs")},
		"langchain, Node":   {"node", node("langchain.mjs")},
		"ai":                {"node", node("ai.mjs")},
		"codex":             {filepath.Join(scripts, "codex.sh"), filepath.Join(installed, "node_modules/.bin/codex")},
		"langchain4j":       {"java", "-cp", filepath.Join(installed, "java/target/client-1.jar") + ":" + filepath.Join(installed, "java/target/dependency/*"), "Client"},
	} {
		try(name, command...)
	}
	t.Run("openai, Go", func(t *testing.T) {
		baseURL, _ := c.Endpoint()
		client := openai.NewClient(option.WithBaseURL(baseURL), option.WithAPIKey(lookup(environment, "OPENAI_API_KEY")), option.WithMaxRetries(0))
		answer, err := client.Chat.Completions.New(t.Context(), openai.ChatCompletionNewParams{
			Model: harness.ModelName, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Hello.")}, MaxTokens: openai.Int(5),
		})
		if err != nil || len(answer.Choices) != 1 {
			t.Errorf("got %v, %v, want one answer", answer, err)
		}
	})
	status, _ := c.Status()
	if status.Runtime.Restarts != 0 || len(status.FrontDoor.Dropped) == 0 {
		t.Errorf("afterwards: got %d restarts, dropped fields %v, want none and some", status.Runtime.Restarts, status.FrontDoor.Dropped)
	}
	if a := status.FrontDoor.Applications; len(a) != 1 || a[0].Requests < 20 {
		t.Errorf("status: got %+v, want the requests of the application", a)
	}
	// The first prompt of Claude Code has 12,000 tokens. The token stays valid across the restart; the port does not.
	c.Stop()
	c.Edit("context = 8192", "context = 16384")
	c.Start()
	c.Available()
	environment = applicationEnvironment(t, c, token)
	try("claude", filepath.Join(scripts, "claude.sh"), filepath.Join(installed, "node_modules/.bin/claude"))
	c.Stop()
}

// applicationEnvironment is what a program finds that was given a token of its own: the variables of `companion env`, with
// this token.
func applicationEnvironment(t *testing.T, c *harness.Companion, token string) []string {
	t.Helper()
	variables := map[string]string{}
	if err := json.Unmarshal([]byte(c.Must("env", "--shell", "json")), &variables); err != nil {
		t.Fatal(err)
	}
	variables["OPENAI_API_KEY"], variables["ANTHROPIC_AUTH_TOKEN"] = token, token
	all := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + harness.TempDir(t)}
	for name, value := range variables {
		all = append(all, name+"="+value)
	}
	return all
}

func lookup(environment []string, name string) string {
	for _, entry := range environment {
		if value, found := strings.CutPrefix(entry, name+"="); found {
			return value
		}
	}
	return ""
}

// last is the last line.
func last(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
