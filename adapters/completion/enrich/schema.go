package enrich

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/google/jsonschema-go/jsonschema"
)

// Schema is the JSON Schema of a Result, as `companion enrich --schema` prints it.
//
//go:embed result.schema.json
var Schema string

// The bounds keep a rambling model within maxTokens: the longest answer that fits the schema has
// about 700 characters. The pattern-free form is what llama.cpp's grammar converter takes.
const (
	longestSummary  = 280
	mostTags        = 5
	longestTag      = 24
	mostQuestions   = 3
	longestQuestion = 100
	maxTokens       = 1024
)

// answerSchema is what the model is held to: the part of a Result that it makes.
var answerSchema = map[string]any{
	"type":                 "object",
	"additionalProperties": false,
	"required":             []string{"summary", "tags", "open_questions"},
	"properties": map[string]any{
		"summary":        text(longestSummary),
		"tags":           list(mostTags, longestTag),
		"open_questions": list(mostQuestions, longestQuestion),
	},
}

func text(longest int) map[string]any {
	return map[string]any{"type": "string", "minLength": 1, "maxLength": longest}
}

func list(most, longest int) map[string]any {
	return map[string]any{"type": "array", "maxItems": most, "items": text(longest)}
}

// validator checks a whole Result; it is compiled, once it is needed, from the schema that users are
// shown.
var validator = sync.OnceValue(func() *jsonschema.Resolved {
	var schema jsonschema.Schema
	if err := json.Unmarshal([]byte(Schema), &schema); err != nil {
		panic("enrich: the embedded schema is not JSON: " + err.Error())
	}
	resolved, err := schema.Resolve(nil)
	if err != nil {
		panic("enrich: the embedded schema is no schema: " + err.Error())
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
		// The validator's own text quotes what the model wrote about a private note.
		return fmt.Errorf("the answer does not fit the schema")
	}
	return nil
}

// answer is what the model makes.
type answer struct {
	Summary       string   `json:"summary"`
	Tags          []string `json:"tags"`
	OpenQuestions []string `json:"open_questions"`
}

// decodeAnswer takes exactly one object with exactly these keys.
func decodeAnswer(content string) (answer, error) {
	var a answer
	decoder := json.NewDecoder(strings.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&a); err != nil || decoder.More() {
		return answer{}, fmt.Errorf("the answer does not fit the schema")
	}
	if a.Tags == nil || a.OpenQuestions == nil {
		return answer{}, fmt.Errorf("the answer does not fit the schema")
	}
	return a, nil
}
