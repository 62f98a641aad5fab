package openai

import "strconv"

// What a schema costs the runtime. llama.cpp turns all schemas of a request into one grammar, and for each
// token keeps every position of the grammar at which the text so far may stand. When the model's choice
// does not fit, it compares the whole vocabulary with each of these positions. All of that happens on the
// one thread that serves every client. So there are four bounds:
//
//   - width: how many positions are held at once (about 6 ms each with 262 144 tokens, and another request may wait for two tokens)
//   - paths: in how many ways one token may be read
//   - build: how long the grammar takes to be made, in microseconds
//   - left: how many steps the search for left recursion takes, which visits a rule once for each path to it
//
// TestGrammarCalibration in e2e measures schemas at these bounds with the real runtime.
const (
	maxWidth  = 128
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
	perCollision   = 0.2       // for two rules whose names become the same: the runtime tries one number after the other
	perOptionalCub = 1.0 / 200 // the list of the remaining properties, copied for each property and each start
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
func (s *schemas) check(route Route, answers int) *Error {
	if len(s.roots) == 0 {
		return nil
	}
	g, targets, err := s.prepare(route)
	if err != nil {
		return err
	}
	for _, t := range targets {
		if err := g.within(t.node, answers, len(s.roots)); err != nil {
			return t.root.at(route, err)
		}
	}
	return nil
}

// prepare returns the schemas for which the runtime makes a rule, in their order, and the cost of what it does before.
func (s *schemas) prepare(route Route) (*grammarCost, []schemaTarget, *Error) {
	g := &grammarCost{nodes: s.nodes, byPlace: make(map[uint64]int32, len(s.nodes))}
	for i := range s.nodes {
		g.byPlace[s.nodes[i].place] = int32(i)
	}
	targets, err := s.targets(route, g)
	if err != nil {
		return nil, nil, err
	}
	for _, root := range s.roots {
		targets = append(targets, schemaTarget{root.node, root})
	}
	alike := map[uint64]int{}
	for i := range s.nodes {
		if rule := s.nodes[i].rule; rule != 0 {
			g.total += int(float64(alike[rule]) * perCollision)
			alike[rule]++
		}
	}
	for _, ref := range s.references { // the runtime copies the schema for each
		g.total += int(float64(s.roots[ref.root].bytes) * perCopiedByte)
	}
	return g, targets, nil
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
	case max(int(cost.width), roots)*answers > maxWidth:
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
func (s *schemas) targets(route Route, g *grammarCost) (targets []schemaTarget, err *Error) {
	type first struct {
		text   uint64
		target int32
	}
	rules := make(map[uint64]first, len(s.references))
	for _, ref := range s.references {
		root := s.roots[ref.root]
		target, found := g.byPlace[s.nodes[ref.node].target]
		if !found {
			return nil, root.at(route, fault(faultNowhere, ""))
		}
		before, known := rules[ref.named]
		switch {
		case !known:
			rules[ref.named] = first{ref.text, target}
			targets = append(targets, schemaTarget{target, root})
		case before.text != ref.text:
			return nil, root.at(route, fault(faultUnsupported, "two references that differ only in characters other than letters, digits and hyphens, which the runtime takes for one"))
		case before.target != target && (s.nodes[target].content == 0 || s.nodes[target].content != s.nodes[before.target].content):
			return nil, root.at(route, fault(faultUnsupported, "a reference that means something else in another tool, which the runtime takes for the same; give the definitions different names"))
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

// build estimates how many microseconds the runtime takes to make the grammar of n. The target of a reference is made
// once and counted separately, except properties that allOf merges, which are made again each time.
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
			if m.values > 0 {
				return fault(faultUnsupported, "an allOf with more than one enum")
			}
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
	if err == nil && m.values > 0 && (len(m.properties) > 0) {
		err = fault(faultUnsupported, "an allOf with an enum and something else")
	}
	return m, err
}
