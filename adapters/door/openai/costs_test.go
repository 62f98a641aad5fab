package openai

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// costsFile has patterns and schemas, each followed by its costs. TestGrammarCalibration in e2e measures with the real
// runtime that schemas at the bounds are affordable. It relies on the formulas behind these costs: when one changes,
// run that test again, then this one with -update.
const costsFile = "testdata/costs.txt"

// L6a, T16: the costs from which schemas are refused are those that were measured.
func TestCosts(t *testing.T) {
	data, err := os.ReadFile(costsFile)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	found := 0
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	for i, line := range lines {
		kind, source, _ := strings.Cut(line, " ")
		var got string
		switch kind {
		case "pattern":
			got = patternCosts(source)
		case "schema":
			got = schemaCosts(source)
		default:
			continue
		}
		found++
		fmt.Fprintf(&out, "%s\n\t%s\n", line, got)
		if want := ""; !*update {
			if i+1 < len(lines) {
				want = strings.TrimPrefix(lines[i+1], "\t")
			}
			if got != want {
				t.Errorf("%s: got %s, want %s", line, got, want)
			}
		}
	}
	if found < 150 {
		t.Errorf("found %d patterns and schemas, want at least 150", found)
	}
	if *update {
		if err := os.WriteFile(costsFile, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func patternCosts(source string) string {
	p, err := parsePattern([]byte(source))
	if err != nil {
		return "refused: " + err.Error()
	}
	return fmt.Sprintf("width %d, paths %d, rules %d, items %d: %s", p.cost.width, p.cost.paths, p.cost.rules, p.items, p.text)
}

func schemaCosts(source string) string {
	r := readers.New().(*reader)
	r.source = *bytes.NewBufferString(source)
	r.dec.Reset(&r.source, jsontext.AllowDuplicateNames(true))
	r.schemas.reset()
	if err := (schema{}).read(r); err != nil {
		return "refused: " + err.Param + ": " + err.Error()
	}
	g, targets, err := r.schemas.prepare(Chat)
	if err != nil {
		return "refused: " + err.Param + ": " + err.Error()
	}
	var all []string
	for _, target := range targets {
		left, err := g.left(target.node)
		if err != nil {
			return "refused: " + err.Error()
		}
		build, err := g.build(target.node)
		if err != nil {
			return "refused: " + err.Error()
		}
		cost, err := g.cost(target.node)
		if err != nil {
			return "refused: " + err.Error()
		}
		g.total += build
		all = append(all, fmt.Sprintf("width %d, paths %d, copies %d, heads %b, left %d, build %d", cost.width, cost.paths, cost.copies, cost.heads, left, build))
	}
	return fmt.Sprintf("%s; total %d: %s", strings.Join(all, "; "), g.total, r.out)
}
