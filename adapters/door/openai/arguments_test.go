package openai

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// callsWith has the arguments in the history of each route that takes them as text.
func callsWith(arguments string) map[Route]string {
	quoted, err := json.Marshal(arguments)
	if err != nil {
		panic(err)
	}
	return map[Route]string{
		Chat:      fmt.Sprintf(`{"messages":[{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":%s}}]}]}`, quoted),
		Responses: fmt.Sprintf(`{"input":[{"type":"function_call","call_id":"c","name":"f","arguments":%s}]}`, quoted),
	}
}

// L6a, R10: JSON in a string, which the runtime parses, has the bounds of the body.
func TestArguments(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for name, c := range map[string]struct{ in, want string }{
		"an object":             {`{"a": [1, 2.50, "\u00e9[[[[\""]}`, `{"a":[1,2.5,"é[[[[\""]}`},
		"deepest":               {deep(maxDepth), deep(maxDepth)},
		"too deep":              {deep(maxDepth + 1), ""},
		"too deep by far":       {`{"a":` + deep(30000) + `}`, ""},
		"too deep, not closed":  {strings.Repeat("[", 30000), ""},
		"too deep, after a BOM": {"\ufeff" + deep(30000), ""},
		"too deep, not JSON":    {`x` + strings.Repeat("[", 30000), ""},
		"a name twice":          {`{"a":1,"\u0061":2}`, ""},
		"a long number":         {`[1` + strings.Repeat("0", 2000) + `]`, ""},
		"a large number":        {`[1e999]`, ""},
		"many names, cut off":   {strings.TrimSuffix(repeated("{", maxMembers+1, `"%d":1`, "}"), "}"), ""},
		"nothing":               {"", `{}`},
		"blanks":                {" \n", `{}`},
		"cut off":               {`{"a": [1, {"b": "c`, `{"invalid_json":"{\"a\": [1, {\"b\": \"c"}`},
		"code with brackets":    {`{"code": "` + strings.Repeat("[", 100), `{"invalid_json":"{\"code\": \"` + strings.Repeat("[", 100) + `"}`},
		"two values":            {`{} {}`, `{"invalid_json":"{} {}"}`},
		"of another language":   {`{'a': None}`, `{"invalid_json":"{'a': None}"}`},
	} {
		for route, body := range callsWith(c.in) {
			out, _, err := Check(route, []byte(body), serving, nil)
			if c.want == "" {
				if err == nil || !strings.Contains(err.Param, "arguments") {
					t.Errorf("%s, route %d: got %v, want a refusal of arguments", name, route, err)
				}
				continue
			}
			quoted, _ := json.Marshal(c.want)
			var want any
			_ = json.Unmarshal(quoted, &want)
			if err != nil {
				t.Errorf("%s, route %d: got %v, want it to pass", name, route, err)
			} else if got := findString(out, "arguments"); got != want {
				t.Errorf("%s, route %d: the runtime gets %q, want %q", name, route, got, want)
			}
		}
	}
}

// findString returns the first string of this name anywhere in a body.
func findString(body []byte, name string) any {
	var all any
	if json.Unmarshal(body, &all) != nil {
		return nil
	}
	var in func(any) any
	in = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			if s, ok := v[name].(string); ok {
				return s
			}
			for _, sub := range v {
				if s := in(sub); s != nil {
					return s
				}
			}
		case []any:
			for _, sub := range v {
				if s := in(sub); s != nil {
					return s
				}
			}
		}
		return nil
	}
	return in(all)
}

// L6a, R10: what the runtime prepares for its samplers before the first token is bounded.
func TestSamplers(t *testing.T) {
	for in, param := range map[string]string{
		`"samplers":["dry","top_k","dry"]`:                                        "samplers[2]",
		`"samplers":["penalties","dry","top_k","typ_p","top_p","temperature"]`:    "",
		`"dry_sequence_breakers":["a","b","c","d","e"]`:                           "dry_sequence_breakers",
		`"dry_sequence_breakers":["aaaaaaaaaaaaaaaaa"]`:                           "dry_sequence_breakers[0]",
		`"dry_multiplier":1,"dry_sequence_breakers":["\n",":","\"","*"]`:          "",
		`"dry_multiplier":1,"n":2`:                                                "",
		`"dry_multiplier":1,"n":3`:                                                "dry_multiplier",
		`"n":3,"dry_multiplier":1,"dry_sequence_breakers":["a","b"]`:              "",
		`"n":3,"dry_sequence_breakers":["a","b","c","d"]`:                         "",
		`"repeat_penalty":0`:                                                      "repeat_penalty",
		`"repeat_penalty":0.01`:                                                   "",
		`"prompt":["a","b"],"dry_multiplier":1`:                                   "",
		`"prompt":["a",[1],"c"],"dry_multiplier":1`:                               "dry_multiplier",
		`"prompt":["a",[1],"c"],"dry_multiplier":1,"dry_sequence_breakers":["x"]`: "",
	} {
		route, body := Chat, `{`+hi+`,`+in+`}`
		if strings.HasPrefix(in, `"prompt"`) {
			route, body = Completions, `{`+in+`}`
		}
		_, _, err := Check(route, []byte(body), serving, nil)
		if got := err; (got == nil) != (param == "") || got != nil && got.Param != param {
			t.Errorf("%s: got %v, want a refusal of %q", in, got, param)
		}
	}
}

// L6a, R10: a definition cannot have the name of a keyword that the runtime follows anywhere.
func TestDefinitionNames(t *testing.T) {
	for _, in := range []string{`{"$defs":{"$ref":{"type":"string"}}}`, `{"type":"object","definitions":{"$ref":{"type":"string"}}}`, `{"definitions":{"$defs":{}}}`} {
		if _, _, err := Check(Chat, []byte(`{`+hi+`,"tools":[`+toolWith(in)+`]}`), serving, nil); err == nil || !strings.Contains(err.Error(), "this name here") {
			t.Errorf("%s: got %v, want the name refused", in, err)
		}
	}
}
