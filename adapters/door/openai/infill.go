package openai

import "strconv"

// infillRequest is the table of /infill, llama.cpp's own route for editors.
var infillRequest = newObject(join(
	[]field{
		{name: "input_prefix", rule: text{prompt: true}, required: true, doc: "the text before the cursor"},
		{name: "input_suffix", rule: text{prompt: true}, required: true, doc: "the text after the cursor"},
		{name: "prompt", rule: text{prompt: true}, doc: "the text between `input_prefix` and the cursor"},
		{name: "input_extra", rule: list{of: infillExtra, max: 256}, doc: "other texts to look at"},
		{name: "model", rule: hiddenRule{modelRule{}}, doc: docModel},
		{name: "n_predict", rule: hiddenRule{infillBound{tokenBound{"n_predict"}}}, doc: "longest answer; the context when absent; 0 only reads the text"},
		{name: "max_tokens", rule: hiddenRule{tokenBound{"max_tokens"}}, doc: "the same under its OpenAI name"},
		{name: "n_indent", rule: integer{min: 0, max: 1 << 10}, doc: "llama.cpp; least indentation of the answer's lines"},
		{name: "t_max_predict_ms", rule: integer{min: 0, max: 1 << 22}, doc: "llama.cpp; how long the answer may take after its first line"},
		{name: "t_max_prompt_ms", action: drop, doc: "the runtime does not use it"},
		{name: "response_fields", action: drop, doc: "the whole answer is sent, with the wanted fields"},
	}, common, withInfillSampler(sampling), droppedFields, foreignFields, without(forbiddenFields, "n_indent", "t_max_predict_ms", "response_fields"))...)

var infillExtra = newObject(
	field{name: "filename", rule: text{max: 4096, prompt: true}, doc: "its name"},
	field{name: "text", rule: text{prompt: true}, required: true, doc: "its content"},
)

// withInfillSampler adds the sampler that only this route has.
func withInfillSampler(fields []field) []field {
	all := append([]field{}, fields...)
	for i, f := range all {
		if f.name == "samplers" {
			all[i].rule = samplers{infill: true}
		}
	}
	return all
}

// without returns fields except some.
func without(fields []field, names ...string) (rest []field) {
	for _, f := range fields {
		keep := true
		for _, name := range names {
			keep = keep && f.name != name
		}
		if keep {
			rest = append(rest, f)
		}
	}
	return rest
}

// infillBound is tokenBound, and 0, by which editors warm the cache up. The least answer of the others has one token.
type infillBound struct{ tokenBound }

func (b infillBound) describe() string {
	return "a whole number of at least 0; more than the context is lowered to it; -1 is no limit"
}

func (b infillBound) read(r *reader) *Error {
	x, err := r.number(b.describe())
	if err != nil {
		return err
	}
	return b.take(r, x, 0, b.describe())
}

// placedPrompt is a prompt. It notes where in the body one text is, for the suffix.
type placedPrompt struct{ rule }

func (p placedPrompt) read(r *reader) *Error {
	isText, begin := r.dec.PeekKind() == '"', len(r.out)
	err := p.rule.read(r)
	if isText {
		r.seen.promptAt = [2]int{begin, len(r.out)}
	}
	return err
}

// NoInfill is why a model without the tokens for it refuses to fill in the middle.
const NoInfill = "the served model has no tokens for filling in the middle; take a model that has them, such as one made for code"

// suffix is the text after the answer. An empty one says nothing.
type suffix struct{}

func (suffix) describe() string { return "a string" }

func (suffix) read(r *reader) *Error {
	begin := len(r.out)
	if err := (text{prompt: true}).read(r); err != nil {
		return err
	}
	if written := r.out[begin:]; len(written) > len(`""`) {
		if !r.serving.Model.Infill.Known {
			return fault(faultRefused, NoInfill)
		}
		r.seen.suffix = append([]byte{}, written...)
	}
	r.omit = true
	return nil
}

// finishSuffix writes a prompt with a suffix as the runtime wants it: the texts between the tokens of the model that mark
// them.
func (r *reader) finishSuffix() *Error {
	if r.seen.suffix == nil {
		return nil
	}
	at := r.seen.promptAt
	if at == [2]int{} {
		return fault(faultNeeds, "one text as `prompt`").at("suffix")
	}
	tokens := r.serving.Model.Infill
	rest := append([]byte{}, r.out[at[0]:]...)
	before, after := rest[:at[1]-at[0]], rest[at[1]-at[0]:]
	r.out = append(r.out[:at[0]], '[')
	if tokens.Begin >= 0 {
		r.out = append(strconv.AppendInt(r.out, int64(tokens.Begin), 10), ',')
	}
	r.out = append(strconv.AppendInt(r.out, int64(tokens.Prefix), 10), ',')
	r.out = append(append(r.out, before...), ',')
	r.out = append(strconv.AppendInt(r.out, int64(tokens.Suffix), 10), ',')
	r.out = append(append(r.out, r.seen.suffix...), ',')
	r.out = append(strconv.AppendInt(r.out, int64(tokens.Middle), 10), ']')
	r.out = append(r.out, after...)
	return nil
}
