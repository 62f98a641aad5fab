package docs

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	requirement = regexp.MustCompile(`(?m)^\*\*([A-Z]\d+[a-z]?)\. `)
	threat      = regexp.MustCompile(`(?m)^\| (T\d+) \|`)
	number      = regexp.MustCompile(`\b([LOKMRPAECXJT]\d{1,2}[a-z]?)\b`)
)

// notBuilt are the requirements that no test proves yet, each with the issue that brings it. Remove an entry with the
// test that proves it: the test below fails for an entry that is proven or not defined.
var notBuilt = map[string]string{}

// notNumbers are words of comments and documents that look like numbers of requirements and are none.
var notNumbers = map[string]string{
	"C0": "control characters",
}

// defined lists the numbers of requirements and threats, in the order of their documents.
func defined(t *testing.T) []string {
	t.Helper()
	var numbers []string
	for _, match := range requirement.FindAllStringSubmatch(read(t, "docs/contract.md"), -1) {
		numbers = append(numbers, match[1])
	}
	requirements := len(numbers)
	for _, match := range threat.FindAllStringSubmatch(read(t, "docs/threats.md"), -1) {
		numbers = append(numbers, match[1])
	}
	if threats := len(numbers) - requirements; requirements < 100 || threats < 17 {
		t.Fatalf("found %d requirements and %d threats, want at least 100 and 17", requirements, threats)
	}
	for i, n := range numbers {
		if slices.Contains(numbers[:i], n) {
			t.Errorf("%s is defined twice", n)
		}
	}
	return numbers
}

// Every number that a comment or a document cites is defined in docs/contract.md or docs/threats.md.
func TestCitedNumbersAreDefined(t *testing.T) {
	known, s, cited := defined(t), load(t), 0
	for _, l := range slices.Concat(s.comments, s.docs) {
		for _, n := range number.FindAllString(l.text, -1) {
			cited++
			if _, word := notNumbers[n]; !word && !slices.Contains(known, n) {
				t.Errorf("%s:%d cites %s, which is not defined: %s", l.file, l.number, n, strings.TrimSpace(l.text))
			}
		}
	}
	if cited < 1000 {
		t.Errorf("found %d citations, want at least 1000", cited)
	}
}

// Every requirement and every threat is named by a test, or is on the list of what is not built yet.
func TestRequirementsAreProven(t *testing.T) {
	known, proven := defined(t), map[string]bool{}
	for _, l := range load(t).comments {
		if strings.HasSuffix(l.file, "_test.go") && !strings.HasPrefix(l.file, "supervisor/walls/docs/") {
			for _, n := range number.FindAllString(l.text, -1) {
				proven[n] = true
			}
		}
	}
	for _, n := range known {
		_, listed := notBuilt[n]
		switch {
		case !proven[n] && !listed:
			t.Errorf("no test names %s: add `// %s` to the test that proves it", n, n)
		case proven[n] && listed:
			t.Errorf("a test names %s: remove it from notBuilt", n)
		}
	}
	for n := range notBuilt {
		if !slices.Contains(known, n) {
			t.Errorf("notBuilt has %s, which is not defined", n)
		}
	}
}

// docs/reasons.md has every reason of the program and no other.
func TestReasonsAreDocumented(t *testing.T) {
	table, _, found := strings.Cut(read(t, "docs/reasons.md"), "\nHTTP statuses:")
	if !found {
		t.Fatal("docs/reasons.md has no HTTP statuses")
	}
	var documented, real []string
	for row := range strings.Lines(table) {
		if strings.HasPrefix(row, "| ") {
			for _, match := range regexp.MustCompile("`([a-z0-9_]+)`").FindAllStringSubmatch(row, -1) {
				documented = append(documented, match[1])
			}
		}
	}
	for _, match := range regexp.MustCompile(`Reason\w+\s+Reason = "(\w+)"`).FindAllStringSubmatch(read(t, "messages/reason.go"), -1) {
		real = append(real, match[1])
	}
	if len(real) < 80 {
		t.Fatalf("found %d reasons, want at least 80", len(real))
	}
	for _, reason := range real {
		if !slices.Contains(documented, reason) {
			t.Errorf("docs/reasons.md does not have %s", reason)
		}
	}
	for _, reason := range documented {
		if !slices.Contains(real, reason) {
			t.Errorf("docs/reasons.md has %s, which messages/reason.go does not", reason)
		}
	}
}
