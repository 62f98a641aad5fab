package enrich

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"go.yaml.in/yaml/v3"
)

// maxHeader bounds front matter, in bytes. It also bounds the depth that a parser has to recurse.
const maxHeader = 64 << 10

// header is what enrich reads of front matter.
type header struct {
	title string
	event string
	keys  []string // of the top level
}

// headerKeys are keys that programs for Markdown notes write. One of them, in any case, makes a block
// front matter. A block without one is front matter only if all its keys are lower-case identifiers.
var headerKeys = []string{
	"title", "source_event_id", "date", "created", "updated", "modified", "tags", "tag", "keywords", "aliases", "alias", "author",
	"authors", "category", "categories", "id", "uuid", "draft", "layout", "slug", "permalink", "description", "summary", "status",
	"type", "lang", "publish", "cssclass", "cssclasses",
}

var lowerKey = regexp.MustCompile(`^[a-z][a-z0-9_.-]*$`)

// splitHeader separates YAML front matter ("---" … "---" or "...") or TOML front matter ("+++" … "+++") from
// the body. A delimiter is a whole line that starts in the first column, so "---" inside an indented block
// scalar does not end the header. Text between two rulers that is not front matter stays in the body,
// so that no text of a note is lost.
func splitHeader(data []byte) (header, []byte) {
	f, ok := findFrontMatter(data)
	if !ok {
		return header{}, data[f.first:]
	}
	parse := yamlHeader
	if f.toml {
		parse = tomlHeader
	}
	head, ok := contained(parse, data[f.start:f.end])
	if !ok {
		return header{}, data[f.first:]
	}
	return head, data[f.rest:]
}

// contained runs a parser and turns its panic into a refusal: YAML decoders have panicked on malformed text.
func contained(parse func([]byte) (header, bool), text []byte) (head header, ok bool) {
	defer func() {
		if p := recover(); p != nil {
			head, ok = header{}, false
		}
	}()
	return parse(text)
}

// yamlHeader reads the top-level mapping. It decodes to nodes only, so that aliases are never expanded.
func yamlHeader(text []byte) (header, bool) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return header{}, false
	}
	var head header
	pairs := doc.Content[0].Content
	for i := 0; i+1 < len(pairs); i += 2 {
		key, value := pairs[i], pairs[i+1]
		if key.Kind != yaml.ScalarNode {
			return header{}, false
		}
		head.keys = append(head.keys, key.Value)
		if value.Kind == yaml.ScalarNode {
			head.set(key.Value, value.Value)
		}
	}
	return head, isHeader(head.keys)
}

func tomlHeader(text []byte) (header, bool) {
	var values map[string]any
	if err := toml.Unmarshal(text, &values); err != nil {
		return header{}, false
	}
	var head header
	for key, value := range values {
		head.keys = append(head.keys, key)
		switch value.(type) {
		case map[string]any, []any:
		default:
			head.set(key, fmt.Sprint(value))
		}
	}
	return head, isHeader(head.keys)
}

func (h *header) set(key, value string) {
	switch strings.ToLower(key) {
	case "title":
		h.title = value
	case "source_event_id":
		h.event = value
	}
}

// isHeader tells front matter from prose such as "Subject: …" between two rulers.
func isHeader(keys []string) bool {
	if slices.ContainsFunc(keys, func(key string) bool { return slices.Contains(headerKeys, strings.ToLower(key)) }) {
		return true
	}
	return len(keys) > 0 && !slices.ContainsFunc(keys, func(key string) bool { return !lowerKey.MatchString(key) })
}
