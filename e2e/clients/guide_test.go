//go:build clients

package clients

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"companion/e2e/harness"
)

// X3: the blocks of docs/guide.md that need a program of another project work as they are written. TestGuide in e2e runs
// the others.
func TestGuideWithPrograms(t *testing.T) {
	installed, err := filepath.Abs("../../.cache/clients")
	if err != nil {
		t.Fatal(err)
	}
	var path []string
	for _, dir := range []string{"venv/bin", "aider/bin", "node_modules/.bin"} {
		path = append(path, filepath.Join(installed, dir))
	}
	parts, hub := harness.Parts(t), harness.NewHub(t)
	// The instructed model ends its answers. Only the other has a context for Claude Code, which bounds the answer itself.
	const long = "long-context"
	hub.Publish("model", harness.ModelName, harness.Instructed(t).File, "--version", "1", "--default")
	hub.Publish("model", long, harness.WithTemplate(t, parts.Model.File, harness.ToolTemplate), "--version", "1")
	hub.Publish("runtime", harness.RuntimeName, parts.Runtime.File, "--version", parts.Runtime.Version, "--default")
	c := hub.Companion("[model]\ncontext = 16384\n") // the first prompt of Claude Code has 12,000 tokens
	c.Start()
	c.SignIn()
	c.Available()
	folder := filepath.Join(c.Home, "work")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	// What a block of the guide makes for a program.
	makes := map[string]string{"cn": "continue.yaml"}
	ran := 0
	all := harness.Blocks(t, "../../docs/guide.md")
	for _, b := range all {
		program := b.Needs
		if program == "" {
			continue
		}
		ran++
		t.Run(fmt.Sprintf("line %d, %s", b.Line, program), func(t *testing.T) {
			script := b.Script
			if program == "claude" {
				c.Must("use", long)
				defer c.Must("use", "--default")
			}
			for _, other := range all {
				if file := makes[program]; file != "" && other.Needs == "" && strings.Contains(other.Script, "> "+file) {
					script = other.Script + script
				}
			}
			r := c.Shell(folder, "PATH="+strings.Join(path, ":")+":$PATH\n"+script, "HOME="+c.Home)
			if said := strings.TrimSpace(r.Stdout); r.Code != 0 || said == "" || strings.Contains(r.Stdout+r.Stderr, "Traceback") {
				t.Errorf("docs/guide.md:%d: got status %d, want 0 and an answer:\n%s\n%s%s", b.Line, r.Code, b.Script, r.Stdout, r.Stderr)
			}
		})
	}
	if ran < 5 {
		t.Errorf("got %d blocks that need a program, want openai, aider, claude, codex and cn", ran)
	}
	if status, _ := c.Status(); status.FrontDoor.Verdicts["ok"] < int64(ran) {
		t.Errorf("got %d answers, want one for each of %d programs at least", status.FrontDoor.Verdicts["ok"], ran)
	}
}
