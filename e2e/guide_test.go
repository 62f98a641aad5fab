package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"companion/e2e/harness"
)

// block is one fenced block of commands of a document.
type block struct {
	line   int
	needs  string // a program or library of another project
	script string
}

var fence = regexp.MustCompile("^```sh(?: needs=([a-z0-9-]+))?$")

// blocks reads the blocks of commands of a document.
func blocks(t *testing.T, document string) []block {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	var all []block
	inside := false
	for i, line := range strings.Split(string(text), "\n") {
		switch opens := fence.FindStringSubmatch(line); {
		case inside && line == "```":
			inside = false
		case inside:
			all[len(all)-1].script += line + "\n"
		case opens != nil:
			inside = true
			all = append(all, block{line: i + 1, needs: opens[1]})
		case strings.HasPrefix(line, "```sh"):
			t.Errorf("%s:%d: got %q, want ```sh or ```sh needs=PROGRAM", document, i+1, line)
		}
	}
	return all
}

// installed reports whether a program, or a library for Python, is here.
func installed(name string) bool {
	if _, err := exec.LookPath(name); err == nil {
		return true
	}
	return exec.Command("python3", "-c", "import "+name).Run() == nil
}

// X3: every command of the guide works as it is written, in its order, against the real daemon.
func TestGuide(t *testing.T) {
	all := blocks(t, "../docs/guide.md")
	if len(all) < 8 {
		t.Fatalf("got %d blocks in docs/guide.md, want at least 8", len(all))
	}
	c := harness.RealHub(t).Companion("")
	c.Start()
	folder := filepath.Join(c.Home, "work")
	// The browser of the guide's reader: it opens the page and trusts the hub, which signs in without a question.
	browser := filepath.Join(c.Home, "browser")
	config, err := os.ReadFile(c.ConfigFile())
	if err != nil {
		t.Fatal(err)
	}
	ca := regexp.MustCompile(`ca_file = "([^"]+)"`).FindSubmatch(config)
	if ca == nil {
		t.Fatalf("got no ca_file, want one in\n%s", config)
	}
	script := fmt.Sprintf("#!/bin/sh\nexec curl -sSL --max-time 20 --cacert '%s' \"$1\" >/dev/null\n", ca[1])
	if err := os.WriteFile(browser, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		t.Run(fmt.Sprintf("line %d", b.line), func(t *testing.T) {
			if b.needs != "" && !installed(b.needs) {
				t.Skipf("%s is not installed here: this block is not proven", b.needs)
			}
			if r := c.Shell(folder, b.script, "BROWSER="+browser); r.Code != 0 {
				t.Errorf("docs/guide.md:%d: got status %d, want 0:\n%s\n%s%s", b.line, r.Code, b.script, r.Stdout, r.Stderr)
			}
		})
	}
	for _, made := range []string{"editor.token", "companion.prom", "companion.bash", "man1/companion-status.1"} {
		if info, err := os.Stat(filepath.Join(folder, made)); err != nil || info.Size() == 0 {
			t.Errorf("got no %s after the guide, want it", made)
		}
	}
}
