package openai

import (
	"bytes"
	"math"
	"slices"
	"strconv"
)

// numericKeyword reads the value of a keyword that takes a number, or of one that the runtime ignores.
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

// schemaLiteral refuses, in JSON that is not a schema, the names by which the runtime would take it for one.
func schemaLiteral(name []byte) *Error {
	if string(name) == "$ref" || string(name) == "$defs" {
		return fault(faultUnsupported, "this name here, which it takes for a keyword of the schema")
	}
	return nil
}

// count reads a whole number of items or characters.
func (r *reader) count(to *int64, most int64) *Error {
	return integer{min: 0, max: most, note: func(_ *seen, n int64) { *to = n }}.read(r)
}

// bound reads a bound of numbers. Whether it can be enforced depends on the type, which may come later.
func (r *reader) bound(b *bound, exclusive float64) *Error {
	mark := len(r.out)
	if k := r.dec.PeekKind(); exclusive != 0 && (k == 't' || k == 'f') { // as in draft 4
		b.set, b.fraction = b.set || k == 't', b.fraction || k == 't'
		return boolean{}.read(r)
	}
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
	named, _ := ruleName(b)
	s.references = append(s.references, schemaReference{node, int32(len(s.roots)), hashOf(b), named})
	return nil
}

// ruleName hashes a name as the runtime uses it for a rule, in which each run of characters other than letters, digits
// and hyphens becomes one hyphen. plain reports whether the name has none of them.
func ruleName[B []byte | string](name B) (hash uint64, plain bool) {
	rule := make([]byte, 0, 64)
	plain = true
	for i := range len(name) {
		switch c := name[i]; {
		case alphanumeric(c) || c == '-':
			rule = append(rule, c)
		case len(rule) == 0 || rule[len(rule)-1] != 0:
			rule, plain = append(rule, 0), false
		}
	}
	return hashOf(rule), plain
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
		// The runtime takes the name for a keyword, also where it is one of a definition.
		if as == roleProperty || as == roleElsewhere {
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
		if rule, plain := ruleName(name); !plain {
			r.schemas.nodes[child].rule = rule
		}
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

// requiredNames reads the names of required properties. Anything else than an array is ignored by the runtime, such
// as true in the schema of a property, a common mistake.
func (r *reader) requiredNames(f *schemaFrame) *Error {
	if r.dec.PeekKind() != '[' {
		return (&anything{check: schemaLiteral}).read(r)
	}
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
		return fault(faultUnsupported, "items together with prefixItems: it reads only one")
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
		return fault(faultUnsupported, "anyOf together with oneOf: it reads only one")
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
