package openai

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// Many chat templates accept one system message, at the beginning, and then user and assistant in turn; others fail.
// Programs send conversations that do not fit them: Claude Code writes system messages between the turns, codex a
// developer message behind its instructions and several user messages in a row. The runtime answers 400 then. Fold
// writes such a conversation in the form that every template accepts.

// Fold returns a body that Check has made, with the conversation in the plainest form: system and developer messages
// at the beginning become one, later ones become user messages, and neighbors with one role become one message. The
// texts and their order stay. changed is false if there is nothing to fold.
func Fold(route Route, body []byte) (folded []byte, changed bool) {
	name := "messages"
	switch route {
	case Responses:
		name = "input"
	case Chat, Messages, CountTokens:
	default:
		return body, false
	}
	f := folder{route: route}
	members, err := f.members(body)
	if err != nil {
		return body, false
	}
	for _, m := range members {
		switch {
		case m.name == name && m.value[0] == '[':
			if f.turns, err = f.elements(m.value); err != nil {
				return body, false
			}
		case m.name == "system" && route == Messages, m.name == "system" && route == CountTokens, m.name == "instructions" && route == Responses:
			f.system = m.value
		}
	}
	if err := f.fold(); err != nil || !f.changed {
		return body, false
	}
	return f.write(members, name, len(body)), true
}

// FoldMemory is more than the bytes that Fold allocates for body: some for each message, and the new body.
func FoldMemory(body []byte) int { return 3*len(body) + 1024*bytes.Count(body, []byte("{")) + 4096 }

// member is one member of an object; its value is as it is written, a part of the body.
type member struct {
	name  string
	value jsontext.Value
}

// splitter splits objects and arrays, one after another, without copying them.
type splitter struct {
	source bytes.Buffer
	dec    *jsontext.Decoder
}

// begin reads the bracket at the beginning.
func (s *splitter) begin(value []byte) error {
	s.source = *bytes.NewBuffer(value)
	if s.dec == nil {
		s.dec = jsontext.NewDecoder(&s.source, jsontext.AllowDuplicateNames(true))
	} else {
		s.dec.Reset(&s.source, jsontext.AllowDuplicateNames(true))
	}
	_, err := s.dec.ReadToken()
	return err
}

// next reads the next value, which is a part of whole.
func (s *splitter) next(whole []byte) (jsontext.Value, error) {
	value, err := s.dec.ReadValue()
	if err != nil {
		return nil, err
	}
	end := int(s.dec.InputOffset())
	return whole[end-len(value) : end : end], nil
}

func (s *splitter) members(object []byte) (all []member, err error) {
	if err := s.begin(object); err != nil {
		return nil, err
	}
	for s.dec.PeekKind() == '"' {
		name, err := s.dec.ReadToken()
		if err != nil {
			return nil, err
		}
		key := name.String()
		value, err := s.next(object)
		if err != nil {
			return nil, err
		}
		all = append(all, member{key, value})
	}
	return all, s.end()
}

func (s *splitter) elements(array []byte) (all []jsontext.Value, err error) {
	if err := s.begin(array); err != nil {
		return nil, err
	}
	for s.dec.PeekKind() != ']' {
		value, err := s.next(array)
		if err != nil {
			return nil, err
		}
		all = append(all, value)
	}
	return all, s.end()
}

// end reads the bracket at the end, behind which nothing may be.
func (s *splitter) end() error {
	if _, err := s.dec.ReadToken(); err != nil {
		return err
	}
	if _, err := s.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("a value is followed by another")
	}
	return nil
}

// folder folds one conversation.
type folder struct {
	splitter
	route   Route
	system  jsontext.Value // of the field for it; nil if there is none
	turns   []jsontext.Value
	leading []jsontext.Value // contents of the system messages at the beginning
	out     []foldedTurn
	changed bool
}

// foldedTurn is a message that can be joined with another, or something else.
type foldedTurn struct {
	raw     jsontext.Value // of something else; nil otherwise
	role    string
	content []jsontext.Value // parts
	rest    []member         // of a message with more than role and content
}

func (f *folder) fold() error {
	for _, raw := range f.turns {
		t, err := f.read(raw)
		if err != nil {
			return err
		}
		system := t.raw == nil && (t.role == "system" || t.role == "developer")
		last := len(f.out) - 1
		switch {
		case system && last < 0:
			f.changed = f.changed || len(f.leading) > 0 || f.system != nil || f.route != Chat
			f.leading = append(f.leading, t.content...)
			continue
		case system:
			t.role, f.changed = "user", true
		}
		if last >= 0 && t.raw == nil && f.out[last].joins(t) {
			f.out[last].content = append(f.out[last].content, t.content...)
			f.out[last].rest = withoutName(t.rest)
			f.changed = true
			continue
		}
		f.out = append(f.out, t)
	}
	return nil
}

