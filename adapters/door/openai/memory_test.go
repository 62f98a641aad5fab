package openai

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// Allocation is measured as TotalAlloc: all that Check allocates, also what is garbage at once. It bounds the
// peak, which depends on when the collector runs, and does not change from run to run.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// checkMemory checks a body as the front door does, with an output buffer of its size, and reports an
// allocation of more than 8 × body + 1 MiB, the buffer included.
func checkMemory(t *testing.T, name string, route Route, body []byte) {
	t.Helper()
	runtime.GC() // empties the pool of readers: what they keep counts
	runtime.GC()
	var err *Error
	got := allocated(func() {
		_, _, err = Check(route, body, dropping, make([]byte, 0, len(body)+1024))
	})
	if most := uint64(8*len(body) + 1<<20); got > most {
		t.Errorf("%s: a body of %d bytes took %d, %.1f times as much (%v); want at most %d", name, len(body), got, float64(got)/float64(len(body)), err, most)
	} else if testing.Verbose() {
		t.Logf("%-40s %8d bytes: %5.2f times, %v", name, len(body), float64(got)/float64(len(body)), err)
	}
}

// dropping also takes unknown fields, which are read then.
var dropping = Serving{Model: filling(-1).Model, Slots: 4, DropUnknown: true}

// repeated is text n times, each formed with its number, between open and end, separated by commas.
func repeated(open string, n int, form, end string) string {
	var b strings.Builder
	b.WriteString(open)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		if strings.Contains(form, "%") {
			fmt.Fprintf(&b, form, i)
		} else {
			b.WriteString(form)
		}
	}
	return b.String() + end
}

