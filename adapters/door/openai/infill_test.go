package openai

import (
	"strings"
	"testing"

	"companion/messages"
)

// filling is a model that fills in the middle.
func filling(begin int) Serving {
	s := serving
	s.Model.Infill = messages.Infill{Known: true, Begin: begin, Prefix: 7, Suffix: 8, Middle: 9}
	return s
}

// vscode is what llama.vscode sends.
const vscode = `{"input_prefix":"def add(a, b):\n","input_suffix":"\nprint(add(1, 2))","input_extra":[{"filename":"a.py","text":"x = 1"}],"prompt":"    return ","n_predict":128,` +
	`"top_k":40,"top_p":0.99,"stream":false,"samplers":["top_k","top_p","infill"],"cache_prompt":true,"t_max_prompt_ms":500,"t_max_predict_ms":2500,"n_indent":4,"response_fields":["content","timings/prompt_n"]}`

// L13: a completion with a suffix becomes the texts between the model's tokens, in whatever order the fields come. The
// route of llama.cpp gets what its clients send.
func TestInfill(t *testing.T) {
	const end = `,"model":"gemma","max_tokens":4096}`
	for name, c := range map[string]struct {
		route    Route
		serving  Serving
		in, want string
	}{
		"suffix":         {Completions, filling(-1), `{"prompt":"a\n","suffix":"b","n":2}`, `{"prompt":[7,"a\n",8,"b",9],"n":2` + end},
		"suffix first":   {Completions, filling(-1), `{"suffix":"b","prompt":"a"}`, `{"prompt":[7,"a",8,"b",9]` + end},
		"begin":          {Completions, filling(0), `{"prompt":"","suffix":"b","max_tokens":3}`, `{"prompt":[0,7,"",8,"b",9],"model":"gemma","max_tokens":3}`},
		"empty suffix":   {Completions, filling(-1), `{"prompt":"a","suffix":""}`, `{"prompt":"a"` + end},
		"null suffix":    {Completions, filling(-1), `{"prompt":"a","suffix":null}`, `{"prompt":"a"` + end},
		"empty, no such": {Completions, serving, `{"prompt":"a","suffix":""}`, `{"prompt":"a"` + end},
		"infill":         {Infill, filling(-1), `{"input_prefix":"a","input_suffix":"b"}`, `{"input_prefix":"a","input_suffix":"b","model":"gemma","n_predict":4096}`},
		"warming up":     {Infill, filling(-1), `{"input_prefix":"a","input_suffix":"","n_predict":0,"samplers":[]}`, `{"input_prefix":"a","input_suffix":"","samplers":[],"model":"gemma","n_predict":0}`},
		"llama.vscode":   {Infill, filling(-1), vscode, strings.NewReplacer(`"n_predict":128,`, "", `"t_max_prompt_ms":500,`, "", `,"response_fields":["content","timings/prompt_n"]}`, `,"model":"gemma","n_predict":128}`).Replace(vscode)},
	} {
		if got, _, refused := checked(c.route, c.serving, c.in); got != c.want || refused != "" {
			t.Errorf("%s: got %s %s, want %s", name, got, refused, c.want)
		}
	}
	for name, c := range map[string]struct {
		route   Route
		serving Serving
		in      string
		want    string // in the refusal
	}{
		"no tokens":          {Completions, serving, `{"prompt":"a","suffix":"b"}`, "`suffix` is not allowed: the served model has no tokens for filling in the middle"},
		"several prompts":    {Completions, filling(-1), `{"prompt":["a"],"suffix":"b"}`, "`suffix` needs one text as `prompt`"},
		"tokens":             {Completions, filling(-1), `{"prompt":[1],"suffix":"b"}`, "`suffix` needs one text as `prompt`"},
		"suffix is a number": {Completions, filling(-1), `{"prompt":"a","suffix":1}`, "`suffix` must be a string"},
		"too long":           {Completions, filling(-1), `{"prompt":"a","suffix":"` + strings.Repeat("x", 257*4096) + `"}`, "does not fit the context"},
		"tokens from client": {Completions, filling(-1), `{"prompt":[7,"a",8,"b",9]}`, "`prompt[1]`"},
		"no suffix":          {Infill, filling(-1), `{"input_prefix":"a"}`, "`input_suffix` is missing"},
		"no prefix":          {Infill, filling(-1), `{"input_suffix":"a"}`, "`input_prefix` is missing"},
		"long prefix":        {Infill, filling(-1), `{"input_prefix":"` + strings.Repeat("x", 257*4096) + `","input_suffix":""}`, "does not fit the context"},
		"long extra":         {Infill, filling(-1), `{"input_prefix":"","input_suffix":"","input_extra":[{"text":"` + strings.Repeat("x", 257*4096) + `"}]}`, "does not fit the context"},
		"slot":               {Infill, filling(-1), `{"input_prefix":"a","input_suffix":"b","id_slot":0}`, "`id_slot` is not allowed"},
		"grammar":            {Infill, filling(-1), `{"input_prefix":"a","input_suffix":"b","grammar":"x"}`, "`grammar` is not allowed"},
		"lora":               {Infill, filling(-1), `{"input_prefix":"a","input_suffix":"b","lora":[]}`, "`lora` is not allowed"},
		"another sampler":    {Infill, filling(-1), `{"input_prefix":"a","input_suffix":"b","samplers":["x"]}`, "infill"},
		"in completions":     {Completions, filling(-1), `{"prompt":"a","samplers":["infill"]}`, "`samplers[0]`"},
		"negative bound":     {Infill, filling(-1), `{"input_prefix":"a","input_suffix":"b","n_predict":-2}`, "`n_predict` must be a whole number of at least 0"},
		"unknown":            {Infill, filling(-1), `{"input_prefix":"a","input_suffix":"b","x":1}`, "Unknown field `x`"},
	} {
		if got, _, refused := checked(c.route, c.serving, c.in); !strings.Contains(refused, c.want) {
			t.Errorf("%s: got %.80s %q, want a refusal with %q", name, got, refused, c.want)
		}
	}
}

