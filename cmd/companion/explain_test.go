package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
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

// X3: each code of a failure that is not a reason has a row in docs/cli.md that says what to do, and each row has
// such a code.
func TestDocumentEveryCode(t *testing.T) {
	codes := map[string]bool{}
	for pattern, literal := range map[string]*regexp.Regexp{
		"*.go":                           regexp.MustCompile(`(?:code: |notesFailed = |usageFailure|\.failed\()"?(\w+)"`),
		"../../adapters/completion/*.go": regexp.MustCompile(`(?:limitError\{|\.failed\()"(\w+)"`),
	} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: got %d files, %v; want some", pattern, len(files), err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, found := range literal.FindAllStringSubmatch(string(source), -1) {
				if _, reason := words[messages.Reason(found[1])]; !reason {
					codes[found[1]] = true
				}
			}
		}
	}
	document, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(document), "### Codes of the command line\n")
	table, _, _ = strings.Cut(table, "\n## ")
	rows := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([^|]+) \\| ([^|]+) \\|$").FindAllStringSubmatch(table, -1)
	if len(rows) < 30 {
		t.Fatalf("got %d rows, want at least 30", len(rows))
	}
	for _, row := range rows {
		if !codes[row[1]] {
			t.Errorf("%s: got a row in docs/cli.md, want none: the program has no such code", row[1])
		}
		delete(codes, row[1])
	}
	for code := range codes {
		t.Errorf("%s: got no row under \"Codes of the command line\" in docs/cli.md, want one", code)
	}
	// A reason without a next step is one after which nothing is to be done.
	for reason := range words {
		if steps[reason] == "" && exitOf(reason) != exitDone && reason != messages.ReasonSessionRefresh {
			t.Errorf("%s: got no next step, want one", reason)
		}
	}
}

// X9: every failure of a precondition ends with a check that there is. What needs none is about the request, the browser's answer
// or the program itself, and its message says all.
func TestEveryReasonHasItsCheck(t *testing.T) {
	var names []string
	for _, c := range checks {
		names = append(names, c.name)
	}
	none := " malformed_request method_not_allowed host_not_allowed cross_site_forbidden rate_state_unavailable rate_limited missing_token " +
		"invalid_token unknown_path model_not_found bad_request body_too_large request_ends_runtime malformed_request_params malformed_input " +
		"authorization_server_error state_missing state_mismatch missing_code invalid_redirect_uri browser_failed sign_in_replaced device_unsupported " +
		"cloud_consent_required lane_policy_denied "
	for reason := range words {
		name := explains(&failure{code: string(reason), exit: exitOf(reason)})
		switch {
		case exitOf(reason) == exitDone:
		case name == "" && !strings.Contains(none, " "+string(reason)+" "):
			t.Errorf("%s: got no check, want the one that explains it", reason)
		case name != "" && (!slices.Contains(names, name) || strings.Contains(none, " "+string(reason)+" ")):
			t.Errorf("%s: got the check %q, want none or one of %v", reason, name, names)
		}
	}
	for code, name := range checkOfCode {
		if !slices.Contains(names, name) {
			t.Errorf("%s: got the check %q, want one of %v", code, name, names)
		}
	}
}
