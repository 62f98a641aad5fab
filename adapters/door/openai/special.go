package openai

import (
	"bytes"
	"fmt"
	"strconv"
)

// modelRule accepts an empty name or the name of the served model (L6a).
type modelRule struct{}

func (modelRule) describe() string { return "a string" }

func (modelRule) read(r *reader) *Error {
	b, err := r.text()
	if err != nil {
		return err
	}
	if len(b) > 0 && string(b) != r.serving.Model.Name {
		return fault(faultNoModel, r.serving.Model.Name)
	}
	return nil
}

// answers is the field n. The runtime refuses more answers than it has slots.
type answers struct{}

const maxAnswers = 4

func (answers) describe() string {
	return fmt.Sprintf("a whole number from 1 to %d, and to `runtime.max_in_flight`", maxAnswers)
}

func (answers) read(r *reader) *Error {
	return integer{min: 1, max: int64(min(maxAnswers, r.serving.Slots)), note: func(s *seen, n int64) { s.answers = int(n) }}.read(r)
}

// tokenList is a text as token numbers, at most as many as the context holds.
type tokenList struct{}

func (tokenList) describe() string { return "an array of tokens" }

func (tokenList) read(r *reader) *Error {
	return list{of: tokenOf(r.serving.Model), min: 1, max: r.serving.Model.Context}.read(r)
}

// promptList is one text as token numbers, or several texts.
type promptList struct{ most int }

func (p promptList) describe() string {
	return fmt.Sprintf("an array of tokens, or an array of at most %d: %s; a token is %s, and an array of them no longer than the context",
		p.most, oneText.describe(), token.describe()+", and less than the size of the model's vocabulary")
}

var oneText = either{'"': text{prompt: true}, '[': tokenList{}}

// countedText is one of several prompts.
type countedText struct{ either }

func (c countedText) read(r *reader) *Error {
	r.seen.prompts++
	longest := r.seen.textBytes
	r.seen.textBytes = 0
	err := c.either.read(r)
	r.seen.textBytes = max(longest, r.seen.textBytes)
	return err
}

func (p promptList) read(r *reader) *Error {
	if err := r.open('[', "an array"); err != nil {
		return err
	}
	if r.dec.PeekKind() == '0' {
		return list{of: tokenOf(r.serving.Model), min: 1, max: r.serving.Model.Context}.rest(r)
	}
	return list{of: countedText{oneText}, min: 1, max: p.most}.rest(r)
}

// dataURL accepts only URLs that hold their data. The runtime would fetch others.
type dataURL struct{}

func (dataURL) describe() string { return "a `data:` URL" }

func (dataURL) read(r *reader) *Error {
	b, err := r.text()
	if err != nil {
		return err
	}
	media, data, found := bytes.Cut(bytes.TrimPrefix(b, []byte("data:")), []byte(";base64,"))
	if !bytes.HasPrefix(b, []byte("data:")) || !found || !each(media, mediaByte) || !base64(data) {
		return fault(faultNotData, "")
	}
	r.out = appendQuoted(r.out, b)
	return nil
}

func base64(b []byte) bool { return each(b, base64Byte) }

func nameBytes(b []byte) bool {
	return each(b, func(c byte) bool { return alphanumeric(c) || c == '_' || c == '-' })
}

func base64Byte(c byte) bool { return alphanumeric(c) || c == '+' || c == '/' || c == '=' }
func mediaByte(c byte) bool  { return alphanumeric(c) || bytes.IndexByte([]byte("/+-._"), c) >= 0 }

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func each(b []byte, ok func(byte) bool) bool {
	for _, c := range b {
		if !ok(c) {
			return false
		}
	}
	return true
}

// formatRule is response_format. The runtime does not constrain an answer to json_object, so it gets the schema
// that means the same.
type formatRule struct{}

func (formatRule) describe() string { return "an object: `type`, `json_schema`" }

func (formatRule) read(r *reader) *Error {
	mark := len(r.out)
	r.seen.format.kind, r.seen.format.schema = "", false
	r.seen.inFormat = true
	defer func() { r.seen.inFormat = false }()
	if err := responseFormat.read(r); err != nil {
		return err
	}
	if r.seen.format.kind == "json_object" {
		r.out = append(r.out[:mark], anyObject...)
	}
	return nil
}

// anyObject is the format that means the same as json_object.
const anyObject = `{"type":"json_schema","json_schema":{"schema":{"type":"object"}}}`

// toolRule is a tool, which finishTools writes.
type toolRule struct{}

func (toolRule) describe() string { return "a function: `type`, `function`" }

