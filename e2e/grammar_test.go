package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"companion/adapters/door/openai"
	"companion/e2e/harness"
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

// grammarRig is a companion with the real runtime.
type grammarRig struct {
	*testing.T
	companion      *harness.Companion
	baseURL, token string
	runtimes       []int
	random         *rand.Rand
}

// spent is what passes until a first token. Processor time is the runtime's own: it hardly depends on what else
// the machine does.
type spent struct{ wall, processor time.Duration }

func (s spent) String() string {
	return fmt.Sprintf("%v (%v of the runtime's processor time)", s.wall.Round(time.Millisecond), s.processor)
}

// processor returns the processor time of the runtime so far.
func (r *grammarRig) processor() (sum time.Duration) {
	for _, pid := range r.runtimes {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it ended, which the caller finds
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for _, ticks := range fields[11:13] { // utime and stime
			n, err := strconv.Atoi(ticks)
			if err != nil {
				r.Error(err)
			}
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}

// answerStart is how an answer began.
type answerStart struct {
	spent  spent
	status int
	text   string // the content, or the body of an error
	failed bool   // the stream held an error
	whole  bool   // the answer ended before its token bound
}

// ask streams an answer.
func (r *grammarRig) ask(body string) (a answerStart) {
	began, before := time.Now(), r.processor()
	request, err := http.NewRequestWithContext(r.Context(), http.MethodPost, r.baseURL+chatPath, strings.NewReader(body))
	if err != nil {
		r.Error(err)
		return a
	}
	request.Header.Set("Authorization", "Bearer "+r.token)
	request.Header.Set("Content-Type", "application/json")
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		r.Error(err)
		return a
	}
	defer reply.Body.Close()
	if a.status = reply.StatusCode; a.status != http.StatusOK {
		content, _ := io.ReadAll(reply.Body)
		a.text = string(content)
		return a
	}
	for lines := bufio.NewScanner(reply.Body); lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok || data == "[DONE]" {
			continue
		}
		var event struct {
			Error   json.RawMessage
			Choices []struct {
				FinishReason *string `json:"finish_reason"`
				Delta        struct{ Content *string }
			}
		}
		if err := json.Unmarshal([]byte(data), &event); err != nil || event.Error != nil || len(event.Choices) == 0 {
			a.text, a.failed = data, true
			break
		}
		choice := event.Choices[0]
		if choice.FinishReason == nil && a.spent.wall == 0 { // the runtime's first event comes with its first token
			a.spent = spent{time.Since(began), r.processor() - before}
		}
		if choice.Delta.Content != nil {
			a.text += *choice.Delta.Content
		}
		if choice.FinishReason != nil {
			a.whole = *choice.FinishReason == "stop"
		}
	}
	return a
}

const (
	// calibrationTime is how long TestGrammarCalibration tries schemas; GRAMMAR_TIME sets another.
	calibrationTime = 75 * time.Second
	// firstTokenBound is for the first token of any accepted request, and of one that runs at the same time.
	firstTokenBound = 2 * time.Second
)

// busy reports whether more processes want to run than this machine has processors. This test keeps two busy.
func busy(t *testing.T) bool {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text)) // 0.20 0.18 0.12 1/80 11206
	running, _, _ := strings.Cut(fields[3], "/")
	load, err := strconv.ParseFloat(fields[0], 64)
	now, wrong := strconv.Atoi(running)
	if err := errors.Join(err, wrong); err != nil {
		t.Fatal(err)
	}
	return max(load, float64(now)) > float64(runtime.NumCPU())+1
}