// joins reports whether the message next can become a part of t. The names of speakers are lost then.
func (t foldedTurn) joins(next foldedTurn) bool {
	return t.raw == nil && t.role == next.role && len(withoutName(t.rest)) == 0
}

func withoutName(members []member) []member {
	return slices.DeleteFunc(slices.Clone(members), func(m member) bool { return m.name == "name" })
}

// read reads a message. What is not one with a role and a content, such as a call of a function, stays as it is.
func (f *folder) read(raw jsontext.Value) (t foldedTurn, err error) {
	members, err := f.members(raw)
	if err != nil {
		return t, err
	}
	plain := false
	for _, m := range members {
		switch m.name {
		case "role":
			if t.role, err = textOf(m.value); err != nil {
				return t, err
			}
		case "content":
			plain = true
			if t.content, err = f.parts(m.value); err != nil {
				return t, err
			}
		case "type": // of an item of Responses
			if kind, err := textOf(m.value); err != nil || kind != "message" {
				return foldedTurn{raw: raw}, err
			}
		default:
			t.rest = append(t.rest, m)
		}
	}
	if t.role == "tool" || !plain && len(t.rest) == 0 {
		return foldedTurn{raw: raw}, nil
	}
	return t, nil
}

func textOf(v jsontext.Value) (string, error) {
	b, err := jsontext.AppendUnquote(nil, v)
	return string(b), err
}

// parts returns a content as parts.
func (f *folder) parts(content jsontext.Value) ([]jsontext.Value, error) {
	switch content[0] {
	case '[':
		return f.elements(content)
	case '"':
		if len(content) == len(`""`) {
			return nil, nil
		}
		kind := "text"
		if f.route == Responses {
			kind = "input_text"
		}
		return []jsontext.Value{jsontext.Value(`{"type":"` + kind + `","text":` + string(content) + `}`)}, nil
	}
	return nil, errors.New("a content is neither a text nor parts")
}

// write writes the body again. The member with the conversation stays at its place, because LimitAnswer looks for the bound
// at the end.
func (f *folder) write(members []member, name string, size int) []byte {
	out := append(make([]byte, 0, size+size/8), '{')
	comma := func() {
		if out[len(out)-1] != '{' {
			out = append(out, ',')
		}
	}
	for _, m := range members {
		if m.name == "system" && f.system != nil && f.route != Chat || m.name == "instructions" && f.system != nil {
			continue // written before the conversation
		}
		comma()
		if m.name == name {
			out = f.appendConversation(out, name)
			continue
		}
		out = append(append(appendQuoted(out, m.name), ':'), m.value...)
	}
	return append(out, '}')
}

// appendConversation appends what the system says, where the format has it, and the turns.
func (f *folder) appendConversation(out []byte, name string) []byte {
	switch {
	case f.route == Chat:
	case f.route == Responses && (f.system != nil || len(f.leading) > 0):
		out = append(append(out, `"instructions":`...), f.instructions()...)
		out = append(out, ',')
	case f.system != nil || len(f.leading) > 0: // the format of Anthropic
		parts, err := f.parts(f.system)
		if f.system == nil || err != nil {
			parts = nil
		}
		out = append(appendParts(append(out, `"system":`...), append(parts, f.leading...)), ',')
	}
	out = append(append(appendQuoted(out, name), ':'), '[')
	first := true
	if f.route == Chat && len(f.leading) > 0 {
		out = append(appendParts(append(out, `{"role":"system","content":`...), f.leading), '}')
		first = false
	}
	for _, t := range f.out {
		if !first {
			out = append(out, ',')
		}
		first = false
		if t.raw != nil {
			out = append(out, t.raw...)
			continue
		}
		out = append(appendQuoted(append(out, `{"role":`...), t.role), `,"content":`...)
		out = appendParts(out, t.content)
		for _, m := range t.rest {
			out = append(append(append(append(out, ','), appendQuoted(nil, m.name)...), ':'), m.value...)
		}
		if f.route == Responses {
			out = append(out, `,"type":"message"`...)
		}
		out = append(out, '}')
	}
	return append(out, ']')
}

// instructions are the instructions and the texts of the system messages behind them, as one text.
func (f *folder) instructions() []byte {
	text := ""
	if f.system != nil {
		text, _ = textOf(f.system) // Check has written it
	}
	for _, part := range f.leading {
		members, err := f.members(part)
		if err != nil {
			continue
		}
		for _, m := range members {
			if more, err := textOf(m.value); m.name == "text" && err == nil {
				if text != "" {
					text += "\n\n"
				}
				text += more
			}
		}
	}
	return appendQuoted(nil, text)
}

func appendParts(out []byte, parts []jsontext.Value) []byte {
	if len(parts) == 0 {
		return append(out, `""`...)
	}
	out = append(out, '[')
	for i, p := range parts {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, p...)
	}
	return append(out, ']')
}
