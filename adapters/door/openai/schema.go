package openai

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of schemas: the runtime turns each into a grammar, at a cost that grows faster than they do.
const (
	maxPattern    = 256       // bytes
	maxRepetition = 2000      // the runtime's grammar parser refuses more
	maxSchema     = 256 << 10 // bytes; it copies the whole schema for each reference
	// maxProperties bounds one object: to turn n optional properties into a grammar takes n³ steps, and
	// of 1024 the runtime cannot read the grammar that it made.
	maxProperties = 512
	// maxParts bounds all properties, enum values, alternatives and references of a request: each that
	// may come next is held against the whole vocabulary for each token. 1024 take 4 s, during which
	// nobody is answered.
	maxParts = 1024
)

// schema is a JSON Schema, whose references stay inside it.
type schema struct{}

func (schema) describe() string {
	return fmt.Sprintf("a JSON Schema of at most %d bytes; references begin with # and not in a circle, patterns have at most %d bytes, "+
		"repetitions are at most %d, an object has at most %d properties, and there are at most %d properties, enum values, "+
		"alternatives and references in one request", maxSchema, maxPattern, maxRepetition, maxProperties, maxParts)
}

func (s schema) read(r *reader) *Error {
	if err := r.kind('{', "a JSON Schema"); err != nil {
		return err
	}
	mark := len(r.out)
	r.schemas.root = len(tokens(r.dec.StackPointer()))
	if err := readSchema(r); err != nil {
		return err
	}
	if len(r.out)-mark > maxSchema {
		return fault(faultTooLong, strconv.Itoa(maxSchema))
	}
	return r.schemas.follow()
}

func readSchema(r *reader) *Error { return (&anything{check: schemaMember}).read(r) }

func schemaMember(r *reader, name string) (done bool, err *Error) {
	switch kind := r.dec.PeekKind(); {
	case kind == '"' && (name == "$ref" || name == "$dynamicRef" || name == "$recursiveRef"):
		return true, schemaReference(r)
	case kind == '"' && name == "pattern":
		return true, text{max: maxPattern}.read(r)
	case kind == '0':
		switch name {
		case "minItems", "maxItems", "minLength", "maxLength":
			return true, integer{min: 0, max: maxRepetition}.read(r)
		}
	case kind == '{' && name == "properties":
		return true, schemaProperties(r)
	case kind == '[':
		switch name {
		case "enum", "anyOf", "oneOf", "allOf":
			return true, list{of: schemaPart{}}.read(r)
		case "type":
			return true, schemaTypes(r)
		}
	}
	return false, nil
}

func schemaReference(r *reader) *Error {
	b, err := r.text()
	switch {
	case err != nil:
		return err
	case len(b) == 0 || b[0] != '#':
		return fault(faultReference, "")
	}
	r.out = appendQuoted(r.out, b)
	s := &r.schemas
	path := s.path(r)
	n := len(path)
	s.references = append(s.references, reference{
		at: place(path), to: place(strings.Split(string(b), "/")[1:]),
		merged: n >= 2 && path[n-2] == "allOf" || n >= 4 && path[n-4] == "allOf" && path[n-2] == "anyOf",
	})
	return s.part()
}

// schemaProperties reads the schemas of an object's properties.
func schemaProperties(r *reader) *Error {
	at, before := place(r.schemas.path(r)), r.schemas.parts
	err := (&anything{max: maxProperties, check: func(r *reader, name string) (bool, *Error) {
		if err := r.schemas.part(); err != nil {
			return false, err
		}
		if done, err := schemaMember(r, name); done || err != nil {
			return done, err
		}
		return true, readSchema(r)
	}}).object(r)
	r.schemas.properties = append(r.schemas.properties, properties{at, r.schemas.parts - before})
	return err
}

// schemaPart is one of an array of parts.
type schemaPart struct{}

func (schemaPart) describe() string { return "any JSON" }

