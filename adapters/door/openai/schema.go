package openai

import (
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"strconv"
)

// Bounds of the schemas of one request. llama.cpp turns them into a grammar (schemacost.go bounds what
// that costs); these bound what is read and kept here.
const (
	maxSchema       = 256 << 10 // bytes of one schema
	maxProperties   = 512       // of one object
	maxParts        = 2048      // schemas and enum values
	maxReferences   = 256
	maxPropertyName = 256 // bytes; the runtime reads rule names with a recursive regular expression
	// maxItemsBound is the largest minItems or maxItems. The grammar parser refuses a group with 2000 rules, and
	// the group of an array has a few more rules than the array has items.
	maxItemsBound = 1900
	// maxPatternTotal bounds the items of all patterns together, each of which grows by at most 20 bytes
	// when it is rewritten.
	maxPatternTotal = 2048
	// maxOneBound bounds minimum or maximum where the other is absent, and is then given as the other: the
	// runtime has no more than 16 digits anyway. maxBothBounds holds where both are given.
	maxOneBound   = 1e15 - 1
	maxBothBounds = 1e18
)

// schema is a JSON Schema, as far as llama.cpp turns it into a grammar with the same meaning.
type schema struct{}

func (schema) describe() string {
	return "a JSON Schema, as described under *Schemas*"
}

func (schema) read(r *reader) *Error {
	s := &r.schemas
	s.start = len(r.out)
	root, err := r.subschema(noNode, roleRoot, placeOf(uint64(len(s.roots))), 0)
	if err != nil {
		return err
	}
	tool := len(r.tools)
	if r.seen.inFormat {
		tool = noTool
	}
	r.seen.format.empty = len(r.out)-s.start == len("{}")
	s.roots = append(s.roots, schemaRoot{node: root, tool: tool, bytes: len(r.out) - s.start})
	s.start = noSchema
	return nil
}

// schemas is what is kept of a request's schemas: a node for each, without names or paths.
type schemas struct {
	start        int // where the schema that is being read begins in the output
	parts        int
	patternItems int
	nodes        []schemaNode
	roots        []schemaRoot
	references   []schemaReference
}

// schemaRoot is one whole schema: the parameters of a tool, or the one of response_format.
type schemaRoot struct {
	node  int32
	tool  int // or noTool
	bytes int
}

const noTool = -1

// at names the schema in an error.
func (root schemaRoot) at(route Route, e *Error) *Error {
	path := forms[route].schemaPath
	if root.tool == noTool {
		path = forms[route].formatPath
	}
	for _, name := range slices.Backward(path) {
		e = e.at(name)
	}
	if root.tool == noTool {
		return e
	}
	return e.index(root.tool).at("tools")
}

// schemaReference is a $ref. The runtime names the rule of a target by the reference's text with all but letters,
// digits and hyphens replaced, and looks it up by that name in every schema.
type schemaReference struct {
	node        int32
	root        int32
	text, named uint64 // hashes
}

func (s *schemas) reset() {
	*s = schemas{start: noSchema, nodes: s.nodes[:0], roots: s.roots[:0], references: s.references[:0]}
}

// part counts one schema or enum value.
func (s *schemas) part() *Error {
	if s.parts++; s.parts > maxParts {
		return fault(faultTooManyParts, strconv.Itoa(maxParts))
	}
	return nil
}

// noSchema is where a schema begins while none is read.
const noSchema = -1

// fits checks the size of the schema that is being read, if one is.
func (r *reader) fits() *Error {
	if start := r.schemas.start; start != noSchema && len(r.out)-start > maxSchema {
		return fault(faultTooLong, strconv.Itoa(maxSchema))
	}
	return nil
}

// A place in a schema is a hash of the names and indices that lead to it. Its seed differs for each
// process, so that no client can make two places equal.
var placeSeed = maphash.MakeSeed()

func placeOf(root uint64) uint64 { return mix(0x9e3779b97f4a7c15, root) }

func mix(a, b uint64) uint64 { return maphash.Comparable(placeSeed, [2]uint64{a, b}) }

func hashOf(b []byte) uint64 { return maphash.Bytes(placeSeed, b) }

func hashOfString(s string) uint64 { return maphash.String(placeSeed, s) }

func under(place uint64, name []byte) uint64 { return mix(place, hashOf(name)) }

func (r *reader) atIndex(place uint64, i int) uint64 {
	var digits [20]byte
	return under(place, strconv.AppendInt(digits[:0], int64(i), 10))
}

// schemaFrame is what is known of a schema object while it is read.
type schemaFrame struct {
	node                 int32
	minLength, maxLength int64
	minItems, maxItems   int64
	low, high            bound
	required             []uint64
}

// bound is minimum and exclusiveMinimum, or maximum and exclusiveMaximum.
type bound struct {
	set      bool
	fraction bool
	at       float64
}

func (r *reader) subschema(parent int32, as role, place uint64, nameLength int) (int32, *Error) {
	s := &r.schemas
	if err := s.part(); err != nil {
		return 0, err
	}
	if err := r.open('{', "a JSON Schema, which is an object"); err != nil {
		return 0, err
	}
	f := schemaFrame{node: s.open(parent, as, place, nameLength), maxLength: -1, maxItems: -1}
	for r.dec.PeekKind() != '}' {
		name, err := r.memberName()
		if err != nil {
			return 0, err
		}
		if len(name) > maxPropertyName {
			return 0, fault(faultTooLong, strconv.Itoa(maxPropertyName)).named(string(name))
		}
		keyword := string(name)
		r.name(keyword)
		if err := r.keyword(&f, keyword, under(place, []byte(keyword))); err != nil {
			return 0, err.named(keyword)
		}
		if err := r.fits(); err != nil {
			return 0, err
		}
	}
	if err := r.closeSchema(&f); err != nil {
		return 0, err
	}
	return f.node, r.close()
}