func (toolRule) read(r *reader) *Error {
	return r.keepTool(tool)
}

// toolName is the name of a tool that is offered.
type toolName struct{ text }

func (n toolName) read(r *reader) *Error {
	mark := len(r.out)
	if err := n.text.read(r); err != nil {
		return err
	}
	r.toolNames = append(r.toolNames, string(r.out[mark+1:len(r.out)-1]))
	return nil
}

// toolNamed is the function's name in tool_choice.
type toolNamed struct{ text }

func (n toolNamed) read(r *reader) *Error {
	mark := len(r.out)
	if err := n.text.read(r); err != nil {
		return err
	}
	r.seen.toolNamed = string(r.out[mark+1 : len(r.out)-1])
	return nil
}

// renamed is a value that the runtime knows by another name; the field's own name is written before it.
type renamed struct {
	rule
	name string
}

// biases is logit_bias: an object from token numbers to biases.
var biases = biasRule{max: 1024}

type biasRule struct{ max int }

func (b biasRule) describe() string {
	return fmt.Sprintf("an object of at most %d token numbers, each with a number from -100 to 100", b.max)
}

func (b biasRule) read(r *reader) *Error {
	if err := r.open('{', "an object"); err != nil {
		return err
	}
	for n := 0; r.dec.PeekKind() != '}'; n++ {
		name, bad := r.memberName()
		if bad != nil {
			return bad
		}
		number, notNumber := strconv.ParseUint(string(name), 10, 32)
		switch {
		case notNumber != nil || number > 1<<20 || strconv.FormatUint(number, 10) != string(name):
			return fault(faultUnknown, "").at(shown(name))
		case n >= b.max:
			return fault(faultTooMany, strconv.Itoa(b.max))
		}
		key := strconv.FormatUint(number, 10)
		r.name(key)
		if err := biasRange.read(r); err != nil {
			return err.at(key)
		}
	}
	return r.close()
}

var biasRange = number{-100, 100}

// anything is free JSON, which is encoded again and bounded in depth. check, when set, may refuse the name of a
// member.
type anything struct {
	check func(name []byte) *Error
}

func (*anything) describe() string { return "any JSON" }

func (a *anything) read(r *reader) *Error {
	switch k := r.dec.PeekKind(); k {
	case '{':
		return a.object(r)
	case '[':
		return list{of: a}.read(r)
	case '"':
		return text{}.read(r)
	case '0':
		return anyNumber(r)
	case 't', 'f':
		return boolean{}.read(r)
	case 'n':
		if _, err := r.dec.ReadToken(); err != nil {
			return notJSON()
		}
		r.out = append(r.out, "null"...)
		return nil
	}
	if err := r.syntax(); err != nil {
		return err
	}
	return fault(faultNotJSON, "")
}

// anyNumber is exact for a whole number of 64 bits that is written without a point or an exponent. All others
// become a float64, as in the runtime.
func anyNumber(r *reader) *Error {
	const want = "a number that fits 64 bits"
	numeral, err := r.numeral(want)
	if err != nil {
		return err
	}
	if whole := !bytes.ContainsAny(numeral, ".eE"); whole && len(numeral) <= maxDigits {
		// At most 19 digits: the runtime gets the same text, except for -0.
		if string(numeral) == "-0" {
			numeral = numeral[1:]
		}
		if n, bad := strconv.ParseUint(string(bytes.TrimPrefix(numeral, []byte("-"))), 10, 64); bad == nil && (numeral[0] != '-' || n <= 1<<63) {
			r.out = append(r.out, numeral...)
			return nil
		}
	}
	x, err := asFloat(numeral, want)
	if err != nil {
		return err
	}
	r.out = appendNumber(r.out, x)
	return nil
}

// maxDigits are the bytes of the longest whole number of 64 bits.
const maxDigits = 20

func (a *anything) object(r *reader) *Error {
	if err := r.open('{', "an object"); err != nil {
		return err
	}
	for n := 0; r.dec.PeekKind() != '}'; n++ {
		if n >= maxMembers {
			return fault(faultTooMany, strconv.Itoa(maxMembers))
		}
		name, bad := r.memberName()
		if bad != nil {
			return bad
		}
		var kept [maxShown]byte // the name is overwritten when the value is read
		begin := kept[:copy(kept[:], name)]
		r.comma()
		r.out = append(appendQuoted(r.out, name), ':')
		if a.check != nil {
			if err := a.check(name); err != nil {
				return err.at(shown(begin))
			}
		}
		if err := a.read(r); err != nil {
			return err.at(shown(begin))
		}
		if err := r.fits(); err != nil {
			return err
		}
	}
	return r.close()
}
