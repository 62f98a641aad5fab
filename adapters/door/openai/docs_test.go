package openai

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/api.md anew")

// Issue 4: the table that checks requests is also their documentation. When this fails, run
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
		t.Errorf("docs/api.md is stale: %s", diff)
	}
}

const preface = `# The inference endpoint

Generated from the table in ` + "`adapters/door/openai/table.go`" + `; change it there.

The base URL is what ` + "`companion env`" + ` prints. Every request needs its token, as
` + "`Authorization: Bearer …`" + ` or ` + "`x-api-key`" + `. Bodies are ` + "`application/json`" + `. A field that is
` + "`null`" + ` counts as absent, but for those that are said to be refused ` + "`null` or not" + `. Fields that no table
names are refused, and the error names them.

| route | does |
| --- | --- |
| ` + "`GET /v1/models`" + ` | names the served model and its context (` + "`meta.n_ctx`" + `); takes no place in the queue |
| ` + "`POST /v1/chat/completions`" + ` | answers a conversation, at once or as a stream |
| ` + "`POST /v1/completions`" + ` | goes on from a text |
| ` + "`POST /v1/embeddings`" + ` | vectors, when the model is an embedding model; a clear 400 when it is not |

A stream may hold comments (` + "`: keep-alive`" + `) while a long prompt is being read. A stream that breaks off
ends with an event that holds an ` + "`error`" + ` object.

A stream waits for its reader: the system buffers what is not read yet, and when its buffers are full the model
waits too. Each event must then be taken within ` + "`front_door.stall_timeout`" + ` (30 s, measured to a quarter), and an answer
that is no stream as a whole; a reader that takes longer, also one that takes a few bytes now and then, is cut off,
because others wait for its place. A slow reader that keeps within that is never cut off.
`

func markdown() string {
	var b strings.Builder
	b.WriteString(preface)
	for _, r := range []struct {
		title string
		route Route
	}{{"POST /v1/chat/completions", Chat}, {"POST /v1/completions", Completions}, {"POST /v1/embeddings", Embeddings}} {
		fmt.Fprintf(&b, "\n## %s\n", r.title)
		describeObject(&b, "", routes[r.route])
	}
	return b.String()
}

// describeObject writes one table, and then those of the objects inside it.
func describeObject(b *strings.Builder, path string, o *object) {
	if path != "" {
		fmt.Fprintf(b, "\n### `%s`\n", path)
	}
	b.WriteString("\n| field | value | |\n| --- | --- | --- |\n")
	byAction := map[action][]string{}
	for _, f := range o.fields {
		if f.action != accept {
			byAction[f.action] = append(byAction[f.action], "`"+f.name+"`")
			continue
		}
		doc := f.doc
		if f.required {
			doc += " (required)"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", f.name, f.rule.describe(), doc)
	}
	for _, a := range []struct {
		action action
		title  string
	}{{drop, "Taken and left out"}, {refuse, "Refused"}, {forbid, "Refused, `null` or not"}} {
		if names := byAction[a.action]; len(names) > 0 {
			slices.Sort(names)
			fmt.Fprintf(b, "\n%s: %s.\n", a.title, strings.Join(names, ", "))
		}
	}
	for _, f := range o.fields {
		if f.action == accept {
			describeInside(b, strings.TrimPrefix(path+"."+f.name, "."), f.rule)
		}
	}
}

func describeInside(b *strings.Builder, path string, r rule) {
	switch r := r.(type) {
	case *object:
		describeObject(b, path, r)
	case list:
		describeInside(b, path+"[]", r.of)
	case hiddenRule:
		describeInside(b, path, r.rule)
	case formatRule:
		describeObject(b, path, responseFormat)
	case toolRule:
		describeObject(b, path, tool)
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
