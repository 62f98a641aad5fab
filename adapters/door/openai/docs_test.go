package openai

import (
	_ "embed"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/api.md")

// The table that checks requests is also their documentation. When this fails, run
// go test ./adapters/door/openai -run TestDocs -update
func TestDocs(t *testing.T) {
	path := filepath.Join("..", "..", "..", "docs", "api.md")
	want := markdown()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/api.md is stale (-got +want): %s", diff)
	}
}

// preface is the text in front of the tables, with names in place of the bounds.
//
//go:embed testdata/preface.md
var preface string

func prefaceWithBounds() string {
	text := preface
	for _, b := range []struct {
		name  string
		bound int
	}{
		{"MEMBERS", maxMembers}, {"DEPTH", maxDepth}, {"SCHEMA", maxSchema}, {"PARTS", maxParts}, {"REFERENCES", maxReferences},
		{"PROPERTIES", maxProperties}, {"NAME", maxPropertyName}, {"REPETITION", maxRepetition}, {"ITEMS", maxItemsBound},
		{"ALLPATTERNS", maxPatternTotal}, {"PATTERN", maxPatternItems}, {"WIDTH", maxWidth}, {"COPIES", maxCopies},
	} {
		text = strings.ReplaceAll(text, b.name, strconv.Itoa(b.bound))
	}
	return text
}

func markdown() string {
	var b strings.Builder
	b.WriteString(prefaceWithBounds())
	for _, r := range []struct {
		title, note string
		route       Route
	}{
		{"POST /v1/chat/completions", "", Chat}, {"POST /v1/completions", "", Completions}, {"POST /v1/embeddings", "", Embeddings},
		{"POST /infill", "The route has no `/v1` in front. A model without tokens for filling in the middle answers 400.\n", Infill},
		{"POST /v1/responses", "", Responses},
		{"POST /v1/messages", "`POST /v1/messages/count_tokens` takes the same body and gives the number of its tokens.\n", Messages},
	} {
		fmt.Fprintf(&b, "\n## %s\n", r.title)
		if r.note != "" {
			b.WriteString("\n" + r.note)
		}
		describeObject(&b, "", forms[r.route].fields)
	}
	return b.String()
}

var decisions = [...]string{accept: "passed", drop: "dropped", refuse: "refused", forbid: "refused, `null` too"}

// describeObject writes the table of an object, and then the tables of the objects inside it.
func describeObject(b *strings.Builder, path string, o *object) {
	if path != "" {
		fmt.Fprintf(b, "\n### `%s`\n", path)
	}
	b.WriteString("\n| field | decision | value | |\n| --- | --- | --- | --- |\n")
	for _, f := range o.fields {
		doc, value, decision := f.doc, "", decisions[f.action]
		if f.required {
			doc += " (required)"
		}
		if f.action == accept {
			value = f.rule.describe()
		}
		if one, ok := f.rule.(only); ok {
			value, decision, doc = "`"+one.value+"`", "dropped; refused if anything else", f.doc+"; "+one.why
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", f.name, decision, value, doc)
	}
	for _, f := range o.fields {
		if f.action == accept {
			describeInside(b, strings.TrimPrefix(path+"."+f.name, "."), f.rule)
		}
	}
}

// describeUnion writes the tables of all types of an object.
func describeUnion(b *strings.Builder, path string, u *union) {
	if len(u.dropped)+len(u.refused) > 0 {
		fmt.Fprintf(b, "\n### `%s`: other types\n\n| type | decision | |\n| --- | --- | --- |\n", path)
		for _, other := range []struct {
			decision string
			types    map[string]string
		}{{"dropped", u.dropped}, {"refused", u.refused}} {
			for _, name := range slices.Sorted(maps.Keys(other.types)) {
				fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, other.decision, other.types[name])
			}
		}
	}
	for _, name := range u.types() {
		switch inside := u.of[name].(type) {
		case *object:
			describeObject(b, path+" of type "+name, inside)
		default:
			describeInside(b, path, inside)
		}
	}
}

func describeInside(b *strings.Builder, path string, r rule) {
	switch r := r.(type) {
	case *object:
		describeObject(b, path, r)
	case *union:
		describeUnion(b, path, r)
	case list:
		describeInside(b, path+"[]", r.of)
	case orEmpty:
		describeInside(b, path, r.rule)
	case content:
		describeInside(b, path, r.parts)
	case hiddenRule:
		describeInside(b, path, r.rule)
	case renamed:
		describeInside(b, path, r.rule)
	case leftOut:
		describeInside(b, path, r.rule)
	case addedTool:
		// as a tool in `tools`
	case formatRule:
		describeObject(b, path, responseFormat)
	case flatFormatRule:
		describeObject(b, path, flatFormat)
	case textRule:
		describeObject(b, path, textOptions)
	case toolRule:
		describeObject(b, path, tool)
	case inputTool:
		describeObject(b, path, anthropicTool)
	case flatTool:
		describeObject(b, path, flatFunction)
	case either:
		for _, k := range []byte{'"', '0', '[', '{'} {
			for kind, sub := range r {
				if byte(kind) == k {
					describeInside(b, path, sub)
				}
			}
		}
	}
}

// L12: every field has a decision, and each one that is not passed has a reason that a person can read.
func TestEveryDecisionHasAReason(t *testing.T) {
	fields := 0
	for _, row := range strings.Split(markdown(), "\n") {
		cells := strings.Split(row, " | ")
		if len(cells) < 3 || !strings.HasPrefix(row, "| `") {
			continue
		}
		fields++
		if reason := strings.TrimSuffix(strings.TrimSpace(cells[len(cells)-1]), "|"); len(strings.TrimSpace(reason)) < 4 {
			t.Errorf("got no reason, want one: %s", row)
		}
	}
	if fields < 300 {
		t.Errorf("found %d fields, want at least 300", fields)
	}
}