// bodies are texts of about size bytes, each of a kind that makes a parser allocate much for little.
func bodies(size int) map[string]string {
	chat := func(rest string) string { return `{` + hi + `,` + rest + `}` }
	format := func(schema string) string {
		return chat(`"response_format":{"type":"json_schema","json_schema":{"schema":` + schema + `}}`)
	}
	tools := func(n int, parameters string) string {
		return chat(repeated(`"tools":[`, n, `{"type":"function","function":{"name":"f","parameters":`+strings.ReplaceAll(parameters, "%", "%%")+`}}`, `]`))
	}
	short := func(n int) string { return repeated("{", min(n, maxMembers), `"%x":1`, "}") }
	long := strings.Repeat("n", size/2)
	all := map[string]string{
		"one long text":                `{"messages":[{"role":"user","content":"` + strings.Repeat("x", size) + `"}]}`,
		"escapes":                      `{"messages":[{"role":"user","content":"` + strings.Repeat(`\u00e9`, size/6) + `"}]}`,
		"control escapes":              `{"messages":[{"role":"user","content":"` + strings.Repeat(`\n`, size/2) + `"}]}`,
		"quotes":                       `{"messages":[{"role":"user","content":"` + strings.Repeat(`\"`, size/2) + `"}]}`,
		"outside ASCII":                `{"messages":[{"role":"user","content":"` + strings.Repeat(`é😀`, size/6) + `"}]}`,
		"many messages":                repeated(`{"messages":[`, size/31, `{"role":"user","content":""}`, `]}`),
		"many parts":                   repeated(`{"messages":[{"role":"user","content":[`, size/26, `{"type":"text","text":""}`, `]}]}`),
		"long unknown name":            `{"` + strings.Repeat("n", size) + `":1}`,
		"long escaped name":            `{"` + strings.Repeat(`\u00e9`, size/6) + `":1}`,
		"metadata of short names":      chat(`"metadata":` + repeated("[", max(1, size/(9*maxMembers)), strings.ReplaceAll(short(size/9), "%", "%%"), "]")),
		"metadata, deep and wide":      chat(`"metadata":` + strings.Repeat(strings.TrimSuffix(short(size/9/28), "}")+`,"n":`, 28) + "1" + strings.Repeat("}", 28)),
		"metadata of long names":       chat(`"metadata":` + repeated("{", max(1, size/1000), `"%0990d":1`, "}")),
		"metadata of numbers":          chat(`"metadata":` + repeated("[", size/5, "1e15", "]")),
		"metadata of small numbers":    chat(`"metadata":` + repeated("[", size/2, "1", "]")),
		"metadata of arrays":           chat(`"metadata":` + repeated("[", size/3, "[]", "]")),
		"metadata of objects":          chat(`"metadata":` + repeated("[", size/9, `{"a":{}}`, "]")),
		"prompts of tokens":            repeated(`{"prompt":[`, min(4096, size/2), "1", "]}"),
		"stops":                        chat(`"stop":` + repeated("[", 16, `"`+strings.Repeat(`\n`, 128)+`"`, "]")),
		"properties below a long name": format(`{"` + long + `":` + repeated("{", max(1, size/100000), `"%d":{`+repeated("", 4000, `"%%x":{"properties":{}}`, "")+`}`, "}") + `}`),
		"properties below long names":  format(strings.Repeat(`{"properties":{"`+strings.Repeat("n", maxPropertyName)+`":`, 14) + repeated(`{"properties":{`, min(maxProperties, size/30), `"%d":{}`, "}}") + strings.Repeat("}}", 14)),
		"references below a long name": format(`{"` + long + `":` + repeated(`{"x":[`, size/24, `{"$ref":"#"}`, "]}") + `}`),
		"references":                   format(repeated(`{"$defs":{"a":{}},"anyOf":[`, min(maxReferences, size/24), `{"$ref":"#/$defs/a"}`, `]}`)),
		"references of many parts":     format(repeated(`{"anyOf":[`, min(maxReferences, size/128), `{"$ref":"#`+strings.Repeat("/", 200)+`"}`, `]}`)),
		"empty schemas":                format(repeated(`{"prefixItems":[`, min(maxParts-2, size/3), "{}", "]}")),
		"too many empty schemas":       format(repeated(`{"prefixItems":[`, size/3, "{}", "]}")),
		"enum":                         format(repeated(`{"enum":[`, min(maxParts-2, size/5), "%d", "]}")),
		"required":                     format(repeated(`{"required":[`, min(maxProperties, size/5), `"%d"`, "]}")),
		"required everywhere":          format(repeated(`{"anyOf":[`, size/2000, repeated(`{"required":[`, 500, `""`, "]}"), "]}")),
		"patterns of dots":             format(repeated(`{"anyOf":[`, min(8, 1+size/300), `{"pattern":"^`+strings.Repeat(".", 250)+`$"}`, "]}")),
		"too many patterns of dots":    format(repeated(`{"anyOf":[`, 1+size/300, `{"pattern":"^`+strings.Repeat(".", 250)+`$"}`, "]}")),
		"patterns with many edges":     format(repeated(`{"anyOf":[`, 1+size/300, `{"pattern":"^(`+strings.Repeat("a?", 60)+`b)*$"}`, "]}")),
		"patterns with many ranges":    format(repeated(`{"anyOf":[`, 1+size/4000, `{"pattern":"^[`+strings.Repeat("a-b", 1300)+`]$"}`, "]}")),
		"long pattern":                 format(`{"pattern":"` + strings.Repeat("a", size) + `"}`),
		"long description":             format(`{"description":"` + strings.Repeat("x", size) + `"}`),
		"nested schemas":               format(strings.Repeat(`{"items":`, 25) + `{"enum":` + repeated("[", size/6, "%d", "]") + `}` + strings.Repeat("}", 25)),
		"literals":                     format(`{"default":` + repeated("[", size/3, "{}", "]") + `}`),
		"tools":                        tools(min(maxTools, 1+size/100), `{"properties":{"a":{"type":"string"}}}`),
		"tools with definitions":       tools(min(maxTools, 1+size/400), `{"$ref":"#/$defs/a","$defs":{"a":{"type":"object","properties":{"a":{"enum":[1,2,3]}}}}}`),
		"large tools":                  tools(8, `{"description":"`+strings.Repeat("x", min(size/8, maxSchema-100))+`"}`),
		"biases":                       chat(`"logit_bias":` + repeated("{", 1024, `"%d":1`, "}")),
		"syntax error at the end":      chat(`"metadata":` + repeated("[", size/9, `{"a":{}}`, "")),
		"prefix and suffix":            `{"input_prefix":"` + strings.Repeat("é", size/4) + `","input_suffix":"` + strings.Repeat(`\n`, size/4) + `"}`,
		"completion with a suffix":     `{"prompt":"` + strings.Repeat(`\n`, size/4) + `","suffix":"` + strings.Repeat("x", size/2) + `"}`,
		"many extra texts":             repeated(`{"input_prefix":"","input_suffix":"","input_extra":[`, min(256, 1+size/11), `{"text":""}`, "]}"),
		"many turns":                   repeated(`{"messages":[`, size/60, `{"content":[{"text":"","type":"text"}],"role":"user"}`, `]}`),
		"many results":                 repeated(`{"messages":[{"role":"user","content":[`, size/60, `{"content":[{"text":"","type":"text"}],"type":"tool_result","tool_use_id":"a"}`, `]}]}`),
		"empty blocks":                 repeated(`{"messages":[{"role":"user","content":[`, size/3, `{}`, `]}]}`),
		"arguments":                    `{"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":{"a":` + repeated("[", size/9, `{"a":{}}`, "]") + `}}]}]}`,
		"arguments as text":            `{"messages":[{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"` + repeated("[", size/13, `{\"a\":{}}`, "]") + `"}}]}]}`,
		"arguments of numbers":         `{"input":[{"type":"function_call","call_id":"c","name":"f","arguments":"` + repeated("[", size/5, `1e15`, "]") + `"}]}`,
		"arguments of many names":      `{"input":[{"type":"function_call","call_id":"c","name":"f","arguments":"` + repeated("[", max(1, size/(11*maxMembers)), strings.ReplaceAll(strings.ReplaceAll(short(size/11), "%", "%%"), `"`, `\"`), "]") + `"}]}`,
		"arguments that are not JSON":  `{"input":[{"type":"function_call","call_id":"c","name":"f","arguments":"[` + strings.Repeat(`\"\",`, size/5) + `"}]}`,
		"many items":                   repeated(`{"input":[`, size/30, `{"role":"user","content":"x"}`, `]}`),
		"many dropped items":           repeated(`{"input":[`, size/20, `{"type":"reasoning"}`, `]}`),
		"many calls":                   repeated(`{"input":[`, size/70, `{"arguments":"","call_id":"c","name":"f","type":"function_call"}`, `]}`),
		"many flat tools":              repeated(`{"input":"x","tools":[`, min(maxTools, 1+size/60), `{"name":"f","type":"function","parameters":{"type":"object"}}`, `]}`),
		"a text format":                `{"input":"x","text":{"format":{"type":"json_schema","schema":` + repeated(`{"enum":[`, min(maxParts-2, size/5), "%d", "]}") + `}}}`,
		"unknown names":                repeated("{", min(maxMembers, 1+size/6), `"%x":1`, ","+hi+"}"),
		"blanks":                       strings.Repeat(" ", size) + `{` + hi + `}`,
	}
	return all
}

// L9, T16: checking a body takes memory that is linear in the body, whatever it holds.
func TestMemory(t *testing.T) {
	for _, size := range []int{1 << 10, 32 << 10, 256 << 10, 2 << 20} {
		for name, body := range bodies(size) {
			for route := range forms {
				checkMemory(t, name, Route(route), []byte(body))
			}
		}
	}
}

// L9, T16: the same for what a fuzzer makes of these bodies.
func FuzzMemory(f *testing.F) {
	for _, body := range bodies(2 << 10) {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for route := range forms {
			_, _, _ = Check(Route(route), body, dropping, make([]byte, 0, len(body)+1024))
			got := allocated(func() { _, _, _ = Check(Route(route), body, dropping, make([]byte, 0, len(body)+1024)) })
			if most := uint64(8*len(body) + 1<<20); got > most {
				t.Errorf("a body of %d bytes took %d, want at most %d", len(body), got, most)
			}
		}
	})
}
