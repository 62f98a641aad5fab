package openai

import "strconv"

// What a schema costs the runtime. llama.cpp turns all schemas of a request into one grammar, and for each
// token keeps every position of the grammar at which the text so far may stand. When the model's choice
// does not fit, it compares the whole vocabulary with each of these positions. All of that happens on the
// one thread that serves every client. So there are four bounds:
//
//   - width: how many positions are held at once (3 to 6 ms each with 262 144 tokens)
//   - paths: in how many ways one token may be read
//   - build: how long the grammar takes to be made, in microseconds
//   - left: how many steps the search for left recursion takes, which does not remember where it was
//
// TestGrammarCalibration in e2e measures what lies at these bounds with the real runtime.
const (
	maxWidth  = 160
	maxCopies = 12 // alternatives that may read the same value
	maxBuild  = 300_000
	maxLeft   = 100_000
	saturated = 1 << 24
)

// Costs of making the grammar, in microseconds.
const (
	buildSchema    = 20  // a rule with its copies of the schema
	buildRule      = 2   // a rule that the grammar parser makes for a repetition
	buildLiteral   = 4   // a byte of a name, const or enum
	perNameByte    = 0.1 // a byte of a rule's name, each time that the name is made
	perCopiedByte  = 0.05
	perOptionalCub = 1.0 / 200 // the list of what may still come, copied for each property and each start
)

// schemaCost is what the bounds need to know of a schema.
type schemaCost struct {
	value  uint64 // of a const
	width  int32
	paths  int32
	copies int32
	heads  uint8 // the first characters that it may begin with
}

// First characters of JSON values.
const (
	headObject uint8 = 1 << iota
	headArray
	headString
	headNumber
	headBoolean
	headNull
	allHeads = 1<<iota - 1
)

// costState is what is known of a node while costs are computed.
type costState struct {
	visiting, counted, leftVisiting, buildVisiting bool
	level                                          int16 // ambiguous alternatives around it
	cost                                           schemaCost
	left, build                                    int32
}

// grammarCost computes the costs of a request's schemas.
type grammarCost struct {
	nodes   []schemaNode
	byPlace map[uint64]int32
	level   int16 // ambiguous alternatives around the schema whose cost is being computed
	total   int   // microseconds
}

// check bounds the costs of all schemas of a request, of which answers are made at once.
func (s *schemas) check(answers int) *Error {
	if len(s.roots) == 0 {
		return nil
	}
	g := grammarCost{nodes: s.nodes, byPlace: make(map[uint64]int32, len(s.nodes))}
	for i := range s.nodes {
		g.byPlace[s.nodes[i].place] = int32(i)
	}
	targets, err := s.targets(&g)
	if err != nil {
		return err
	}
	for _, root := range s.roots {
		targets = append(targets, schemaTarget{root.node, root})
		g.total += int(float64(root.bytes*len(s.references)) * perCopiedByte)
	}
	for _, t := range targets {
		if err := g.within(t.node, answers, len(s.roots)); err != nil {
			return t.root.at(err)
		}
	}
	return nil
}

// within bounds the cost of one schema, and of what is made for it and those before it.
func (g *grammarCost) within(n int32, answers, roots int) *Error {
	left, err := g.left(n)
	if err != nil {
		return err
	}
	steps, err := g.build(n)
	if err != nil {
		return err
	}
	cost, err := g.cost(n)
	if err != nil {
		return err
	}
	g.total = min(g.total+steps, saturated)
	switch {
	case left > maxLeft, g.total > maxBuild:
		return fault(faultTooCostly, "")
	case cost.paths > maxPaths, cost.copies > maxCopies:
		return fault(faultAmbiguous, "")
	case (int(cost.width)+roots)*answers > maxWidth:
		return fault(faultTooManyAlternatives, strconv.Itoa(maxWidth/answers))
	}
	return nil
}

// schemaTarget is a schema for which the runtime makes a rule of its own, and the schema that it is in.
type schemaTarget struct {
	node int32
	root schemaRoot
}

// targets resolves the references.
func (s *schemas) targets(g *grammarCost) (targets []schemaTarget, err *Error) {
	type first struct {
		text   uint64
		target int32
	}
	rules := make(map[uint64]first, len(s.references))
	for _, ref := range s.references {
		root := s.roots[ref.root]
		target, found := g.byPlace[s.nodes[ref.node].target]
		if !found {
			return nil, root.at(fault(faultNowhere, ""))
		}
		before, known := rules[ref.named]
		switch {
		case !known:
			rules[ref.named] = first{ref.text, target}
			targets = append(targets, schemaTarget{target, root})
		case before.text != ref.text:
			return nil, root.at(fault(faultUnsupported, "two references that differ only in characters other than letters, digits and hyphens, which the runtime takes for one"))
		case before.target != target && (s.nodes[target].content == 0 || s.nodes[target].content != s.nodes[before.target].content):
			return nil, root.at(fault(faultUnsupported, "a reference that means something else in another tool, which the runtime takes for the same; give the definitions different names"))
		}
	}
	return targets, nil
}

