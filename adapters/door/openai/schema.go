package openai

import (
	"bytes"
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
	// maxItemsBound is the largest minItems or maxItems for which the grammar parser surely makes rules: an
	// item counts up to three times towards the 2000 that it refuses.
	maxItemsBound = 600
	// maxPatternTotal bounds the items of all patterns together, each of which grows by at most 20 bytes
	// when it is rewritten.
	maxPatternTotal = 2048
	// maxOneBound bounds minimum or maximum where the other is absent: with more digits than 15 the
	// runtime makes a repetition that never ends. maxBothBounds holds where both are given.
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
func (root schemaRoot) at(e *Error) *Error {
	if root.tool == noTool {
		return e.at("schema").at("json_schema").at("response_format")
	}
	return e.at("parameters").at("function").index(root.tool).at("tools")
}

// schemaReference is a $ref. The runtime names the rule of a target by the reference's text with all but
// letters, digits and hyphens replaced, and looks it up by that name whichever schema it stands in.
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

type typeSet uint8

const (
	typeObject typeSet = 1 << iota
	typeArray
	typeString
	typeNumber
	typeInteger
	typeBoolean
	typeNull
)

var typeNames = []string{"object", "array", "string", "number", "integer", "boolean", "null"}

// keyword is what the runtime reads of a schema object; all others are passed on and ignored by it.
type keyword uint32

const (
	keywordRef keyword = 1 << iota
	keywordUnion
	keywordAllOf
	keywordConst
	keywordEnum
	keywordProperties
	keywordAdditional // with a schema or false
	keywordAnyMore    // additionalProperties: true
	keywordItems
	keywordTuple
	keywordPattern
	keywordFormat // one that the runtime knows
	keywordLength
	keywordRange
	keywordOther
)

// role is what a schema is for the one that holds it.
type role uint8

const (
	roleRoot role = iota
	roleProperty
	roleAdditional
	roleItem
	roleUnion
	roleAllOf
	roleElsewhere // definitions, and what the runtime ignores
)

// schemaNode is one schema object.
type schemaNode struct {
	place      uint64
	target     uint64 // of a reference
	name       uint64 // of a property
	value      uint64 // of a const, or of an enum with one value
	content    uint64 // of a definition: the hash of its whole text
	pattern    patternCost
	literals   int32 // bytes of const and enum
	path       int32 // bytes of the rule's name
	child      int32 // the first one, or noNode
	last       int32
	sibling    int32
	values     int32 // of an enum
	properties int32
	keywords   keyword
	types      typeSet
	typeList   bool
	role       role
	required   bool
	known      costState
}

const noNode int32 = -1

// open adds a node below parent.
func (s *schemas) open(parent int32, as role, place uint64, nameLength int) int32 {
	n := int32(len(s.nodes))
	s.nodes = append(s.nodes, schemaNode{place: place, role: as, child: noNode, last: noNode, sibling: noNode})
	node := &s.nodes[n]
	if parent == noNode {
		return n
	}
	p := &s.nodes[parent]
	node.path = p.path + int32(nameLength) + 1
	if p.child == noNode {
		p.child = n
	} else {
		s.nodes[p.last].sibling = n
	}
	p.last = n
	return n
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

func (r *reader) numericKeyword(f *schemaFrame, name string) *Error {
	switch name {
	case "minLength":
		return r.count(&f.minLength, maxRepetition)
	case "maxLength":
		return r.count(&f.maxLength, maxRepetition)
	case "minItems":
		return r.count(&f.minItems, maxItemsBound)
	case "maxItems":
		return r.count(&f.maxItems, maxItemsBound)
	case "minimum":
		return r.bound(&f.low, 0)
	case "exclusiveMinimum":
		return r.bound(&f.low, 1)
	case "maximum":
		return r.bound(&f.high, 0)
	case "exclusiveMaximum":
		return r.bound(&f.high, -1)
	}
	return (&anything{check: schemaLiteral}).read(r)
}

// schemaLiteral refuses, in JSON that is no schema, the names by which the runtime would take it for one.
func schemaLiteral(name []byte) *Error {
	if string(name) == "$ref" || string(name) == "$defs" {
		return fault(faultUnsupported, "this name here, which it takes for a keyword of the schema")
	}
	return nil
}

func (r *reader) count(to *int64, most int64) *Error {
	return integer{min: 0, max: most, note: func(_ *seen, n int64) { *to = n }}.read(r)
}

// bound reads a numeric bound. A boolean, as in draft 4, is passed on only where the runtime ignores it,
// which is nowhere.
func (r *reader) bound(b *bound, exclusive float64) *Error {
	mark := len(r.out)
	if err := r.kind('0', "a number"); err != nil {
		return err
	}
	if err := anyNumber(r); err != nil {
		return err
	}
	x, err := strconv.ParseFloat(string(r.out[mark:]), 64)
	if err != nil {
		return fault(faultWrongType, "a number")
	}
	if b.set { // the runtime reads the inclusive one and ignores the other
		b.fraction = true
	}
	b.set, b.at = true, x+exclusive
	b.fraction = b.fraction || x != math.Trunc(x) || bytes.ContainsAny(r.out[mark:], ".e")
	return nil
}

func (r *reader) reference(node int32) *Error {
	b, err := r.text()
	switch {
	case err != nil:
		return err
	case len(b) < 2 || b[0] != '#' || b[1] != '/':
		return fault(faultReference, "")
	case len(b) > maxPropertyName:
		return fault(faultTooLong, strconv.Itoa(maxPropertyName))
	}
	r.out = appendQuoted(r.out, b)
	s := &r.schemas
	if len(s.references) == maxReferences {
		return fault(faultTooMany, strconv.Itoa(maxReferences))
	}
	target := placeOf(uint64(len(s.roots)))
	for token := range bytes.SplitSeq(b[2:], []byte("/")) {
		target = under(target, token)
	}
	s.nodes[node].target = target
	named := make([]byte, 0, 64)
	for _, c := range b {
		switch {
		case alphanumeric(c) || c == '-':
			named = append(named, c)
		case len(named) == 0 || named[len(named)-1] != 0:
			named = append(named, 0)
		}
	}
	s.references = append(s.references, schemaReference{node, int32(len(s.roots)), hashOf(b), hashOf(named)})
	return nil
}

// schemaMap reads an object whose members are schemas.
func (r *reader) schemaMap(f *schemaFrame, as role, place uint64) (count int, err *Error) {
	if err := r.open('{', "an object of schemas"); err != nil {
		return 0, err
	}
	for ; r.dec.PeekKind() != '}'; count++ {
		raw, err := r.memberName()
		if err != nil {
			return 0, err
		}
		name := string(raw)
		switch {
		case count == maxProperties:
			return 0, fault(faultTooMany, strconv.Itoa(maxProperties))
		case len(name) > maxPropertyName:
			return 0, fault(faultTooLong, strconv.Itoa(maxPropertyName)).named(name)
		case as == roleProperty && name == "":
			return 0, fault(faultUnsupported, "a property without a name")
		}
		if as == roleProperty {
			if err := schemaLiteral([]byte(name)); err != nil {
				return 0, err.named(name)
			}
		}
		r.name(name)
		mark := len(r.out)
		child, err := r.subschema(f.node, as, under(place, []byte(name)), len(name))
		if err != nil {
			return 0, err.named(name)
		}
		if as == roleElsewhere {
			r.schemas.nodes[child].content = hashOf(r.out[mark:])
		}
		r.schemas.nodes[child].name = hashOfString(name)
		if as == roleProperty && !plainName(name) {
			r.schemas.nodes[f.node].keywords |= keywordOther
		}
	}
	return count, r.close()
}

// plainName reports whether the runtime can say "any name but this one" in a grammar.
func plainName(name string) bool {
	return each([]byte(name), func(c byte) bool { return alphanumeric(c) || bytes.IndexByte([]byte("_.$@:/ ,"), c) >= 0 })
}

func (r *reader) requiredNames(f *schemaFrame) *Error {
	if err := r.open('[', "an array of names"); err != nil {
		return err
	}
	for i := 0; r.dec.PeekKind() != ']'; i++ {
		if i == maxProperties {
			return fault(faultTooMany, strconv.Itoa(maxProperties))
		}
		b, err := r.text()
		if err != nil {
			return err.index(i)
		}
		f.required = append(f.required, hashOf(b))
		r.comma()
		r.out = appendQuoted(r.out, b)
	}
	return r.close()
}

func (r *reader) additional(f *schemaFrame, place uint64) *Error {
	switch r.dec.PeekKind() {
	case '{':
		r.schemas.nodes[f.node].keywords |= keywordAdditional
		_, err := r.subschema(f.node, roleAdditional, place, len("additional-value"))
		return err
	case 't':
		r.schemas.nodes[f.node].keywords |= keywordAnyMore
	default:
		r.schemas.nodes[f.node].keywords |= keywordAdditional
	}
	return boolean{}.read(r)
}

func (r *reader) items(f *schemaFrame, name string, place uint64) *Error {
	n := &r.schemas.nodes[f.node]
	if n.keywords&(keywordItems|keywordTuple) != 0 {
		return fault(faultUnsupported, "items beside prefixItems, of which the runtime reads one")
	}
	if r.dec.PeekKind() == '[' {
		n.keywords |= keywordTuple
		return r.schemaList(f, roleItem, place, len("tuple-00"))
	}
	if name == "prefixItems" {
		return fault(faultWrongType, "an array of schemas")
	}
	n.keywords |= keywordItems
	_, err := r.subschema(f.node, roleItem, place, len("item"))
	return err
}

func (r *reader) alternatives(f *schemaFrame, name string, place uint64) *Error {
	n := &r.schemas.nodes[f.node]
	k, as := keywordUnion, roleUnion
	if name == "allOf" {
		k, as = keywordAllOf, roleAllOf
	}
	if n.keywords&k != 0 {
		return fault(faultUnsupported, "anyOf beside oneOf, of which the runtime reads one")
	}
	n.keywords |= k
	return r.schemaList(f, as, place, 3)
}

func (r *reader) schemaList(f *schemaFrame, as role, place uint64, nameLength int) *Error {
	if err := r.open('[', "an array of schemas"); err != nil {
		return err
	}
	i := 0
	for ; r.dec.PeekKind() != ']'; i++ {
		r.comma()
		if _, err := r.subschema(f.node, as, r.atIndex(place, i), nameLength); err != nil {
			return err.index(i)
		}
	}
	if i == 0 && as != roleItem {
		return fault(faultEmpty, "")
	}
	return r.close()
}

// literal reads a const, or one value of an enum.
func (r *reader) literal(f *schemaFrame) *Error {
	mark := len(r.out)
	if err := (&anything{check: schemaLiteral}).read(r); err != nil {
		return err
	}
	n := &r.schemas.nodes[f.node]
	n.literals += int32(len(r.out) - mark)
	n.value = hashOf(r.out[mark:])
	return nil
}

func (r *reader) enum(f *schemaFrame) *Error {
	if err := r.open('[', "an array"); err != nil {
		return err
	}
	seen := make(map[uint64]struct{})
	for i := 0; r.dec.PeekKind() != ']'; i++ {
		if err := r.schemas.part(); err != nil {
			return err.index(i)
		}
		r.comma()
		if err := r.literal(f); err != nil {
			return err.index(i)
		}
		if err := r.fits(); err != nil {
			return err
		}
		value := r.schemas.nodes[f.node].value
		if _, twice := seen[value]; twice {
			return fault(faultUnsupported, "the same value twice").index(i)
		}
		seen[value] = struct{}{}
	}
	n := &r.schemas.nodes[f.node]
	if n.values = int32(len(seen)); n.values != 1 {
		n.value = 0
	}
	if len(seen) == 0 {
		return fault(faultEmpty, "")
	}
	return r.close()
}

func (r *reader) pattern(f *schemaFrame) *Error {
	b, err := r.text()
	if err != nil {
		return err
	}
	p, bad := parsePattern(b)
	if bad != nil {
		return fault(faultPattern, bad.Error())
	}
	s := &r.schemas
	if s.patternItems += p.items; s.patternItems > maxPatternTotal {
		return fault(faultTooManyItems, strconv.Itoa(maxPatternTotal))
	}
	s.nodes[f.node].pattern = p.cost
	r.out = appendQuoted(r.out, p.text)
	return nil
}

func (r *reader) format(f *schemaFrame) *Error {
	b, err := r.text()
	if err != nil {
		return err
	}
	if len(b) > maxPropertyName {
		return fault(faultTooLong, strconv.Itoa(maxPropertyName))
	}
	switch string(b) {
	case "date", "time", "date-time", "uuid", "uuid1", "uuid2", "uuid3", "uuid4", "uuid5":
		r.schemas.nodes[f.node].keywords |= keywordFormat
	}
	r.out = appendQuoted(r.out, b)
	return nil
}

// types reads the type or the types. The runtime reads the schema once for each.
func (r *reader) types(f *schemaFrame) *Error {
	one := func() *Error {
		b, err := r.text()
		if err != nil {
			return err
		}
		i := slices.Index(typeNames, string(b))
		if i < 0 {
			return fault(faultNotOneOf, "object, array, string, number, integer, boolean, null")
		}
		n := &r.schemas.nodes[f.node]
		if n.types&(1<<i) != 0 {
			return fault(faultUnsupported, "the same type twice")
		}
		n.types |= 1 << i
		r.out = appendQuoted(r.out, typeNames[i])
		return nil
	}
	if r.dec.PeekKind() != '[' {
		return one()
	}
	if err := r.open('[', "an array"); err != nil {
		return err
	}
	i := 0
	for ; r.dec.PeekKind() != ']'; i++ {
		r.comma()
		if err := one(); err != nil {
			return err
		}
	}
	if i == 0 {
		return fault(faultEmpty, "")
	}
	r.schemas.nodes[f.node].typeList = true
	return r.close()
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
	if f.minLength > 0 || f.maxLength >= 0 {
		n.keywords |= keywordLength
	}
	n.pattern.rules += int32(max(f.minLength, f.maxLength, f.minItems, f.maxItems, 0))
	if n.types&typeInteger != 0 {
		if err := integerBounds(f.low, f.high); err != nil {
			return err
		}
		if f.low.set || f.high.set {
			n.keywords |= keywordRange
		}
	}
	structure := n.keywords & (keywordUnion | keywordProperties | keywordAllOf)
	switch {
	case n.keywords&keywordRef != 0 && structure != 0:
		return fault(faultUnsupported, "$ref beside properties, anyOf, oneOf or allOf, which the runtime ignores then")
	case n.keywords&keywordUnion != 0 && structure != keywordUnion:
		return fault(faultUnsupported, "anyOf or oneOf beside properties or allOf, which the runtime ignores then")
	case n.keywords&(keywordAdditional|keywordAnyMore) != 0 && n.keywords&keywordOther != 0 && r.moreAllowed(f.node):
		return fault(faultUnsupported, "additionalProperties beside a property whose name is not made of letters, digits and _ . $ @ : / , or blanks; leave it out or set it to false")
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