func (schemaPart) read(r *reader) *Error {
	if err := r.schemas.part(); err != nil {
		return err
	}
	return readSchema(r)
}

// schemaTypes reads a list of types. The runtime reads the schema once for each: one that is named
// twice doubles the work at each level.
func schemaTypes(r *reader) *Error {
	mark := len(r.out)
	if err := (list{of: schemaPart{}}).read(r); err != nil {
		return err
	}
	for _, word := range []string{`"object"`, `"array"`} {
		if bytes.Count(r.out[mark:], []byte(word)) > 1 {
			return fault(faultWrongType, "an array of different types")
		}
	}
	return nil
}

// schemas is what the bounds of a request's schemas need to know of them. The runtime resolves
// references by their text alone, whichever of the request's schemas they stand in.
type schemas struct {
	root       int // how deep the schema that is read stands in the request
	parts      int
	references []reference
	properties []properties
}

type reference struct {
	at, to string
	merged bool // the properties that it leads to become those of the schema whose allOf it stands in
}

type properties struct {
	of    string // the schema that they stand in
	count int    // with all parts inside them
}

// part counts one part of a schema.
func (s *schemas) part() *Error {
	if s.parts++; s.parts > maxParts {
		return fault(faultTooWide, strconv.Itoa(maxParts))
	}
	return nil
}

// path tells which schema the member stands in whose name was read last.
func (s *schemas) path(r *reader) []string {
	return tokens(r.dec.StackPointer().Parent())[s.root:]
}

// follow goes after the references. The runtime makes the rules for a schema once, however often it is
// referred to, but not for one that is merged: that is as good as a copy, with all that is merged inside
// it, and from a circle of those the runtime never comes back.
func (s *schemas) follow() *Error {
	parts, next := map[string]int{}, map[string][]string{}
	var merged []reference // by place
	for _, p := range s.properties {
		parts[p.of] += p.count
	}
	for _, r := range s.references {
		next[r.at] = append(next[r.at], r.to)
		if r.merged {
			merged = append(merged, r)
		}
	}
	slices.SortFunc(merged, func(a, b reference) int { return strings.Compare(a.at, b.at) })

	const beingWeighed = -1
	weights := map[string]int{} // all parts of a copy
	var weigh func(at string) *Error
	weigh = func(at string) *Error {
		if weight, known := weights[at]; known {
			if weight == beingWeighed {
				return fault(faultCircle, "")
			}
			return nil
		}
		weights[at] = beingWeighed
		targets := slices.Clone(next[at])
		first, _ := slices.BinarySearchFunc(merged, at+"/", func(r reference, at string) int { return strings.Compare(r.at, at) })
		for _, r := range merged[first:] {
			if !strings.HasPrefix(r.at, at+"/") {
				break
			}
			targets = append(targets, r.to)
		}
		sum := parts[at]
		for _, to := range targets {
			if err := weigh(to); err != nil {
				return err
			}
			sum = min(sum+weights[to], maxParts+1)
		}
		weights[at] = sum
		return nil
	}
	all := s.parts
	for _, r := range s.references {
		if err := weigh(r.to); err != nil {
			return err
		}
		if r.merged {
			if all += weights[r.to]; all > maxParts {
				return fault(faultTooWide, strconv.Itoa(maxParts))
			}
		}
	}
	return nil
}

func tokens(p jsontext.Pointer) []string { return slices.Collect(p.Tokens()) }

// place spells a path as the runtime reads it: an index may have blanks or a sign before it, and
// anything behind it.
func place(path []string) string {
	var b strings.Builder
	for _, token := range path {
		b.WriteByte('/')
		number := strings.TrimLeft(strings.TrimLeft(token, " \t\n\v\f\r"), "+-")
		if behind := strings.TrimLeft(number, "0123456789"); len(behind) < len(number) {
			token = strings.TrimLeft(number[:len(number)-len(behind)], "0")
		}
		b.WriteString(token)
	}
	return b.String()
}
