package openai

import (
	"bytes"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// union is an object whose field "type" says which of several objects it is.
type union struct {
	of map[string]rule
	// dropped and refused have the types that are left out or refused, with the reason.
	dropped, refused map[string]string
	// byDefault is the type of an object without one; empty if it must have one.
	byDefault string
}

func (u *union) types() []string {
	var all []string
	for name := range u.of {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

func (u *union) describe() string {
	return "an object with `type` `" + strings.Join(u.types(), "`, `") + "`"
}

func (u *union) read(r *reader) *Error {
	kind, err := r.typeAhead()
	if err != nil {
		return err
	}
	if kind == nil {
		if kind = []byte(u.byDefault); len(kind) == 0 {
			return fault(faultMissing, "").at("type")
		}
	}
	if inside, known := u.of[string(kind)]; known {
		r.seen.piece()
		return inside.read(r)
	}
	for name := range u.dropped {
		if name == string(kind) {
			r.omit = true
			r.drop(name)
			return r.skip()
		}
	}
	if why, known := u.refused[string(kind)]; known {
		return fault(faultRefused, why).at("type")
	}
	return fault(faultNotOneOf, strings.Join(u.types(), ", ")).at("type")
}

// typeAhead returns the string in the member "type" of the object that comes next, without reading the object; nil
// when there is none. What it skips is read and checked later.
func (r *reader) typeAhead() ([]byte, *Error) {
	if err := r.kind('{', "an object"); err != nil {
		return nil, err
	}
	r.aheadSource = *bytes.NewBuffer(trimToValue(r.dec.UnreadBuffer()))
	r.ahead.Reset(&r.aheadSource, jsontext.AllowDuplicateNames(true))
	if _, err := r.ahead.ReadToken(); err != nil {
		return nil, notJSON()
	}
	for r.ahead.PeekKind() == '"' {
		name, err := r.ahead.ReadValue()
		if err != nil {
			return nil, notJSON()
		}
		named, bad := r.unquote(name)
		if bad != nil {
			return nil, bad
		}
		if string(named) != "type" {
			if err := r.ahead.SkipValue(); err != nil {
				return nil, notJSON()
			}
			continue
		}
		switch r.ahead.PeekKind() {
		case '"':
			value, err := r.ahead.ReadValue()
			if err != nil {
				return nil, notJSON()
			}
			return r.unquote(value)
		case 'n':
			return nil, nil
		case invalid:
			return nil, notJSON()
		}
		return nil, fault(faultWrongType, "a string").at("type")
	}
	return nil, nil
}

// trimToValue drops what is between two values.
func trimToValue(b []byte) []byte { return bytes.TrimLeft(b, " \t\r\n,:") }

// constant is a string with one value, which is written as another.
type constant struct{ value, written string }

func (c constant) describe() string { return "`" + c.value + "`" }

func (c constant) read(r *reader) *Error {
	b, err := r.text()
	if err != nil {
		return err
	}
	if string(b) != c.value {
		return fault(faultNotOneOf, c.value)
	}
	r.out = appendQuoted(r.out, c.written)
	return nil
}

func typeField(kind string) field { return typeAs(kind, kind) }

// typeAs is a type that the runtime knows by another name.
func typeAs(kind, written string) field {
	return field{name: "type", rule: constant{kind, written}, doc: "the kind of object"}
}
