package enrich

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/google/jsonschema-go/jsonschema"
)

// Schema is the JSON Schema of a Result, as `companion enrich --schema` prints it.
//
//go:embed result.schema.json
var Schema string

// The bounds keep a model that rambles within maxTokens: the longest answer that fits the schema has about 700
// characters. llama.cpp's grammar converter takes the schema because it has no pattern.
const (
	longestSummary  = 280
	mostTags        = 5
	longestTag      = 24
	mostQuestions   = 3
	longestQuestion = 100
	maxTokens       = 1024
	// longestAnswer is what one answer adds to the text that a merge reads, in bytes.
	longestAnswer = longestSummary + mostTags*longestTag + mostQuestions*longestQuestion
)

// answerSchema is the part of a Result that the model makes; the runtime's grammar enforces it. With a vocabulary, tags
// come from it only.
func answerSchema(vocabulary []string) map[string]any {
	tags := list(mostTags, longestTag)
	if len(vocabulary) > 0 {
		tags["items"] = map[string]any{"type": "string", "enum": vocabulary}
	}
	return map[string]any{
		"type":                 "object",
		"additionalProperties": false,
		"required":             []string{"summary", "tags", "open_questions"},
		"properties": map[string]any{
			"summary":        text(longestSummary),
			"tags":           tags,
			"open_questions": list(mostQuestions, longestQuestion),
		},
	}
}

func text(longest int) map[string]any {
	return map[string]any{"type": "string", "minLength": 1, "maxLength": longest}
}

func list(most, longest int) map[string]any {
	return map[string]any{"type": "array", "maxItems": most, "items": text(longest)}
}

// validator checks a whole Result. It is compiled at first use from the schema that users see.
var validator = sync.OnceValue(func() *jsonschema.Resolved {
	var schema jsonschema.Schema
	if err := json.Unmarshal([]byte(Schema), &schema); err != nil {
		panic("enrich: the embedded schema is not JSON: " + err.Error())
	}
	resolved, err := schema.Resolve(nil)
	if err != nil {
		panic("enrich: the embedded schema is invalid: " + err.Error())
	}
	return resolved
})

// validate checks one encoded Result against the schema.
func validate(encoded []byte) error {
	var value any
	if err := json.Unmarshal(encoded, &value); err != nil {
		return fmt.Errorf("the result is not JSON: %w", err)
	}
	if err := validator().Validate(value); err != nil {
		return errShape // the validator's own text quotes the answer
	}
	return nil
}

// answer is what the model makes.
type answer struct {
	Summary       string   `json:"summary"`
	Tags          []string `json:"tags"`
	OpenQuestions []string `json:"open_questions"`
}

// decodeAnswer takes exactly one object with exactly these keys, and makes its text safe to render. Of a vocabulary
// each tag is kept once.
func decodeAnswer(content string, vocabulary []string) (answer, error) {
	var a answer
	decoder := json.NewDecoder(strings.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&a); err != nil || decoder.More() {
		return answer{}, errShape
	}
	if a.Summary == "" || a.Tags == nil || a.OpenQuestions == nil || len(a.Tags) > mostTags || len(a.OpenQuestions) > mostQuestions ||
		tooLong(longestSummary, a.Summary) || tooLong(longestTag, a.Tags...) || tooLong(longestQuestion, a.OpenQuestions...) {
		return answer{}, errShape
	}
	a.Summary = shorten(defang(a.Summary), longestSummary)
	for i, tag := range a.Tags {
		a.Tags[i] = shorten(defang(tag), longestTag)
	}
	if len(vocabulary) > 0 {
		a.Tags = known(a.Tags, vocabulary)
	}
	for i, question := range a.OpenQuestions {
		a.OpenQuestions[i] = shorten(defang(question), longestQuestion)
	}
	return a, nil
}

// known returns the tags of the vocabulary, each once. A server without grammars may answer with others.
func known(tags, vocabulary []string) []string {
	kept := []string{}
	for _, tag := range tags {
		if slices.Contains(vocabulary, tag) && !slices.Contains(kept, tag) {
			kept = append(kept, tag)
		}
	}
	return kept
}

// errShape never quotes the answer: it is about a private note.
var errShape = errors.New("the answer does not fit the schema")

func tooLong(limit int, texts ...string) bool {
	return slices.ContainsFunc(texts, func(text string) bool { return text == "" || utf8.RuneCountInString(text) > limit })
}

// text is what a merge reads of one part.
func (a answer) text() string {
	return strings.Join(slices.Concat([]string{a.Summary}, a.OpenQuestions, []string{strings.Join(a.Tags, ", ")}), "\n")
}

// join combines answers without the model: the first summary that fits, and the tags and questions of all.
func join(parts []answer) answer {
	made := answer{Tags: []string{}, OpenQuestions: []string{}}
	for _, part := range parts {
		if joined := strings.TrimSpace(made.Summary + " " + part.Summary); utf8.RuneCountInString(joined) <= longestSummary {
			made.Summary = joined
		}
		for _, tag := range part.Tags {
			if len(made.Tags) < mostTags && !slices.Contains(made.Tags, tag) {
				made.Tags = append(made.Tags, tag)
			}
		}
		for _, question := range part.OpenQuestions {
			if len(made.OpenQuestions) < mostQuestions && !slices.Contains(made.OpenQuestions, question) {
				made.OpenQuestions = append(made.OpenQuestions, question)
			}
		}
	}
	return made
}
