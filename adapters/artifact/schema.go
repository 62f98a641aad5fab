package artifact

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/google/jsonschema-go/jsonschema"

	"companion/messages"
)

// Schema is the JSON Schema of the custom data of a target, as docs/target.schema.json has it.
//
//go:embed target.schema.json
var Schema string

// resolved is compiled at first use.
var resolved = sync.OnceValue(func() *jsonschema.Resolved {
	var schema jsonschema.Schema
	if err := json.Unmarshal([]byte(Schema), &schema); err != nil {
		panic("artifact: the embedded schema is not JSON: " + err.Error())
	}
	r, err := schema.Resolve(nil)
	if err != nil {
		panic("artifact: the embedded schema is no schema: " + err.Error())
	}
	return r
})

// CheckSchema checks the custom data of a target against the schema. The publisher calls it before it signs, and the client
// before it uses an entry. A field that the schema does not have is refused: it may change what the entry means. Errors: *Error.
func CheckSchema(custom []byte) error {
	var value any
	if err := json.Unmarshal(custom, &value); err != nil {
		return refuse("custom data that is not JSON")
	}
	if err := resolved().Validate(value); err != nil {
		return &Error{messages.ReasonMalformedSpec, fmt.Sprintf("custom data that docs/target.schema.json does not allow: %.400s", err)}
	}
	return nil
}
