package openai

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
		return scalar(headString, 2)
	}
	switch t {
	case typeString:
		return scalar(headString, 2)
	case typeInteger, typeNumber:
		if has(keywordRange) && t == typeInteger {
			return scalar(headNumber, 40)
		}
		return scalar(headNumber, 4)
	case typeBoolean:
		return scalar(headBoolean, 2)
	case typeNull:
		return scalar(headNull, 1)
	case typeObject:
		return scalar(headObject, 8)
	case typeArray:
		return scalar(headArray, 8)
	}
	return scalar(allHeads, 8)
}

// object: while a value is read nothing else is open. Between properties all optional ones may come next.
func (g *grammarCost) object(n int32) (schemaCost, *Error) {
	whole := schemaCost{heads: headObject, paths: 1, copies: 1}
	next := int32(3)
	err := g.children(n, roleProperty, func(c int32) *Error {
		node := &g.nodes[c]
		cost, err := g.nested(c)
		if !node.required {
			next++
		} else {
			whole.copies = 0 // no token holds a whole object that is not empty
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
	whole.width = max(whole.width, next) + 1
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
	whole.width += 2
	return whole, err
}

// union is anyOf or oneOf. Alternatives that begin differently do not add up after their first character.
// Objects whose first properties have different values do not after that one.
func (g *grammarCost) union(n int32) (schemaCost, *Error) {
	alike, count, objects, err := g.alike(n)
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
	if objects > 1 { // each is at several places between its brace and its first name
		whole.width = max(whole.width, objects*3)
	}
	whole.width += count
	return whole, err
}

// alike counts the alternatives and those of them that may be objects, and reports whether two of these cannot be
// distinguished by their first property.
func (g *grammarCost) alike(n int32) (alike bool, count, objects int32, err *Error) {
	tags := map[uint64]bool{}
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
	return alike && objects > 1, count, objects, err
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