// L15: only a lower limit changes the bound of an answer, and the rest of the body stays.
func TestLimitAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		route    Route
		in, want string
		limit    int
		ok       bool
	}{
		"lower":     {Chat, `{"a":1,"max_tokens":4096}`, `{"a":1,"max_tokens":7}`, 7, true},
		"higher":    {Responses, `{"max_output_tokens":40}`, `{"max_output_tokens":40}`, 4000, true},
		"the same":  {Infill, `{"n_predict":0}`, `{"n_predict":0}`, 5, true},
		"no answer": {Embeddings, `{"input":"a","model":"m"}`, `{"input":"a","model":"m"}`, 7, false},
		"no bound":  {Chat, `{}`, `{}`, 7, false},
	} {
		if got, ok := LimitAnswer(c.route, []byte(c.in), c.limit); string(got) != c.want || ok != c.ok {
			t.Errorf("%s: got %s, %v, want %s, %v", name, got, ok, c.want, c.ok)
		}
	}
}

// L6a: a token number beyond the model's vocabulary is refused with its place and the largest number; where the
// vocabulary is not known, up to a million.
func TestTokensOfTheVocabulary(t *testing.T) {
	known := serving
	known.Model.Vocabulary = 30522
	for in, want := range map[string]string{
		`{"prompt":[0,30521]}`:         "",
		`{"prompt":[0,30522]}`:         "`prompt[1]` must be a whole number from 0 to 30521",
		`{"prompt":["a",[30522]]}`:     "`prompt[1][0]` must be a whole number from 0 to 30521",
		`{"prompt":[[1],[1,1048576]]}`: "`prompt[1][1]` must be a whole number from 0 to 30521",
	} {
		if _, _, refused := checked(Completions, known, in); (refused == "") != (want == "") || !strings.Contains(refused, want) {
			t.Errorf("%s: got %q, want a refusal with %q", in, refused, want)
		}
		embedding := strings.Replace(in, "prompt", "input", 1)
		if _, _, refused := checked(Embeddings, known, embedding); (refused == "") != (want == "") || !strings.Contains(refused, strings.Replace(want, "prompt", "input", 1)) {
			t.Errorf("%s: got %q, want a refusal with %q", embedding, refused, want)
		}
	}
	if _, _, refused := checked(Completions, serving, `{"prompt":[1048576]}`); refused != "" {
		t.Errorf("a vocabulary that is not known: got %q, want it accepted", refused)
	}
}

// L12: fields of vLLM and of routers that have no meaning here are dropped, and the refusal of the others says what
// to do.
func TestFieldsOfOtherServers(t *testing.T) {
	harmless := `"provider":{"order":["x"]},"transforms":[],"route":"fallback","usage":{"include":true},"min_tokens":0,"stop_token_ids":[],"skip_special_tokens":true`
	if got, result, refused := checked(Chat, serving, chatOf(harmless)); refused != "" || got != `{`+hi+`,"model":"gemma","max_tokens":4096}` || len(result.Dropped) != 4 {
		t.Errorf("got %s, dropped %v, %s, want all seven fields left out, and the four that carry something counted", got, result.Dropped, refused)
	}
	for in, want := range map[string]string{
		`"num_ctx":4097`: "model.context", `"reasoning":{"max_tokens":9}`: "`thinking_budget`", `"thinking":{"type":"off"}`: "disabled", `"min_tokens":5`: "`min_tokens`", `"stop_token_ids":[1]`: "`stop`", `"skip_special_tokens":false`: "`skip_special_tokens`",
	} {
		if _, _, refused := checked(Chat, serving, chatOf(in)); !strings.Contains(refused, want) {
			t.Errorf("%s: got %q, want a refusal with %q", in, refused, want)
		}
	}
}

// L12: no table has a field twice: the later row would replace the decision of the earlier one.
func TestNoFieldTwice(t *testing.T) {
	for route, form := range forms {
		seen := map[string]bool{}
		for _, f := range form.fields.fields {
			if seen[f.name] {
				t.Errorf("route %d: got two rows of %s, want one", route, f.name)
			}
			seen[f.name] = true
		}
	}
}
