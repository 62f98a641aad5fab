package openai

import (
	"fmt"
	"strings"
	"testing"
)

// L6a: schemas as client libraries and the documentation of OpenAI write them pass.
func TestUsualSchemas(t *testing.T) {
	states := strings.TrimSuffix(strings.Repeat(`"S%d",`, 50), ",")
	numbers := make([]any, 50)
	for i := range numbers {
		numbers[i] = i
	}
	for name, schema := range map[string]string{
		"nested model":          `{"$defs":{"Step":{"properties":{"explanation":{"title":"Explanation","type":"string"},"output":{"type":"string"}},"required":["explanation","output"],"title":"Step","type":"object","additionalProperties":false}},"properties":{"steps":{"items":{"$ref":"#/$defs/Step"},"type":"array"},"final_answer":{"type":"string"}},"required":["steps","final_answer"],"type":"object","additionalProperties":false}`,
		"linked list":           `{"type":"object","properties":{"linked_list":{"$ref":"#/$defs/node"}},"$defs":{"node":{"type":"object","properties":{"value":{"type":"number"},"next":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}},"additionalProperties":false,"required":["next","value"]}},"additionalProperties":false,"required":["linked_list"]}`,
		"expression":            `{"$ref":"#/$defs/Expr","$defs":{"Expr":{"anyOf":[{"$ref":"#/$defs/Num"},{"$ref":"#/$defs/Add"}],"discriminator":{"propertyName":"kind"}},"Num":{"type":"object","properties":{"kind":{"const":"num","type":"string"},"value":{"type":"number"}},"required":["kind","value"]},"Add":{"type":"object","properties":{"kind":{"enum":["add"],"type":"string"},"left":{"$ref":"#/$defs/Expr"},"right":{"$ref":"#/$defs/Expr"}},"required":["kind","left","right"]}}}`,
		"optional and nullable": `{"type":"object","properties":{"a":{"anyOf":[{"type":"string"},{"type":"null"}],"default":null,"title":"A"},"b":{"type":["integer","null"]},"c":{"enum":["x","y",null],"type":["string","null"]}}}`,
		"enum by allOf":         `{"$defs":{"Color":{"enum":["red","green"],"title":"Color","type":"string"}},"properties":{"color":{"allOf":[{"$ref":"#/$defs/Color"}],"default":"red"}},"type":"object"}`,
		"numbers with bounds":   `{"type":"object","properties":{"p":{"type":"number","minimum":0,"maximum":1,"exclusiveMinimum":0.5},"n":{"type":"integer","minimum":-9007199254740991,"maximum":9007199254740991},"year":{"type":"integer","minimum":1900},"m":{"type":"integer","exclusiveMinimum":0}}}`,
		"map":                   `{"type":"object","additionalProperties":{"type":"string"},"propertyNames":{"pattern":"^[a-z]+$"}}`,
		"map with some names":   `{"type":"object","properties":{"id":{"type":"string"},"@type":{"const":"x"}},"additionalProperties":true}`,
		"states":                fmt.Sprintf(`{"type":"object","properties":{"state":{"type":"string","enum":[`+states+`]},"also":{"type":["string","null"],"enum":[`+states+`]}},"required":["state"]}`, append(numbers, numbers...)...),
		"literals":              `{"anyOf":[{"const":"a"},{"const":"b"},{"const":"c"},{"const":1},{"type":"null"},{"const":"d"},{"const":"e"},{"const":"f"},{"const":"g"},{"const":"h"},{"const":"i"},{"const":"j"},{"const":"k"},{"const":"l"}]}`,
		"formats":               `{"type":"object","properties":{"a":{"type":"string","format":"date-time"},"b":{"type":"string","format":"email"},"c":{"type":"string","format":"uuid"},"d":{"type":"string","format":"uri","minLength":1,"maxLength":1999}}}`,
		"patterns":              `{"type":"object","properties":{"zip":{"type":"string","pattern":"^[0-9]{5}(-[0-9]{4})?$"},"slug":{"pattern":"^[a-z0-9]+(?:-[a-z0-9]+)*$"},"mail":{"pattern":"^[^@ ]+@[^@ ]+\\.[^@ ]+$"},"semver":{"pattern":"^(0|[1-9][0-9]*)\\.(0|[1-9][0-9]*)\\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?$"},"color":{"pattern":"^#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"},"ip":{"pattern":"^(([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])\\.){3}([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])$"},"name":{"pattern":"^.{1,100}$"},"holds":{"pattern":"^.*urgent.*$"}}}`,
		"lists":                 `{"type":"array","items":{"type":"array","items":{"type":"object","properties":{"x":{"type":"array","prefixItems":[{"type":"number"},{"type":"number"}]}}},"minItems":1,"maxItems":100},"uniqueItems":true}`,
		"sixty optional":        `{"type":"object","properties":` + strings.ReplaceAll(schemaMembers(60), "{}", `{"type":"string","description":"text"}`) + `}`,
		"five hundred required": `{"type":"object","properties":` + schemaMembers(500) + `,"required":[` + strings.ReplaceAll(strings.TrimSuffix(schemaMembers(500)[1:], ":{}}"), ":{}", "") + `]}`,
		"unions without tags":   `{"anyOf":[` + strings.TrimSuffix(strings.Repeat(`{"type":"object","properties":{"id":{"type":"string"},"x":{"type":"integer"}},"required":["id"]},`, 14), ",") + `]}`,
	} {
		body := `{` + hi + `,"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":` + schema + `}}}`
		if _, _, err := Check(Chat, []byte(body), serving, nil); err != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
	tool := toolWith(`{"type":"object","properties":{"first_name":{"type":"string","description":"x"},"unit":{"type":"string","enum":["c","f"]},"tags":{"type":"array","items":{"type":"string"}},"at":{"$ref":"#/$defs/At"}},"required":["first_name"],"$defs":{"At":{"type":"object","properties":{"lat":{"type":"number"},"lon":{"type":"number"}}}}}`)
	body := `{` + hi + `,"tools":[` + strings.TrimSuffix(strings.Repeat(tool+",", maxTools), ",") + `]}`
	if _, _, err := Check(Chat, []byte(body), serving, nil); err != nil {
		t.Errorf("%d tools: got %v", maxTools, err)
	}
}
