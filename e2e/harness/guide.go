package harness

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Block is one fenced block of commands of a document.
type Block struct {
	Line   int
	Needs  string // a program or library of another project; empty: none
	Script string
}

var fence = regexp.MustCompile("^```sh(?: needs=([a-z0-9-]+))?$")

// Blocks reads the blocks of commands of a document.
func Blocks(t testing.TB, document string) []Block {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	var all []Block
	inside := false
	for i, line := range strings.Split(string(text), "\n") {
		switch opens := fence.FindStringSubmatch(line); {
		case inside && line == "```":
			inside = false
		case inside:
			all[len(all)-1].Script += line + "\n"
		case opens != nil:
			inside = true
			all = append(all, Block{Line: i + 1, Needs: opens[1]})
		case strings.HasPrefix(line, "```sh"):
			t.Errorf("%s:%d: got %q, want ```sh or ```sh needs=PROGRAM", document, i+1, line)
		}
	}
	return all
}
