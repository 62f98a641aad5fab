package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"companion/messages"
)

// X3: the program says what the table in docs/cli.md says, in words and in the next step, for every reason.
func TestExplainEveryReason(t *testing.T) {
	document, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| \\d+ \\| ([^|]+) \\| ([^|]+) \\|$").FindAllStringSubmatch(string(document), -1)
	if len(rows) < 80 || len(rows) != len(words) {
		t.Fatalf("got %d rows in the document and %d in the program, want the same number, at least 80", len(rows), len(words))
	}
	for _, row := range rows {
		reason, step := messages.Reason(row[1]), row[3]
		if strings.HasPrefix(step, "–") {
			step = ""
		}
		if words[reason] != row[2] || steps[reason] != step {
			t.Errorf("%s: got %q and %q, want the document's %q and %q", reason, words[reason], steps[reason], row[2], step)
		}
	}
}
