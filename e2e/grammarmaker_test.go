package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"companion/adapters/door/openai"
	"companion/messages"
)

// grammarMaker makes random schemas and patterns, and grows each up to the edge of what openai.Check
// accepts.
type grammarMaker struct{ *rand.Rand }

// object is a JSON object of a schema, which json.Marshal writes with sorted names.
type object = map[string]any

// grammarRequest is a chat request with a schema.
func grammarRequest(schema any, tokens int) string {
	body, err := json.Marshal(object{
		"messages":   []object{{"role": "user", "content": "Write the value."}},
		"max_tokens": tokens, "temperature": 1.5, "stream": true,
		"response_format": object{"type": "json_schema", "json_schema": object{"schema": schema}},
	})
	if err != nil {
		panic(err)
	}
	return string(body)
}

// accepted reports whether the endpoint would pass the schema on.
func accepted(schema any) bool {
	_, _, err := openai.Check(openai.Chat, []byte(grammarRequest(schema, 4)), openai.Serving{Model: messages.Model{Name: "m", Context: 4096}, Slots: 2}, nil)
	return err == nil
}

// families are kinds of schemas with a size: the larger, the more the runtime pays.
var families = map[string]func(g grammarMaker, size int) any{
	"enum": func(g grammarMaker, n int) any {
		return object{"enum": list(n, func(i int) any { return g.word(8) + strconv.Itoa(i) })}
	},
	"enum with one beginning": func(g grammarMaker, n int) any {
		begin := g.word(1 + g.IntN(60))
		return object{"enum": list(n, func(i int) any { return begin + strconv.Itoa(i) })}
	},
	"long values": func(g grammarMaker, n int) any {
		return object{"enum": list(1+g.IntN(20), func(i int) any { return g.word(n*20) + strconv.Itoa(i) })}
	},
	"optional properties": func(g grammarMaker, n int) any {
		length := 1 + g.IntN(60)
		return object{"type": "object", "properties": named(n, func(i int) (string, any) { return g.word(length) + strconv.Itoa(i), object{"type": "string"} })}
	},
	"required properties": func(g grammarMaker, n int) any {
		properties := named(n, func(i int) (string, any) { return g.word(1+g.IntN(100)) + strconv.Itoa(i), g.leaf() })
		return object{"type": "object", "properties": properties, "required": keys(properties)}
	},
	"other properties": func(g grammarMaker, n int) any {
		return object{"type": "object", "properties": named(n, func(i int) (string, any) { return g.word(3) + strconv.Itoa(i), object{} }), "additionalProperties": true}
	},
	"strings in alternatives": func(g grammarMaker, n int) any {
		return object{"anyOf": list(n, func(i int) any { return object{"type": "string", "maxLength": i + 1} })}
	},
	"list of alternatives": func(g grammarMaker, n int) any {
		return object{"type": "array", "minItems": 20, "items": object{"anyOf": list(n, func(i int) any { return object{"type": "integer", "minimum": -i} })}}
	},
	"numbers": func(g grammarMaker, n int) any {
		return object{"anyOf": list(n, func(i int) any {
			return object{"type": "integer", "minimum": -g.IntN(1 << 40), "maximum": g.IntN(1 << 50)}
		})}
	},
	"objects alike": func(g grammarMaker, n int) any {
		return object{"anyOf": list(n, func(i int) any {
			return object{"type": "object", "properties": object{"a": g.leaf(), "b": object{"const": i}}, "required": []string{"a", "b"}}
		})}
	},
	"objects told apart": func(g grammarMaker, n int) any {
		return object{"anyOf": list(n, func(i int) any {
			return object{"type": "object", "properties": object{"kind": object{"const": g.word(30) + strconv.Itoa(i)}, "x": g.leaf()}, "required": []string{"kind", "x"}}
		})}
	},
	"arrays in arrays": func(g grammarMaker, n int) any {
		schema := any(g.leaf())
		for range 1 + g.IntN(12) {
			schema = object{"type": "array", "items": schema, "maxItems": n, "minItems": g.IntN(n + 1)}
		}
		return schema
	},
	"strings with bounds": func(g grammarMaker, n int) any {
		return object{"type": "array", "items": object{"type": "string", "minLength": g.IntN(4*n + 1), "maxLength": 4 * n}, "minItems": 3}
	},
	"many bounds": func(g grammarMaker, n int) any {
		return object{"type": "array", "prefixItems": list(n, func(i int) any { return object{"type": "string", "maxLength": 50 + i} })}
	},
	"references": func(g grammarMaker, n int) any {
		defs := object{"d0": object{"enum": []any{"a", "b"}}}
		for i := 1; i <= n; i++ {
			a, b := g.IntN(i), g.IntN(i)
			defs[fmt.Sprintf("d%d", i)] = object{"anyOf": []any{object{"$ref": fmt.Sprintf("#/$defs/d%d", a)}, object{"$ref": fmt.Sprintf("#/$defs/d%d", b)}, object{"const": i}}}
		}
		return object{"$ref": fmt.Sprintf("#/$defs/d%d", n), "$defs": defs}
	},
	"references in objects": func(g grammarMaker, n int) any {
		defs := object{"d0": g.leaf()}
		for i := 1; i <= n; i++ {
			defs[fmt.Sprintf("d%d", i)] = object{"type": "object", "properties": object{"a": object{"$ref": fmt.Sprintf("#/$defs/d%d", i-1)}, "b": object{"$ref": fmt.Sprintf("#/$defs/d%d", g.IntN(i))}}}
		}
		return object{"$ref": fmt.Sprintf("#/$defs/d%d", n), "$defs": defs}
	},
	"large schema with references": func(g grammarMaker, n int) any {
		defs := named(1+n/2, func(i int) (string, any) {
			return fmt.Sprintf("d%d", i), object{"type": "integer", "description": g.word(n * 20)}
		})
		properties := named(len(defs), func(i int) (string, any) { return fmt.Sprintf("p%d", i), object{"$ref": fmt.Sprintf("#/$defs/d%d", i)} })
		return object{"type": "object", "properties": properties, "$defs": defs, "required": keys(properties)}
	},
	"allOf": func(g grammarMaker, n int) any {
		return object{"allOf": list(n, func(i int) any {
			part := object{"properties": object{fmt.Sprintf("p%d", i): g.leaf()}}
			if g.IntN(2) == 0 {
				return object{"anyOf": []any{part}}
			}
			return part
		})}
	},
	"recursion": func(g grammarMaker, n int) any {
		kinds := list(n, func(i int) any {
			return object{"type": "object", "properties": object{"kind": object{"const": strconv.Itoa(i)}, "of": object{"$ref": "#/$defs/node"}}, "required": []string{"kind"}}
		})
		return object{"$ref": "#/$defs/node", "$defs": object{"node": object{"anyOf": append(kinds, object{"type": "null"})}}}
	},
	"random": func(g grammarMaker, n int) any { return g.schema(min(n, 40), 6) },
	"pattern": func(g grammarMaker, n int) any {
		return object{"type": "string", "pattern": "^" + g.pattern(n, 4) + "$"}
	},
	"many patterns": func(g grammarMaker, n int) any {
		return object{"anyOf": list(1+n/8, func(i int) any { return object{"type": "string", "pattern": "^" + g.pattern(8, 3) + "$"} })}
	},
	"patterns in a list": func(g grammarMaker, n int) any {
		return object{"type": "array", "minItems": 9, "items": object{"type": "string", "pattern": "^" + g.pattern(n, 3) + "$"}}
	},
	"runs": func(g grammarMaker, n int) any { // of characters that vocabularies hold as one token
		run := g.pick("=", "-", " ", "*", ".", "#", "_", "[ .]", "[=-]")
		return object{"type": "string", "pattern": fmt.Sprintf("^(%s%s|%s){1,%d}%s$", run, g.pick("", "?", "x?"), run, 1+n/4, g.pick("x", "", "[^ ]"))}
	},
	"overlapping": func(g grammarMaker, n int) any {
		return object{"type": "string", "pattern": "^" + strings.Repeat(g.pick("[a-z]", ".", "[ =]", "[^,]")+fmt.Sprintf("{0,%d}", 1+n/8), 1+g.IntN(6)) + "x$"}
	},
	"wide classes": func(g grammarMaker, n int) any {
		class := "["
		for i := range min(n, 500) {
			class += string(rune(0x4e00 + 2*i))
		}
		return object{"type": "string", "pattern": "^(" + class + "a]" + g.pick("+", "{1,40}", "*x") + "){1,3}$"}
	},
}

