package openai

import "strconv"

// Fields by which programs of other families say what llama.cpp has under another name: whether and how much a model
// thinks, and the penalty of repetition. Their values are kept, and finishSwitches writes each once.

// wish is a value that several fields can say. by is the field that said it; empty if none did.
type wish struct{ value, by string }

// say notes a value of the field by. Another field may say the same, and nothing else.
func (w *wish) say(by, value string) *Error {
	if w.by != "" && w.value != value {
		return fault(faultConflict, "another value of "+w.by)
	}
	w.by, w.value = by, value
	return nil
}

// thinks is whether a model that can think does: a boolean in the field by.
type thinks struct{ by string }

func (thinks) describe() string { return boolean{}.describe() }

func (t thinks) read(r *reader) *Error {
	on := false
	if err := (boolean{note: func(_ *seen, v bool) { on = v }}).read(r); err != nil {
		return err
	}
	return r.seen.thinking.say(t.by, strconv.FormatBool(on))
}

// efforts are the words for how much a model thinks. "none" also means that it does not, unless another field says so.
var efforts = oneOf("none", "minimal", "low", "medium", "high", "xhigh")

// effort is how much a model thinks: a word in the field by.
type effort struct{ by string }

func (effort) describe() string { return efforts.describe() }

func (e effort) read(r *reader) *Error {
	said := efforts
	word := ""
	said.note = func(_ *seen, w string) { word = w }
	if err := said.read(r); err != nil {
		return err
	}
	r.seen.noEffort = word == "none"
	return r.seen.effort.say(e.by, word)
}

// chatReasoning is the form of routers.
var chatReasoning = newObject(
	field{name: "effort", rule: effort{"reasoning"}, doc: "how much; as `reasoning_effort`"},
	field{name: "enabled", rule: thinks{"reasoning"}, doc: "whether a model that can think does"},
	field{name: "exclude", action: drop, doc: ownField},
	field{name: "summary", action: drop, doc: ownField},
	field{name: "max_tokens", action: refuse, doc: "write `thinking_budget`"},
)

// chatThinking is the form of DeepSeek, GLM and Kimi.
var chatThinking = newObject(
	field{name: "type", rule: thinkingType{}, required: true, doc: "whether a model that can think does"},
	field{name: "budget_tokens", action: refuse, doc: "write `thinking_budget`"},
	field{name: "clear_thinking", action: drop, doc: "a template decides which thoughts the model sees"},
)

type thinkingType struct{}

var thinkingTypes = oneOf("enabled", "disabled", "auto", "adaptive")

func (thinkingType) describe() string { return thinkingTypes.describe() }

func (thinkingType) read(r *reader) *Error {
	said, word := thinkingTypes, ""
	said.note = func(_ *seen, w string) { word = w }
	if err := said.read(r); err != nil {
		return err
	}
	switch word {
	case "enabled", "disabled":
		return r.seen.thinking.say("thinking", strconv.FormatBool(word == "enabled"))
	}
	return nil // the model's own choice
}

const ownField = "reasoning is sent in a field of its own"

// penalty is the penalty of repetition in the field by. The runtime's looks at the last `repeat_last_n` tokens.
type penalty struct{ by string }

var penalties = number{0.01, 10}

func (penalty) describe() string { return penalties.describe() }

func (p penalty) read(r *reader) *Error {
	mark := len(r.out)
	if err := penalties.read(r); err != nil {
		return err
	}
	return r.seen.penalty.say(p.by, string(r.out[mark:]))
}

// thoughtBound is the longest thought, in the field by.
type thoughtBound struct{ by string }

var thoughts = integer{min: 0, max: 1 << 30}

func (thoughtBound) describe() string { return thoughts.describe() }

func (b thoughtBound) read(r *reader) *Error {
	n, err := thoughts.value(r)
	if err != nil {
		return err
	}
	return r.seen.thought.say(b.by, strconv.FormatInt(n, 10))
}

// finishSwitches writes what the fields of this file said.
func (r *reader) finishSwitches() {
	if w := r.seen.penalty; w.by != "" {
		r.name("repeat_penalty")
		r.out = append(r.out, w.value...)
	}
	if w := r.seen.thought; w.by != "" {
		r.name("thinking_budget_tokens")
		r.out = append(r.out, w.value...)
	}
	if w := r.seen.effort; w.by != "" {
		r.name("reasoning_effort")
		r.out = appendQuoted(r.out, w.value)
	}
	if r.seen.thinking.by == "" && r.seen.noEffort {
		r.seen.thinking = wish{"false", "effort"}
	}
	if w := r.seen.thinking; w.by != "" {
		r.name("chat_template_kwargs")
		r.out = append(append(append(r.out, `{"enable_thinking":`...), w.value...), '}')
	}
}

// contextSize is a size of the context that the client wants. Every request can have the one that there is.
type contextSize struct{}

func (contextSize) describe() string { return "a whole number up to the context, which is left out" }

func (c contextSize) read(r *reader) *Error {
	n, err := (integer{min: 0, max: maxWhole}).value(r)
	if err != nil {
		return err
	}
	if context := int64(r.serving.Model.Context); n > context {
		return fault(faultRefused, "the context of every request holds "+strconv.FormatInt(context, 10)+" tokens; set `model.context`")
	}
	r.omit = true
	return nil
}
