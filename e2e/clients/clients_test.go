//go:build clients

package clients

import (
	"context"
	"encoding/json"
	"fmt"
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

// matrix is a running companion, and the clients that are installed in a folder.
type matrix struct {
	t           *testing.T
	c           *harness.Companion
	installed   string // the folder
	scripts     string
	environment []string
}

// withTools is the base model with a chat template that has tools. It seldom ends an answer by itself, so the context bounds the
// answers of programs that set no bound.
func withTools(t *testing.T) string {
	return harness.WithTemplate(t, harness.Parts(t).Model.File, harness.ToolTemplate)
}

// ready starts a companion with an application token, which serves a model.
func ready(t *testing.T, folder, model string, context int) *matrix {
	t.Helper()
	installed, err := filepath.Abs("../../.cache/" + folder)
	if err != nil {
		t.Fatal(err)
	}
	scripts, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	parts, hub := harness.Parts(t), harness.NewHub(t)
	hub.Publish("model", harness.ModelName, model, "--version", "1", "--default")
	hub.Publish("runtime", harness.RuntimeName, parts.Runtime.File, "--version", parts.Runtime.Version, "--default")
	c := hub.Companion(fmt.Sprintf("[model]\ncontext = %d\n", context))
	c.Start()
	c.SignIn()
	c.Available()
	token := strings.TrimSpace(c.Must("token", "add", "clients", "--expires", "1h"))
	return &matrix{t, c, installed, scripts, applicationEnvironment(t, c, token)}
}

// node is the command of a script for Node, which looks for modules in the folder of the script.
func (m *matrix) node(node, name string) []string {
	m.t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		m.t.Fatal(err)
	}
	module := filepath.Join(m.installed, name)
	if err := os.WriteFile(module, text, 0o600); err != nil {
		m.t.Fatal(err)
	}
	return []string{node, module}
}

// python is the command of a script for Python.
func (m *matrix) python(name string) []string { return m.pythonOf("venv", name) }

// pythonOf is python for another environment, with other versions of the same libraries.
func (m *matrix) pythonOf(environment, name string) []string {
	return []string{filepath.Join(m.installed, environment, "bin/python"), filepath.Join(m.scripts, name)}
}

// try runs a client through exec and with the application token.
func (m *matrix) try(name string, command ...string) {
	m.t.Run(name, func(t *testing.T) {
		if r := m.c.Run(append([]string{"exec", "--"}, command...)...); r.Code != 0 || last(r.Stdout) != "ok" {
			t.Errorf("through exec: got status %d\n%s\n%s\nwant 0 and ok", r.Code, r.Stdout, r.Stderr)
		}
		ctx, cancel := context.WithTimeout(t.Context(), clientWithin)
		defer cancel()
		direct := exec.CommandContext(ctx, command[0], command[1:]...)
		direct.Env = m.environment
		if out, err := direct.CombinedOutput(); err != nil || last(string(out)) != "ok" {
			t.Errorf("with an application token: got %v\n%s\nwant ok", err, out)
		}
	})
}

// tryGo drives the OpenAI library for Go.
func (m *matrix) tryGo() {
	m.t.Run("openai, Go", func(t *testing.T) {
		baseURL, _ := m.c.Endpoint()
		client := openai.NewClient(option.WithBaseURL(baseURL), option.WithAPIKey(lookup(m.environment, "OPENAI_API_KEY")), option.WithMaxRetries(0))
		answer, err := client.Chat.Completions.New(t.Context(), openai.ChatCompletionNewParams{
			Model: harness.ModelName, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Hello.")}, MaxTokens: openai.Int(5),
		})
		if err != nil || len(answer.Choices) != 1 {
			t.Errorf("got %v, %v, want one answer", answer, err)
		}
	})
}

// check looks at the companion afterwards.
func (m *matrix) check(requests int64) {
	m.t.Helper()
	status, _ := m.c.Status()
	if status.Runtime.Restarts != 0 || len(status.FrontDoor.Dropped) == 0 {
		m.t.Errorf("afterwards: got %d restarts, dropped fields %v, want none and some", status.Runtime.Restarts, status.FrontDoor.Dropped)
	}
	if a := status.FrontDoor.Applications; len(a) != 1 || a[0].Requests < requests {
		m.t.Errorf("status: got %+v, want at least %d requests of the application", a, requests)
	}
}

// L12, L13, L14, X13: the libraries that CI installs work unchanged, through exec and with an application token. TestClients
// has the others.
func TestLibraries(t *testing.T) {
	m := ready(t, "clients-ci", withTools(t), 8192)
	m.try("openai, Python", m.python("openai_client.py")...)
	m.try("anthropic, Python", m.python("anthropic_client.py")...)
	m.try("langchain, Python", m.python("langchain_client.py")...)
	m.try("openai and anthropic, Node", m.node(filepath.Join(m.installed, "venv/bin/node"), "clients.mjs")...)
	m.try("published types", m.python("oracle.py")...)
	m.tryGo()
	m.check(20)
	m.c.Stop()
}

// L12, L13, L14, X13: real libraries and programs work unchanged, through exec and with an application token.
func TestClients(t *testing.T) {
	base := withTools(t)
	m := ready(t, "clients", base, 8192)
	bin := func(name string) string { return filepath.Join(m.installed, name) }
	script := func(name string) string { return filepath.Join(m.scripts, name) }
	for name, command := range map[string][]string{
		"openai, Python":    m.python("openai_client.py"),
		"anthropic, Python": m.python("anthropic_client.py"),
		"litellm":           m.python("litellm_client.py"),
		"langchain, Python": m.python("langchain_client.py"),
		"pydantic-ai":       m.python("pydantic_ai_client.py"),
		"openai-agents":     m.python("agents_client.py"),
		"mirascope":         m.pythonOf("frameworks", "mirascope_client.py"),
		"inspect":           m.pythonOf("frameworks", "inspect_client.py"),
		"semantic-kernel":   m.pythonOf("kernel", "semantic_kernel_client.py"),
		"llm":               {script("llm_client.sh"), bin("venv/bin/llm")},
		"aider":             {script("aider_client.sh"), bin("aider/bin/aider")},
		"openai, Node":      m.node("node", "clients.mjs"),
		"langchain, Node":   m.node("node", "langchain.mjs"),
		"ai":                m.node("node", "ai.mjs"),
		"langchain4j":       {"java", "-cp", bin("java/target/client-1.jar") + ":" + bin("java/target/dependency/*"), "Client"},
		"spring-ai":         {"java", "-cp", bin("spring/target/client-1.jar") + ":" + bin("spring/target/dependency/*"), "SpringClient"},
	} {
		m.try(name, command...)
	}
	m.tryGo()
	m.check(20)
	m.c.Stop()
	// The first prompt of codex has 4,600 tokens.
	m = ready(t, "clients", harness.Instructed(t).File, 6144)
	m.try("codex", script("codex.sh"), bin("node_modules/.bin/codex"))
	m.c.Stop()
	// The first prompt of Claude Code has 12,000 to 17,000 tokens, more than the instructed model takes.
	m = ready(t, "clients", base, 24576)
	m.try("claude", script("claude.sh"), bin("node_modules/.bin/claude"))
	m.c.Stop()
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