// L6a, T16: whatever schema is accepted, the real runtime survives it, answers in its sense, and spends at most
// 2 s on the first token; a request at the same time waits no longer. The schemas lie at the edge of what is
// accepted. GRAMMAR_SEED repeats a run, GRAMMAR_FAMILY chooses kinds of schemas. The runtime's processor time is
// bounded always, and the wall clock while the machine does nothing else.
func TestGrammarCalibration(t *testing.T) {
	r := &grammarRig{T: t, companion: harness.Ready(t, "")}
	r.baseURL, r.token = r.companion.Endpoint()
	r.runtimes = r.companion.Runtimes()
	seed, limit := uint64(time.Now().UnixNano()), calibrationTime
	if text := os.Getenv("GRAMMAR_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	if text := os.Getenv("GRAMMAR_TIME"); text != "" {
		limit, _ = time.ParseDuration(text)
	}
	t.Logf("GRAMMAR_SEED=%d", seed)
	r.random = rand.New(rand.NewPCG(seed, 1))
	g := grammarMaker{r.random}
	names := slices.Sorted(maps.Keys(families))
	if only := os.Getenv("GRAMMAR_FAMILY"); only != "" {
		names = strings.Split(only, ",")
	}
	r.ask(honestRequest)
	worst := map[string]spent{}
	tried := 0
	for began := time.Now(); time.Since(began) < limit; {
		g.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		for _, name := range names {
			if time.Since(began) > limit {
				break
			}
			if schema, found := g.edge(families[name]); found {
				tried++
				took := r.try(name, schema)
				worst[name] = spent{max(worst[name].wall, took.wall), max(worst[name].processor, took.processor)}
			}
		}
	}
	t.Logf("%d schemas", tried)
	if tried == 0 {
		t.Error("got no schema tried, want some")
	}
	for _, name := range slices.Sorted(maps.Keys(worst)) {
		t.Logf("%-30s %v", name, worst[name])
	}
}

const honestRequest = `{"messages":[{"role":"user","content":"Hello."}],"max_tokens":2,"stream":true}`

// try sends a schema and, at the same time, an honest request. It returns the longer wait.
func (r *grammarRig) try(name string, schema any) spent {
	body := grammarRequest(schema, 3+r.random.IntN(20))
	honest, later := make(chan answerStart, 1), time.Duration(10+r.random.IntN(300))*time.Millisecond
	go func() {
		time.Sleep(later) // so that it comes while the other is answered
		honest <- r.ask(honestRequest)
	}()
	attack := r.ask(body)
	other := <-honest
	shown := body[:min(len(body), 700)]
	if attack.status != http.StatusOK || attack.failed {
		r.Errorf("%s: got %d %.300s, want 200 to %s", name, attack.status, attack.text, shown)
	}
	if err := fits(schema, attack.text, attack.whole); err != nil {
		r.Errorf("%s: %v: %s", name, err, shown)
	}
	for who, took := range map[string]spent{"its": attack.spent, "another request's": other.spent} {
		if took.processor > firstTokenBound || took.wall > firstTokenBound && !busy(r.T) {
			r.Errorf("%s: %s first token came after %v, want at most %v: %s", name, who, took, firstTokenBound, shown)
		}
	}
	if now := r.companion.Runtimes(); !slices.Equal(now, r.runtimes) {
		r.Fatalf("%s: got runtime process %v, want %v still, after %s", name, now, r.runtimes, shown)
	}
	return spent{max(attack.spent.wall, other.spent.wall), max(attack.spent.processor, other.spent.processor)}
}

// fits checks a whole answer against the pattern of its schema, as Go's regexp reads it.
func fits(schema any, text string, whole bool) error {
	if !whole {
		return nil
	}
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		return fmt.Errorf("answer %q is not JSON: %w", text, err)
	}
	pattern, ok := schema.(object)["pattern"].(string)
	if !ok {
		return nil
	}
	s, ok := value.(string)
	compiled, err := regexp.Compile(`^(?:` + pattern[1:len(pattern)-1] + `)$`)
	if err != nil { // Go limits a repetition to 1000; FuzzPattern compares the meaning of patterns
		compiled = regexp.MustCompile(``)
	}
	if !ok || !compiled.MatchString(s) {
		return fmt.Errorf("answer %q does not match %s", text, pattern)
	}
	return nil
}