// keyword reads the value of one keyword of a schema; place is where it stands.
func (r *reader) keyword(f *schemaFrame, name string, place uint64) *Error {
	node := func() *schemaNode { return &r.schemas.nodes[f.node] }
	set := func(k keyword) { node().keywords |= k }
	switch name {
	case "title", "description", "$comment", "$schema", "$id":
		return (&anything{check: schemaLiteral}).read(r)
	case "$ref":
		set(keywordRef)
		return r.reference(f.node)
	case "$dynamicRef", "$recursiveRef":
		return fault(faultUnsupported, name+", which the runtime ignores; write $ref")
	case "$defs", "definitions", "patternProperties", "dependentSchemas":
		_, err := r.schemaMap(f, roleElsewhere, place)
		return err
	case "not", "if", "then", "else", "contains", "propertyNames", "unevaluatedProperties", "unevaluatedItems", "additionalItems":
		if r.dec.PeekKind() != '{' {
			return (&anything{check: schemaLiteral}).read(r)
		}
		_, err := r.subschema(f.node, roleElsewhere, place, 0)
		return err
	case "type":
		return r.types(f)
	case "properties":
		set(keywordProperties)
		n, err := r.schemaMap(f, roleProperty, place)
		node().properties = int32(n)
		return err
	case "required":
		return r.requiredNames(f)
	case "additionalProperties":
		return r.additional(f, place)
	case "items", "prefixItems":
		return r.items(f, name, place)
	case "anyOf", "oneOf", "allOf":
		return r.alternatives(f, name, place)
	case "const":
		set(keywordConst)
		return r.literal(f)
	case "enum":
		set(keywordEnum)
		return r.enum(f)
	case "pattern":
		set(keywordPattern)
		return r.pattern(f)
	case "format":
		return r.format(f)
	}
	return r.numericKeyword(f, name)
}

// closeSchema checks what holds between the keywords of one schema object.
func (r *reader) closeSchema(f *schemaFrame) *Error {
	n := &r.schemas.nodes[f.node]
	if f.maxLength >= 0 && f.maxLength < f.minLength {
		return fault(faultOutOfRange, "at least minLength").at("maxLength")
	}
	if f.maxItems >= 0 && f.maxItems < f.minItems {
		return fault(faultOutOfRange, "at least minItems").at("maxItems")
	}
	n.pattern.rules += int32(max(f.minLength, f.maxLength, f.minItems, f.maxItems, 0))
	if n.types&typeInteger != 0 {
		if err := integerBounds(f.low, f.high); err != nil {
			return err
		}
		// With one bound alone the runtime drops zeros from it: at least 1900 also lets 190 through.
		if f.low.set || f.high.set {
			n.keywords |= keywordRange
			if !f.high.set {
				r.name("maximum")
				r.out = strconv.AppendInt(r.out, maxOneBound, 10)
			} else if !f.low.set {
				r.name("minimum")
				r.out = strconv.AppendInt(r.out, -maxOneBound, 10)
			}
		}
	}
	structure := n.keywords & (keywordUnion | keywordProperties | keywordAllOf)
	switch {
	case n.keywords&keywordRef != 0 && structure != 0:
		return fault(faultUnsupported, "properties, anyOf, oneOf or allOf together with $ref: it ignores them")
	case n.keywords&keywordUnion != 0 && structure != keywordUnion:
		return fault(faultUnsupported, "properties or allOf together with anyOf or oneOf: it ignores them")
	case n.keywords&(keywordAdditional|keywordAnyMore) != 0 && n.keywords&keywordOther != 0 && r.moreAllowed(f.node):
		return fault(faultUnsupported, "additionalProperties together with a property whose name has characters other than letters, digits, spaces and _ . $ @ : / ,; leave it out or set it to false")
	}
	for c := n.child; c != noNode; c = r.schemas.nodes[c].sibling {
		if child := &r.schemas.nodes[c]; child.role == roleProperty {
			child.required = slices.Contains(f.required, child.name)
		}
	}
	return nil
}

// moreAllowed reports whether additionalProperties is true or a schema.
func (r *reader) moreAllowed(node int32) bool {
	n := &r.schemas.nodes[node]
	if n.keywords&keywordAnyMore != 0 {
		return true
	}
	for c := n.child; c != noNode; c = r.schemas.nodes[c].sibling {
		if r.schemas.nodes[c].role == roleAdditional {
			return true
		}
	}
	return false
}

// integerBounds refuses the bounds of an integer for which the runtime makes a wrong or an endless grammar.
func integerBounds(low, high bound) *Error {
	most := float64(maxOneBound)
	if low.set && high.set {
		most = maxBothBounds
	}
	for _, b := range []struct {
		bound
		name string
	}{{low, "minimum"}, {high, "maximum"}} {
		switch {
		case !b.set:
		case b.fraction:
			return fault(faultWrongType, "one whole number without a point or exponent, for an integer").at(b.name)
		case math.Abs(b.at) > most:
			return fault(faultOutOfRange, fmt.Sprintf("a whole number from -%[1]d to %[1]d", int64(most))).at(b.name)
		}
	}
	if low.set && high.set && high.at < low.at {
		return fault(faultOutOfRange, "at least minimum").at("maximum")
	}
	return nil
}
