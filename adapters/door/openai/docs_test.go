package openai

import (
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

const preface = `# The inference endpoint

Generated from the tables in ` + "`adapters/door/openai`" + `; change it there.

The base URL is what ` + "`companion env`" + ` prints. Every request needs its token, as
` + "`Authorization: Bearer …`" + ` or ` + "`x-api-key`" + `, or as both with the same value. Bodies are ` + "`application/json`" + `.

Each field has one decision:

- **passed:** the value is checked and written again for the runtime; a few are lowered or translated, as the row says;
- **dropped:** the field is left out, and the row says why that is harmless. ` + "`companion status` and `companion metrics`" + `
  count it;
- **refused:** the answer is 400. Its message names the field and the reason.

A field that is ` + "`null`" + ` counts as absent, except those that are listed as refused ` + "`null` too" + `. A field that no table
lists is refused, and the error names it; with ` + "`front_door.unknown_fields = \"drop\"`" + ` it is dropped.

| route | does |
| --- | --- |
| ` + "`GET /v1/models`" + ` | names the served model and its context (` + "`meta.n_ctx`" + `); takes no place in the queue |
| ` + "`GET /v1/models/{id}`" + ` | the same of the model with this name; 404 for another |
| ` + "`POST /v1/chat/completions`" + ` | answers a conversation, at once or as a stream |
| ` + "`POST /v1/completions`" + ` | continues a text |
| ` + "`POST /v1/embeddings`" + ` | vectors, when the model is an embedding model; 400 when it is not |
| ` + "`POST /v1/responses`" + ` | answers a conversation in the form of OpenAI responses, without state between requests |
| ` + "`POST /v1/messages`" + ` | answers a conversation in the Anthropic form, with its form of errors |
| ` + "`POST /v1/messages/count_tokens`" + ` | counts the tokens of such a conversation |

The base URL of Anthropic clients has no ` + "`/v1`" + `. A wrong base URL is answered 404 with the right ones. ` + "`Upgrade: h2c`" + ` is
ignored, as Java's HTTP client sends it; any other upgrade is refused. A prompt that does not fit the context is
answered 400 with both numbers.

A stream may hold comments (` + "`: keep-alive`" + `) while a long prompt is being read. A stream that breaks off
ends with an event that holds an ` + "`error`" + ` object.

A stream waits for its reader: the system buffers what is not read yet, and when its buffers are full the model
waits too. Each event must then be taken within ` + "`front_door.stall_timeout`" + ` (30 s, measured to a quarter), and an answer
that is not a stream as a whole. A slower reader is cut off, also one that takes a few bytes now and then, because
other requests wait for its place. A slow reader that keeps within that is never cut off.

An object of free JSON has at most MEMBERS members. Arrays and objects are nested at most DEPTH deep.

## Schemas

The runtime turns the schemas of ` + "`response_format`" + ` and ` + "`tools`" + ` into a grammar. A schema that it would not survive,
that it would read with another meaning, or for which it would keep other clients waiting, is answered 400 with
the path and the construct.

- **Enforced:** ` + "`type`, `properties`, `required`, `additionalProperties`, `items`, `prefixItems`, `minItems`, `maxItems`, `enum`, `const`, `anyOf`, `oneOf`" + `
  (read as ` + "`anyOf`), `$ref`, `pattern`, `minLength`, `maxLength` of a string without `pattern` and known `format`; `format`" + ` date, time, date-time and
  uuid; ` + "`minimum`, `maximum`, `exclusiveMinimum` and `exclusiveMaximum`" + ` of an integer; ` + "`allOf`" + ` of parts with ` + "`properties`" + ` or an ` + "`enum`" + `. Absent
  ` + "`additionalProperties` count as `false` beside `properties`" + `.
- **Passed on and not enforced:** all other keywords, among them bounds of numbers that are not integers, and names in ` + "`required`" + ` that
  ` + "`properties`" + ` does not have.
- **Together:** ` + "`$ref` and `anyOf`" + ` cannot be combined with other structure, which the runtime would ignore.
- **References** begin with ` + "`#/`" + ` and lead to a schema in the same schema; the same reference in two tools means the same there.
- **Patterns** begin with ` + "`^`" + ` and end with ` + "`$`" + `. They consist of characters; ` + "`.`" + `; classes of characters and ranges; groups ` + "`( )` and `(?: )`" + `;
  alternatives; the quantifiers ` + "`* + ? {n} {n,} {n,m}`" + ` of something that is never empty; and the escapes of ` + "`^ $ . [ ] ( ) | { } * + ?`, `\\xHH` and `\\uHHHH`" + `
  (in classes: ` + "`\\[ \\] \\xHH \\uHHHH`" + `). Write ` + "`\\d` as `[0-9]`" + `. They match no double quote, backslash or control character.

| bound | |
| --- | --- |
| bytes of a schema | SCHEMA |
| schemas and enum values of a request | PARTS |
| references of a request | REFERENCES |
| properties of an object | PROPERTIES |
| bytes of a property's name | NAME |
| repetitions in a pattern, ` + "`maxLength`" + ` | REPETITION |
| ` + "`maxItems`" + ` | ITEMS |
| characters, classes and dots of a pattern; of all patterns of a request | PATTERN; ALLPATTERNS |
| alternatives that may come next at one place, times ` + "`n`" + ` | WIDTH |
| alternatives that can read the same value | COPIES |
`

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