func (g *grammarCost) target(n int32) int32 { return g.byPlace[g.nodes[n].target] }

// children calls f for the children of n with the given role.
func (g *grammarCost) children(n int32, as role, f func(int32) *Error) *Error {
	for c := g.nodes[n].child; c != noNode; c = g.nodes[c].sibling {
		if g.nodes[c].role == as {
			if err := f(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// left counts the steps of the search for left recursion from n. Only references and alternatives pass it on:
// all others begin with a character.
func (g *grammarCost) left(n int32) (int, *Error) {
	node := &g.nodes[n]
	switch {
	case node.known.left > 0:
		return int(node.known.left), nil
	case node.known.leftVisiting:
		return 0, fault(faultCircle, "")
	}
	node.known.leftVisiting = true
	sum := 1
	add := func(c int32) *Error {
		steps, err := g.left(c)
		sum = min(sum+steps, saturated)
		return err
	}
	var err *Error
	switch {
	case node.keywords&keywordRef != 0:
		err = add(g.target(n))
	case node.keywords&keywordUnion != 0:
		err = g.children(n, roleUnion, add)
	case node.typeList:
		sum += 8
	}
	node.known.left = int32(sum)
	return sum, err
}

// build counts the microseconds that the grammar of n takes to be made. What a reference leads to is made
// once and counted apart, but for properties that allOf merges, which are made again each time.
func (g *grammarCost) build(n int32) (int, *Error) {
	node := &g.nodes[n]
	switch {
	case node.known.build > 0:
		return int(node.known.build), nil
	case node.known.buildVisiting:
		return 0, fault(faultCircle, "")
	}
	node.known.buildVisiting = true
	sum := buildSchema + int(node.literals)*buildLiteral + int(node.pattern.rules)*buildRule + int(float64(node.path)*perNameByte)
	add := func(c int32) *Error {
		steps, err := g.build(c)
		sum = min(sum+steps, saturated)
		return err
	}
	var err *Error
	switch {
	case node.keywords&keywordRef != 0:
	case node.keywords&keywordUnion != 0:
		err = g.children(n, roleUnion, add)
	default:
		optional := 0
		for _, as := range []role{roleProperty, roleAdditional, roleItem} {
			if err = g.children(n, as, func(c int32) *Error {
				if as == roleProperty && !g.nodes[c].required {
					optional++
				}
				return add(c)
			}); err != nil {
				return 0, err
			}
		}
		if node.keywords&keywordAllOf != 0 && node.keywords&(keywordProperties|keywordAdditional) == 0 {
			merged, e := g.merge(n, 0)
			if e != nil {
				return 0, e
			}
			for _, c := range merged.properties {
				if err = add(c); err != nil {
					return 0, err
				}
			}
			optional = len(merged.properties)
			if node.typeList { // merged for each type
				sum *= 2
			}
		}
		x := float64(optional)
		sum += int(x*x*x*perOptionalCub + (3*x+x*x/2)*float64(node.path+16)*perNameByte)
	}
	sum = min(sum, saturated)
	node.known.build = int32(sum)
	return sum, err
}

// merged is what an allOf becomes: the properties of its parts, or the values that all of them list.
type merged struct {
	properties []int32
	optional   int
	values     int
}

// maxMerged bounds how many references in a row lead to a part of an allOf.
const maxMerged = 32

// merge follows the parts of an allOf, as the runtime does: through references, and through one anyOf, to
// properties or an enum. All other parts it ignores.
func (g *grammarCost) merge(n int32, depth int) (m merged, err *Error) {
	names := map[uint64]bool{}
	var component func(c int32, required bool, depth int) *Error
	component = func(c int32, required bool, depth int) *Error {
		node := &g.nodes[c]
		switch {
		case depth > maxMerged:
			return fault(faultCircle, "")
		case node.keywords&keywordRef != 0:
			return component(g.target(c), required, depth+1)
		case node.keywords&keywordProperties != 0:
			return g.children(c, roleProperty, func(p int32) *Error {
				if names[g.nodes[p].name] {
					return fault(faultUnsupported, "an allOf with the same property twice")
				}
				names[g.nodes[p].name] = true
				if len(m.properties) == maxProperties {
					return fault(faultTooMany, strconv.Itoa(maxProperties))
				}
				m.properties = append(m.properties, p)
				if !required {
					m.optional++
				}
				return nil
			})
		case node.keywords&keywordEnum != 0:
			m.values += int(node.values)
			return nil
		}
		return fault(faultUnsupported, "an allOf of parts that have neither properties nor an enum")
	}
	err = g.children(n, roleAllOf, func(c int32) *Error {
		if g.nodes[c].keywords&keywordUnion != 0 {
			return g.children(c, roleUnion, func(c int32) *Error { return component(c, false, depth) })
		}
		return component(c, true, depth)
	})
	return m, err
}

// cost computes width, paths and copies of n. A schema that contains itself holds no more positions than
// one level of it, unless it does so inside alternatives that the runtime cannot tell apart.
func (g *grammarCost) cost(n int32) (schemaCost, *Error) {
	node := &g.nodes[n]
	switch {
	case node.known.counted:
		return node.known.cost, nil
	case node.known.visiting:
		if g.level > node.known.level {
			return schemaCost{}, fault(faultRecursion, "")
		}
		return schemaCost{heads: allHeads, width: 1, paths: 1, copies: 1}, nil
	}
	node.known.visiting, node.known.level = true, g.level
	cost, err := g.costOf(n)
	node.known.visiting, node.known.counted, node.known.cost = false, true, cost
	return cost, err
}

func (g *grammarCost) costOf(n int32) (schemaCost, *Error) {
	node := &g.nodes[n]
	switch {
	case node.keywords&keywordRef != 0:
		return g.cost(g.target(n))
	case node.keywords&keywordUnion != 0:
		return g.union(n)
	case node.types == 0:
		return g.costAs(n, 0)
	}
	var sum schemaCost
	for t := typeObject; t <= typeNull; t <<= 1 {
		if node.types&t == 0 {
			continue
		}
		cost, err := g.costAs(n, t)
		if err != nil {
			return sum, err
		}
		if sum.heads&cost.heads != 0 {
			sum = schemaCost{heads: sum.heads | cost.heads, width: sum.width + cost.width, paths: sum.paths + cost.paths, copies: sum.copies + cost.copies}
		} else if sum.heads == 0 {
			sum = cost
		} else {
			sum = schemaCost{heads: sum.heads | cost.heads, width: max(sum.width, cost.width) + 1, paths: max(sum.paths, cost.paths), copies: max(sum.copies, cost.copies)}
		}
	}
	return sum, nil
}

// costAs is the cost of n as one type, or as none when t is 0, in the order in which the runtime looks at
// the keywords.
func (g *grammarCost) costAs(n int32, t typeSet) (schemaCost, *Error) {
	node := &g.nodes[n]
	is := func(types typeSet) bool { return t == 0 || t&types != 0 }
	has := func(k keyword) bool { return node.keywords&k != 0 }
	scalar := func(heads uint8, width int32) (schemaCost, *Error) {
		return schemaCost{heads: heads, width: width, paths: 1, copies: 1}, nil
	}
	switch {
	case has(keywordConst):
		cost, err := scalar(allHeads, 1)
		cost.value = node.value
		return cost, err
	case has(keywordEnum):
		cost, err := scalar(allHeads, node.values)
		cost.value = node.value
		return cost, err
	case is(typeObject) && has(keywordProperties|keywordAdditional):
		return g.object(n)
	case is(typeObject|typeString) && has(keywordAllOf):
		return g.allOf(n)
	case is(typeArray) && has(keywordItems|keywordTuple):
		return g.array(n)
	case is(typeString) && has(keywordPattern):
		return schemaCost{heads: headString, width: node.pattern.width + 3, paths: node.pattern.paths, copies: 1}, nil
	case is(typeString) && has(keywordFormat):
		return scalar(headString, 4)
	}
	switch t {
	case typeString:
		return scalar(headString, 4)
	case typeInteger, typeNumber:
		if has(keywordRange) && t == typeInteger {
			return scalar(headNumber, 40)
		}
		return scalar(headNumber, 6)
	case typeBoolean:
		return scalar(headBoolean, 2)
	case typeNull:
		return scalar(headNull, 1)
	case typeObject:
		return scalar(headObject, 12)
	case typeArray:
		return scalar(headArray, 12)
	}
	return scalar(allHeads, 12)
}

// object: while a value is read nothing else is open. Between properties all optional ones may come next.
func (g *grammarCost) object(n int32) (schemaCost, *Error) {
	whole := schemaCost{heads: headObject, paths: 1, copies: 1}
	next := int32(4)
	err := g.children(n, roleProperty, func(c int32) *Error {
		node := &g.nodes[c]
		cost, err := g.nested(c)
		if !node.required {
			next++
		}
		whole.width, whole.paths = max(whole.width, cost.width), max(whole.paths, cost.paths)
		return err
	})
	if err != nil {
		return whole, err
	}
	more := g.nodes[n].keywords&keywordAnyMore != 0
	err = g.children(n, roleAdditional, func(c int32) *Error {
		more = true
		cost, err := g.nested(c)
		whole.width, whole.paths = max(whole.width, cost.width), max(whole.paths, cost.paths)
		return err
	})
	if more {
		next += 4 + min(g.nodes[n].properties, 64)
	}
	whole.width = max(whole.width, next) + 2
	return whole, err
}

// nested is the cost of a value inside an object or array.
func (g *grammarCost) nested(c int32) (schemaCost, *Error) {
	cost, err := g.cost(c)
	if err == nil && cost.copies > maxCopies {
		err = fault(faultAmbiguous, "")
	}
	return cost, err
}

func (g *grammarCost) allOf(n int32) (schemaCost, *Error) {
	whole := schemaCost{heads: allHeads, paths: 1, copies: 1}
	m, err := g.merge(n, 0)
	if err != nil {
		return whole, err
	}
	if len(m.properties) > 0 {
		whole.heads = headObject
	}
	for _, c := range m.properties {
		cost, err := g.nested(c)
		if err != nil {
			return whole, err
		}
		whole.width, whole.paths = max(whole.width, cost.width), max(whole.paths, cost.paths)
	}
	whole.width = max(whole.width, int32(m.optional)+4, int32(m.values)) + 2
	return whole, nil
}

func (g *grammarCost) array(n int32) (schemaCost, *Error) {
	whole := schemaCost{heads: headArray, paths: 1, copies: 1}
	err := g.children(n, roleItem, func(c int32) *Error {
		cost, err := g.nested(c)
		whole.width, whole.paths = max(whole.width, cost.width), max(whole.paths, cost.paths)
		return err
	})
	whole.width += 3
	return whole, err
}

// union is anyOf or oneOf. Alternatives that begin differently do not add up after their first character.
// Objects whose first properties have different values do not after that one.
func (g *grammarCost) union(n int32) (schemaCost, *Error) {
	alike, count, err := g.alike(n)
	if err != nil {
		return schemaCost{}, err
	}
	var sums [6]schemaCost
	var heads uint8
	values := map[uint64]bool{}
	if alike {
		g.level++
		defer func() { g.level-- }()
	}
	err = g.children(n, roleUnion, func(c int32) *Error {
		cost, err := g.cost(c)
		if err != nil {
			return err
		}
		heads |= cost.heads
		copies := cost.copies
		if cost.value != 0 && !values[cost.value] { // values that differ are not read in two ways
			values[cost.value] = true
			copies = 0
		}
		for i := range sums {
			switch {
			case cost.heads>>i&1 == 0:
			case alike || 1<<i != headObject:
				sums[i].width = min(sums[i].width+cost.width, saturated)
				sums[i].paths = min(sums[i].paths+cost.paths, saturated)
				sums[i].copies += copies
			default:
				sums[i].width, sums[i].paths = max(sums[i].width, cost.width), max(sums[i].paths, cost.paths)
			}
		}
		return nil
	})
	whole := schemaCost{heads: heads, paths: 1, copies: 1}
	for _, s := range sums {
		whole.width, whole.paths, whole.copies = max(whole.width, s.width), max(whole.paths, s.paths), max(whole.copies, s.copies)
	}
	whole.width += count
	return whole, err
}

// alike reports whether two objects among the alternatives cannot be told apart by their first property.
func (g *grammarCost) alike(n int32) (alike bool, count int32, err *Error) {
	tags := map[uint64]bool{}
	objects := 0
	err = g.children(n, roleUnion, func(c int32) *Error {
		count++
		object, tag := g.tag(c)
		if !object {
			return nil
		}
		objects++
		if tag == 0 || tags[tag] {
			alike = true
		}
		tags[tag] = true
		return nil
	})
	return alike && objects > 1, count, err
}

// tag returns whether n may be an object, and what its first property is, or 0 if that may differ.
func (g *grammarCost) tag(n int32) (object bool, tag uint64) {
	for range maxMerged {
		if g.nodes[n].keywords&keywordRef == 0 {
			break
		}
		n = g.target(n)
	}
	node := &g.nodes[n]
	switch {
	case node.keywords&(keywordRef|keywordUnion|keywordAllOf) != 0:
		return true, 0
	case node.keywords&(keywordConst|keywordEnum) != 0:
		return false, 0
	case node.types != 0 && node.types&typeObject == 0:
		return false, 0
	case node.types == 0 && node.keywords&(keywordProperties|keywordAdditional) == 0 &&
		node.keywords&(keywordItems|keywordTuple|keywordPattern|keywordFormat) != 0:
		return false, 0
	}
	for c := node.child; c != noNode; c = g.nodes[c].sibling {
		child := &g.nodes[c]
		if child.role == roleProperty && child.required {
			if child.keywords&(keywordConst|keywordEnum) != 0 && child.value != 0 {
				return true, mix(child.name, child.value)
			}
			return true, 0
		}
	}
	return true, 0
}