func list(n int, of func(int) any) (all []any) {
	for i := range n {
		all = append(all, of(i))
	}
	return all
}

func named(n int, of func(int) (string, any)) object {
	all := object{}
	for i := range n {
		name, value := of(i)
		all[name] = value
	}
	return all
}

func keys(o object) (names []string) {
	for name := range o {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (g grammarMaker) pick(of ...string) string { return of[g.IntN(len(of))] }

func (g grammarMaker) word(n int) string {
	var b strings.Builder
	for range n {
		b.WriteByte("abcdefghij ._-=XYZ"[g.IntN(18)])
	}
	return b.String()
}

func (g grammarMaker) leaf() object {
	return []object{{"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}, {"type": "null"}, {}, {"format": "date-time"},
		{"type": "string", "maxLength": 1 + g.IntN(50)}, {"type": "integer", "minimum": g.IntN(1000)}, {"type": []string{"string", "integer", "null"}},
		{"enum": []any{"a", "ab", 1, nil}}, {"type": "string", "pattern": "^" + g.pattern(6, 2) + "$"}}[g.IntN(12)]
}

// schema is a random schema of about n parts.
func (g grammarMaker) schema(n, depth int) object {
	if n <= 1 || depth == 0 {
		return g.leaf()
	}
	parts := 1 + g.IntN(n)
	sub := func(int) any { return g.schema(n/parts, depth-1) }
	switch g.IntN(5) {
	case 0:
		return object{"anyOf": list(parts, sub)}
	case 1:
		return object{"type": "array", "items": g.schema(n-1, depth-1)}
	case 2:
		return object{"prefixItems": list(parts, sub)}
	case 3:
		return object{"type": []string{"object", "null"}, "properties": named(parts, func(i int) (string, any) { return g.word(3) + strconv.Itoa(i), sub(i) })}
	}
	properties := named(parts, func(i int) (string, any) { return g.word(3) + strconv.Itoa(i), sub(i) })
	return object{"type": "object", "properties": properties, "required": keys(properties)[:g.IntN(parts+1)]}
}

// pattern is a random pattern of about n items.
func (g grammarMaker) pattern(n, depth int) string {
	var b strings.Builder
	for n > 0 {
		size := 1 + g.IntN(n)
		if depth == 0 {
			size = 1
		}
		if size == 1 {
			b.WriteString(g.pick("a", "b", "x", "0", "=", "-", " ", ".", "[a-z]", "[0-9]", "[^,]", "[ -~]", `\.`, `\(`, "é", "[a-zA-Z0-9_]"))
		} else {
			b.WriteString("(" + g.pattern(size, depth-1) + g.pick("", "|"+g.pattern(2, 0), "|", "|a", "") + ")")
		}
		b.WriteString(g.pick("", "", "", "", "", "*", "+", "?", "?", "{2}", "{1,3}", "{0,9}", fmt.Sprintf("{0,%d}", 1+g.IntN(60)), fmt.Sprintf("{1,%d}", 1+g.IntN(1999))))
		n -= size
	}
	return b.String()
}

// edge returns the largest schema of a family that is accepted, and whether there is one.
func (g grammarMaker) edge(family func(grammarMaker, int) any) (schema any, found bool) {
	seed := g.Uint64()
	at := func(size int) any { return family(grammarMaker{rand.New(rand.NewPCG(seed, 0))}, size) }
	low, high := 0, 4096
	for high-low > max(1, low/32) {
		if middle := (low + high) / 2; accepted(at(middle)) {
			low = middle
		} else {
			high = middle
		}
	}
	return at(low), low > 0
}
